"""What one process elects and draws from the offers that the devices of a cluster sent."""

from collections.abc import Sequence
from pathlib import Path

from fedaigc.deployment.cluster.election import Elected, elect
from fedaigc.deployment.cluster.messages import Offered, decoded
from fedaigc.deployment.cluster.offers import SignedOffer, read_offer
from fedaigc.deployment.peer.paired import Peers
from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.device.training.local_round import put_adapters
from fedaigc.federation.config.run_config import ModelSection
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.semantics.grouping import group
from tests.deployment.peer.devices import TERMS


def offers_in(sent: Sequence[Sequence[bytes]], homes: Sequence[Path]) -> dict[str, SignedOffer]:
    """Return the offers among the frames that devices sent, by their devices; each made one only."""
    cards = {own.fingerprint: own for own in (Peers(Home.open(home)).own() for home in homes)}
    messages = [decoded(frame) for frames in sent for frame in frames if not frame.startswith(b"FAGS")]
    read = [read_offer(found.text, found.by, cards) for found in messages if isinstance(found, Offered)]
    assert len({signed.digest for signed in read}) == len({signed.offer.device for signed in read})
    return {signed.offer.device: signed for signed in read}


def elected_from(offers: dict[str, SignedOffer]) -> list[Elected]:
    return elect(offers.values(), {"": lambda said, owners: group(said, taxonomy())})  # type: ignore[arg-type]


def drawn_in_one_process(
    homes: Sequence[Path], copies: Sequence[Path], offers: dict[str, SignedOffer], small_model: Path
) -> list[dict[str, Elected]]:
    """Draw the prompts of homes in copies that were made before the round; return the group of each task."""
    pipe, base_hash = base_model(ModelSection(name=str(small_model), height=32, width=32))
    put_adapters(pipe, None, None)
    elected, groups = elected_from(offers), []
    for home, copy in zip(homes, copies, strict=True):
        device = Device(copy, pipe, base_hash=base_hash, taxonomy=taxonomy())
        plan, shared = TERMS.plan(device), {}
        offer = offers[Peers(Home.open(home)).own().fingerprint].offer
        for place, task in enumerate(device.waiting()):
            (chosen,) = (found for found in elected if offer.task(place) in found.members)
            packet = run_shared_steps(
                pipe, chosen.prompt, plan, chosen.shared_steps, noise_seed=chosen.noise_seed
            ).packet
            device.finish(task, packet, plan, noise_seed=1)
            shared[task] = chosen
        groups.append(shared)
    return groups
