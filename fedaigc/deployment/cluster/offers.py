"""What a device offers to its cluster in a round: signatures of its prompts, and what they are to be drawn with.

An offer is signed with the key of the device's certificate, so that others can pass it on, and a device that offers two
things in one round is found out.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ConfigDict, Field, with_config

from fedaigc.bounds import MAX_CLUSTER_PROMPTS, MAX_EVALUATIONS, MAX_PEER_MESSAGE, MAX_ROUND
from fedaigc.deployment.peer.frames import PeerMistake
from fedaigc.deployment.peer.messages import Cost, Digest, SignatureText, disclosed
from fedaigc.deployment.peer.paired import Card
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.storage.bounded_json import read_json
from fedaigc.validation import typed_json

VERSION: Literal[1] = 1
_LABEL = b"fedaigc offer 1"
# the list of signatures
_DEPTH = 2
_STRICT = ConfigDict(extra="forbid")


@with_config(_STRICT)
@dataclass(frozen=True)
class Offer:
    """What one device offers in a round.

    Attributes:
        version: Version of these offers.
        round: Number of the round.
        device: Fingerprint of the device's certificate.
        plan: Fingerprint of the plan of its pictures.
        shared_steps: K.
        space: Hash of the atlas by whose nodes prompts are compared; "" for concepts.
        nonce: 32 random bytes, in hex.
        cost: What computing costs the device, see `agreement.own_cost`.
        signatures: The signature of each prompt, as JSON.
    """

    version: Literal[1]
    round: Annotated[int, Field(ge=1, le=MAX_ROUND)]
    device: Digest
    plan: Digest
    shared_steps: Annotated[int, Field(ge=1, le=MAX_EVALUATIONS)]
    space: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    nonce: Digest
    cost: Cost
    signatures: Annotated[tuple[SignatureText, ...], Field(max_length=MAX_CLUSTER_PROMPTS)]

    def task(self, number: int) -> str:
        """Return the name of a prompt in the cluster: it says nothing of the name at home."""
        return f"{self.device}/{number:02d}"

    @property
    def tasks(self) -> Mapping[str, Disclosed]:
        """Signatures by the names of their prompts. PeerMistake if one is none, or of another space."""
        return {self.task(number): self._signature(text) for number, text in enumerate(self.signatures)}

    def _signature(self, text: str) -> Disclosed:
        found = disclosed(text, nodes=bool(self.space))
        if isinstance(found, NodeSignature) and found.atlas != self.space:
            raise PeerMistake("the other device sent a node of another atlas than it says")
        return found


@dataclass(frozen=True)
class SignedOffer:
    """An offer as its device signed it.

    Attributes:
        offer: The offer.
        text: Its JSON, as it was signed.
        by: The signature of the text, in hex.
    """

    offer: Offer
    text: str
    by: str

    @cached_property
    def digest(self) -> str:
        """Digest of the text, in hex: it identifies the offer, whoever passes it on."""
        return hashlib.sha256(_LABEL + self.text.encode()).hexdigest()


def sign(offer: Offer, key_file: Path) -> SignedOffer:
    """Sign an offer.

    Args:
        offer: The offer.
        key_file: Key and certificate of this device, see `Peers.tls_file`.
    """
    text = json.dumps(asdict(offer), sort_keys=True, separators=(",", ":"))
    key = serialization.load_pem_private_key(key_file.read_bytes(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return SignedOffer(offer, text, key.sign(_LABEL + text.encode(), ec.ECDSA(hashes.SHA256())).hex())


def read_offer(text: str, by: str, cards: Mapping[str, Card]) -> SignedOffer:
    """Read an offer that somebody sent or passed on.

    Args:
        text: The offer.
        by: Its signature, in hex.
        cards: The devices of the cluster, by the fingerprints of their certificates.

    Raises:
        PeerMistake: If it is none, or no device of the cluster signed it.
    """
    try:
        # bounds the depth before types are checked
        read_json(text, max_characters=MAX_PEER_MESSAGE, max_depth=_DEPTH)
        offer = typed_json(Offer, text)
        card = cards[offer.device]
        key = x509.load_pem_x509_certificate(card.certificate.encode()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(bytes.fromhex(by), _LABEL + text.encode(), ec.ECDSA(hashes.SHA256()))
    except KeyError:
        raise PeerMistake("an offer of a device that is not of this cluster") from None
    except InvalidSignature:
        raise PeerMistake("an offer that its device did not sign") from None
    except (ValueError, TypeError) as error:
        raise PeerMistake(f"no offer of this version: {error!s:.300}") from error
    _ = offer.tasks
    return SignedOffer(offer, text, by)
