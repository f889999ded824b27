"""What two devices that share agree on, as a function of what both have said: the same on either.

Who computes is the device with the lower cost, and between equal ones that whose certificate has the smaller
fingerprint. Costs are what the owners' devices say: nothing proves them. The noise of the shared steps follows from
random numbers of both: neither chooses it alone.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import psutil

from fedaigc.bounds import MAX_PEER_COST
from fedaigc.collaboration.sealing import Binding
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.grouping import Group, distance, group
from fedaigc.semantics.signature import Signature

_ONE, _OTHER = "one", "other"


@dataclass(frozen=True)
class Side:
    """What one device has said.

    Attributes:
        certificate: Fingerprint of its certificate.
        nonce: Its random bytes, in hex.
        cost: What computing costs it.
        signature: The signature of its prompt.
    """

    certificate: str
    nonce: str
    cost: int
    signature: Disclosed


@dataclass(frozen=True)
class Agreement:
    """What both devices agree on.

    Attributes:
        executor: Fingerprint of the certificate of the device that runs the shared steps.
        prompt: The public prompt of the shared steps.
        noise_seed: Seed of their noise.
        binding: What the packet is sealed for.
        digest: Digest of all this, in hex: equal on both devices, or they do not go on.
    """

    executor: str
    prompt: str
    noise_seed: int
    binding: Binding
    digest: str


def own_cost() -> int:
    """Return what computing costs this machine now: 0 on mains, else what its battery lacks, in percent."""
    battery = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if battery is None or battery.power_plugged:
        return 0
    return max(0, min(MAX_PEER_COST, round(100 - battery.percent)))


def common(one: Disclosed, other: Disclosed, atlas: Atlas | None, taxonomy: Taxonomy) -> Group | None:
    """Return the group of two prompts, by nodes at the deepest node of both; None if they cannot share.

    Args:
        one: Signature of one prompt.
        other: Signature of the other prompt.
        atlas: The atlas of nodes.
        taxonomy: The knowledge graph of concepts.
    """
    if isinstance(one, NodeSignature) or isinstance(other, NodeSignature):
        if not (isinstance(one, NodeSignature) and isinstance(other, NodeSignature)) or atlas is None:
            return None
        if any(told.atlas != atlas.hash or told.node >= len(atlas) for told in (one, other)):
            return None
        ways = [set(atlas.lifted(told.node, told.highest)) for told in (one, other)]
        # both ways lead to the root: what they have in common lies on one way, where numbers grow downwards
        node = max(ways[0] & ways[1], default=None)
        return None if node is None else Group((_ONE, _OTHER), atlas.captions[atlas.medoid(node)], None, node)
    groups = group({_ONE: one, _OTHER: other}, taxonomy)
    return groups[0] if len(groups) == 1 else None


def best(
    theirs: Disclosed, own: Sequence[tuple[str, Disclosed]], atlas: Atlas | None, taxonomy: Taxonomy
) -> tuple[str, Disclosed] | None:
    """Return which own prompt shares most with another device's: the nearest, of equally near ones the first.

    Args:
        theirs: Signature of the other device's prompt.
        own: Tasks and their signatures, oldest first.
        atlas: The atlas of nodes.
        taxonomy: The knowledge graph of concepts.
    """
    found: list[tuple[float, int]] = []
    for number, (_, signature) in enumerate(own):
        shared = common(theirs, signature, atlas, taxonomy)
        if shared is None:
            continue
        if shared.node is not None and atlas is not None:
            apart = -float(len(atlas.lifted(shared.node, 0)))
        else:
            assert isinstance(theirs, Signature)
            assert isinstance(signature, Signature)
            apart = distance(theirs, signature, taxonomy)
        found.append((apart, number))
    return own[min(found)[1]] if found else None


def agreement(calls: Side, answers: Side, shared: Group, plan: str, shared_steps: int) -> Agreement:
    """Return what follows from what both devices have said.

    Args:
        calls: The device that called.
        answers: The device that answered.
        shared: The group of their prompts.
        plan: Fingerprint of the plan.
        shared_steps: K.
    """
    told = [[side.certificate, side.nonce, side.cost, side.signature.to_json()] for side in (calls, answers)]
    executor = min((calls, answers), key=lambda side: (side.cost, side.certificate)).certificate
    text = json.dumps(["fedaigc sharing 1", *told, shared.prompt, plan, shared_steps, executor])
    digest = hashlib.sha256(text.encode())
    seed = int.from_bytes(hashlib.sha256(b"noise" + digest.digest()).digest()[:8], "big") >> 1
    return Agreement(
        executor, shared.prompt, seed, Binding(digest.digest(), shared_steps), digest.hexdigest()
    )
