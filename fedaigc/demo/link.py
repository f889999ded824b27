"""The demo's radio link: the transmission of each packet, and one task's image at several bit error rates."""

from collections.abc import Sequence
from dataclasses import asdict

from fedaigc.collaboration.link import Member, SimulatedLink
from fedaigc.collaboration.link_settings import LinkSettings
from fedaigc.collaboration.results import GroupRecord
from fedaigc.demo.page import LinkView
from fedaigc.demo.pictures import data_uri
from fedaigc.demo.redraw import Redraw
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.diffusion.adapters.stages import install

ERROR_RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


def link_view(redraw: Redraw, groups: Sequence[GroupRecord], seed: int) -> LinkView | None:
    """Collect all packets, and finish the first shared task once more at each of `ERROR_RATES`.

    Args:
        redraw: The run's model, plan and devices.
        groups: Groups from the record of the run.
        seed: Seed of the link.

    Returns:
        What the page shows of the link; None if no steps were shared.
    """
    shared_by = [group for group in groups if group.num_shared_steps]
    if not shared_by:
        return None
    prompts = {task.task_id: redraw.prompt(task) for group in shared_by for task in group.tasks}
    first = next(task for task in shared_by[0].tasks if task.handoff_step)
    device, prompt = redraw.devices[first.client], prompts[first.task_id]
    install(redraw.pipe, redraw.shared)
    steps = run_shared_steps(
        redraw.pipe,
        shared_by[0].prompt,
        redraw.plan,
        first.handoff_step or 0,
        noise_seed=shared_by[0].noise_seed,
        number_format="fixed8-gray",
    )
    pictures = []
    for rate in ERROR_RATES:
        link = SimulatedLink(LinkSettings(bit_error_rate=rate), seed)
        member = Member(f"page {rate}", first.client)
        arrived, _ = link.send({member: steps.packet})[member]
        task = device.add_prompt(prompt)
        device.finish(task, arrived, redraw.plan, noise_seed=0, delivery="tolerant", mend="clip")
        pictures.append((f"{100 * rate:g} %", data_uri(device.gallery.image(task))))
    packets = tuple(
        (prompts[task.task_id], asdict(task.link))
        for group in shared_by
        for task in group.tasks
        if task.link is not None
    )
    return LinkView(packets, prompt, shared_by[0].prompt, tuple(pictures))
