"""What one process agrees on and draws from the frames that two devices sent."""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedaigc.deployment.peer import messages
from fedaigc.deployment.peer.agreement import Agreement, Side, agreement
from fedaigc.deployment.peer.frames import Frames
from fedaigc.deployment.peer.messages import Hello, Match
from fedaigc.deployment.peer.paired import Peers
from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.federation.config.run_config import ModelSection
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.disclosed import Disclosed, read_signature
from fedaigc.semantics.pairs import common


@dataclass(frozen=True)
class Agreed:
    """What two devices agreed on.

    Attributes:
        signatures: What each has said of its prompt.
        prompt: The public prompt of the shared steps.
        found: The agreement.
        packet: The packet of the shared steps.
    """

    signatures: tuple[Disclosed, Disclosed]
    prompt: str
    found: Agreement
    packet: bytes


def message(data: bytes, kind: type[messages.Kind]) -> messages.Kind:
    """Read a recorded frame."""
    one, other = socket.socketpair()
    with one, other:
        Frames(one, 5).send(data)
        return messages.receive(Frames(other, 5), kind)


def drawn_in_one_process(
    homes: Sequence[Path],
    copies: Sequence[Path],
    sent: Sequence[Sequence[bytes]],
    small_model: Path,
    atlas: Path | None = None,
) -> Agreed:
    """Draw the prompts of two homes, that of the caller first, in copies that were made before they shared.

    Args:
        homes: The homes.
        copies: Their copies.
        sent: The frames that each device sent.
        small_model: The model.
        atlas: The file of the atlas by whose nodes they compared; None: they did by concepts.
    """
    hello, match = message(sent[0][0], Hello), message(sent[1][0], Match)
    signatures = read_signature(hello.signature), read_signature(match.signature)
    shared = common(*signatures, Atlas.read(atlas) if atlas is not None else None, taxonomy())
    assert shared is not None
    said = ((hello.nonce, hello.cost), (match.nonce, match.cost))
    calls, answers = (
        Side(Peers(Home.open(home)).own().fingerprint, *told, signature)
        for home, told, signature in zip(homes, said, signatures, strict=True)
    )
    found = agreement(calls, answers, shared, hello.request.fingerprint, hello.shared_steps)
    pipe, base_hash = base_model(ModelSection(name=str(small_model), height=32, width=32))
    plan = PlanRequest.from_values(hello.plan).build(pipe, base_hash)
    # an earlier test may have left adapters in this process's pipeline
    put_adapters(pipe, None, None)
    steps = run_shared_steps(pipe, shared.prompt, plan, hello.shared_steps, noise_seed=found.noise_seed)
    for copy in copies:
        device = Device(copy, pipe, base_hash=base_hash, taxonomy=taxonomy())
        device.finish(device.waiting()[0], steps.packet, plan, noise_seed=1)
    return Agreed(signatures, shared.prompt, found, steps.packet)
