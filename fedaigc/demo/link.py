"""The demo's radio link: the transmission of each packet, and one task's image at several bit error rates."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from fedaigc.demo.page import LinkView
from fedaigc.demo.pictures import data_uri

if TYPE_CHECKING:
    from collections.abc import Sequence

    from diffusers import DiffusionPipeline

    from fedaigc.device.device import Device
    from fedaigc.diffusion.adapters.stages import SharedState
    from fedaigc.diffusion.sampling.segment import DenoisingState
    from fedaigc.diffusion.schedule.plan import DenoisingPlan
    from fedaigc.federation.config.run_config import FederationConfig
    from fedaigc.federation.output.records import GroupRecord

SNR_DB = 12.0
ERROR_RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


def link_settings() -> dict[str, Any]:
    """Return the `generation` settings of the demo's link."""
    return {"delivery": "tolerant", "link": {"snr_db": SNR_DB, "max_transmissions": 3}}


def over_link(
    state: "DenoisingState", task_id: str, client: int, config: "FederationConfig", plan: "DenoisingPlan"
) -> "DenoisingState":
    """Return a denoising state as the member with this task received it in the run.

    Args:
        state: State at the hand-off step.
        task_id: Task of the member.
        client: Client of the member.
        config: Configuration of the run.
        plan: Denoising plan of the run.
    """
    from fedaigc.collaboration.link import Member, SimulatedLink
    from fedaigc.collaboration.link_settings import LinkSettings
    from fedaigc.diffusion.handoff.packing import mended, pack, unpack

    link = config.generation.link or LinkSettings(number_format=None)
    packet = pack(state, plan, config.generation.handoff, link.number_format)
    member = Member(task_id, client)
    arrived, _ = SimulatedLink(link, config.seed).send({member: packet})[member]
    return mended(unpack(arrived, plan, "tolerant"), plan, link.mend)


def link_view(
    pipe: "DiffusionPipeline",
    shared: "SharedState",
    devices: "Sequence[Device]",
    groups: "Sequence[GroupRecord]",
    config: "FederationConfig",
    plan: "DenoisingPlan",
    boundary: int,
) -> LinkView | None:
    """Collect all packets, and finish the first shared task once more at each of `ERROR_RATES`.

    Only the owner of all devices can show their prompts.

    Args:
        pipe: The diffusion pipeline.
        shared: Shared state of the run.
        devices: The devices, indexed by client.
        groups: Groups from the record of the run.
        config: Configuration of the run.
        plan: Denoising plan of the run.
        boundary: First step on the personal side of t*.

    Returns:
        What the page shows of the link; None if no steps were shared.
    """
    from fedaigc.collaboration.link import Member, SimulatedLink
    from fedaigc.collaboration.link_settings import LinkSettings
    from fedaigc.device.shared_steps import run_shared_steps
    from fedaigc.diffusion.adapters.stages import install

    shared_by = [group for group in groups if group.num_shared_steps]
    if not shared_by:
        return None
    prompts = {
        task.task_id: devices[task.client].prompts.get(task.task_id).prompt
        for group in shared_by
        for task in group.tasks
    }
    first = shared_by[0].tasks[0]
    device, prompt = devices[first.client], prompts[first.task_id]
    install(pipe, shared)
    steps = run_shared_steps(
        pipe,
        shared_by[0].prompt,
        plan,
        shared_by[0].num_shared_steps,
        noise_seed=shared_by[0].noise_seed,
        boundary=boundary,
        number_format="fixed8-gray",
    )
    pictures = []
    for rate in ERROR_RATES:
        link = SimulatedLink(LinkSettings(bit_error_rate=rate), config.seed)
        member = Member(f"page {rate}", first.client)
        arrived, _ = link.send({member: steps.packet})[member]
        task = device.add_prompt(prompt)
        device.finish(task, arrived, plan, noise_seed=0, delivery="tolerant", mend="clip")
        pictures.append((f"{100 * rate:g} %", data_uri(device.gallery.image(task))))
    packets = tuple(
        (prompts[task.task_id], asdict(task.link))
        for group in shared_by
        for task in group.tasks
        if task.link is not None
    )
    return LinkView(packets, prompt, shared_by[0].prompt, tuple(pictures))
