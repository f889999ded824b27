"""What two devices that share agree on, as a function of what both have said: the same on either.

Who computes is the device with the lower cost, and between equal ones that whose certificate has the smaller
fingerprint. Costs are what the owners' devices say: nothing proves them. The noise of the shared steps follows from
random numbers of both: neither chooses it alone.
"""

import hashlib
import json
from dataclasses import dataclass

import psutil

from fedaigc.bounds import MAX_PEER_COST
from fedaigc.collaboration.election import cheapest
from fedaigc.collaboration.sealing import Binding
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.grouping import Group


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
    costs = {side.certificate: side.cost for side in (calls, answers)}
    executor = cheapest(costs, costs)
    text = json.dumps(["fedaigc sharing 1", *told, shared.prompt, plan, shared_steps, executor])
    digest = hashlib.sha256(text.encode())
    seed = int.from_bytes(hashlib.sha256(b"noise" + digest.digest()).digest()[:8], "big") >> 1
    return Agreement(
        executor, shared.prompt, seed, Binding(digest.digest(), shared_steps), digest.hexdigest()
    )
