"""The messages of two devices that share: a closed list, all of one size, with nothing of a prompt but its signature.

    calls -> answers    Hello: the plan, and a signature
    answers -> calls    Match: the signature of a prompt that fits
    calls -> answers    Agreed
    executor -> other   the sealed packet of the shared steps (no message of this list)
    other -> executor   Received

In place of each of them a device may refuse, with one of a few reasons.
"""

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field, with_config

from fedaigc.bounds import MAX_EVALUATIONS, MAX_PEER_COST, MAX_PEER_MESSAGE, MAX_SIGNATURE_CHARACTERS
from fedaigc.deployment.peer.frames import Frames, PeerMistake
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.errors import Error
from fedaigc.semantics.disclosed import Disclosed, read_signature
from fedaigc.semantics.policy import Policy
from fedaigc.storage.bounded_json import read_json
from fedaigc.validation import typed_json

VERSION: Literal[1] = 1
# a plan in a hello in a message
_DEPTH = 3
_STRICT = ConfigDict(extra="forbid")
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Cost = Annotated[int, Field(ge=0, le=MAX_PEER_COST)]
SignatureText = Annotated[str, Field(max_length=MAX_SIGNATURE_CHARACTERS)]


class Reason(StrEnum):
    """Why a device does not share."""

    BUSY = "busy"
    OTHER_SPACE = "other_space"
    PLAN = "plan"
    NOTHING_FITS = "nothing_fits"


_TOLD = {
    Reason.BUSY: "it is busy, or was asked too often: try again later",
    Reason.OTHER_SPACE: "it compares prompts in another way: use one atlas on both, or none on both",
    Reason.PLAN: "it does not draw with this model, these steps or this size",
    Reason.NOTHING_FITS: "none of its waiting prompts fits",
}


class PeerRefused(Error):
    """The other device refuses to share; the message says why."""


@with_config(_STRICT)
@dataclass(frozen=True)
class Hello:
    """What a device says when it calls.

    Attributes:
        version: Version of these messages.
        plan: The plan of both pictures, as `PlanRequest.values`.
        shared_steps: K.
        space: Hash of the atlas by whose nodes prompts are compared; "" for concepts.
        nonce: 32 random bytes, in hex.
        cost: What computing costs this device, see `agreement.own_cost`.
        signature: Signature of the prompt, as JSON.
    """

    version: Literal[1]
    plan: dict[str, Any]
    shared_steps: Annotated[int, Field(ge=1, le=MAX_EVALUATIONS)]
    space: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")]
    nonce: Digest
    cost: Cost
    signature: SignatureText

    @property
    def request(self) -> PlanRequest:
        """The plan. UserError for other keys or values beyond the bounds."""
        return PlanRequest.from_values(self.plan)


@with_config(_STRICT)
@dataclass(frozen=True)
class Match:
    """The answer of a device one of whose prompts fits; see `Hello`."""

    nonce: Digest
    cost: Cost
    signature: SignatureText


@with_config(_STRICT)
@dataclass(frozen=True)
class Agreed:
    """The device that called goes on.

    Attributes:
        agreement: Digest of all that both have to agree on, see `agreement.Agreement`.
    """

    agreement: Digest


@with_config(_STRICT)
@dataclass(frozen=True)
class Received:
    """The packet arrived and is for this sharing."""


@with_config(_STRICT)
@dataclass(frozen=True)
class Refused:
    """The device does not share."""

    reason: Reason


Message = Hello | Match | Agreed | Received | Refused
_KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind for kind in (Hello, Match, Agreed, Received, Refused)
}
Kind = TypeVar("Kind", Hello, Match, Agreed, Received, Refused)


def send(frames: Frames, message: Message) -> None:
    """Send a message; PeerGone as `Frames.send`."""
    text = json.dumps([type(message).__name__.lower(), asdict(message)]).encode()
    frames.send(text.ljust(MAX_PEER_MESSAGE))


def receive(frames: Frames, kind: type[Kind], patience_s: float | None = None) -> Kind:
    """Receive a message of this kind.

    Raises:
        PeerRefused: If the other device refuses.
        PeerGone: If none comes.
        PeerMistake: If anything else comes.
    """
    data = frames.receive(MAX_PEER_MESSAGE, patience_s)
    try:
        if len(data) != MAX_PEER_MESSAGE:
            raise ValueError(f"a message of {len(data)} bytes: expected {MAX_PEER_MESSAGE}")
        found = read_json(data.decode(), max_characters=MAX_PEER_MESSAGE, max_depth=_DEPTH)
        if not isinstance(found, list) or len(found) != 2 or found[0] not in list(_KINDS):
            raise ValueError("a message of an unknown kind")
        message = typed_json(_KINDS[found[0]], json.dumps(found[1]))
    except (ValueError, TypeError) as error:
        raise PeerMistake(f"the other device sent what this version does not know: {error!s:.300}") from error
    if isinstance(message, Refused):
        raise PeerRefused(f"the other device does not share: {_TOLD[message.reason]}")
    if not isinstance(message, kind):
        raise PeerMistake(f"the other device sent {found[0]!r} out of turn")
    return message


def disclosed(text: str, *, nodes: bool) -> Disclosed:
    """Return the signature in a message.

    Raises:
        PeerMistake: If it is none, of the other space, or holds a prompt.
    """
    try:
        found = read_signature(text)
    except (ValueError, TypeError) as error:
        raise PeerMistake("the other device sent no signature") from error
    if (found.policy == "node") is not nodes or found.policy == Policy.OPEN:
        raise PeerMistake("the other device sent a signature of another kind")
    return found
