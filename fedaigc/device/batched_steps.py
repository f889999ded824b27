"""The shared steps of several groups at once: lines that are at the same step go through the denoiser in one batch.

A batch computes what each of its lines would by itself, up to rounding: the last bits of a sum depend on the size of
the batch. The hand-off stays exact, since a packet has what was computed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedaigc.device.replies import Failure, SharedSteps
from fedaigc.device.shared_steps import Line
from fedaigc.diffusion.adapters.stages import run_stages
from fedaigc.diffusion.handoff.packing import Handoff, check_handoff, pack
from fedaigc.diffusion.sampling.segment import DenoiserCount, DenoisingState, initial_state
from fedaigc.diffusion.schedule.noise_draws import draws_noise
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import NotFinite, UserError
from fedaigc.wireless.number_format import FormatName

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class Tree:
    """The shared steps of one group.

    Attributes:
        noise_seed: Seed of the initial noise.
        lines: Its lines, of which the first begins with the noise.
    """

    noise_seed: int
    lines: tuple[Line, ...]


@dataclass
class _Running:
    """A line at a step."""

    tree: int
    line: int
    state: DenoisingState


@dataclass
class _Done:
    """What a tree has so far."""

    packets: dict[tuple[int, int], bytes]
    calls: int = 0
    samples: int = 0
    failed: bool = False


def run_batched_steps(
    pipe: "DiffusionPipeline",
    trees: Sequence[Tree],
    plan: DenoisingPlan,
    batch: int,
    *,
    handoff: Handoff = "exact",
    number_format: FormatName | None = None,
) -> list[SharedSteps | Failure]:
    """Run the shared steps of groups, up to `batch` lines at once, and pack their states.

    Each group's count of denoiser calls is what it would be by itself.

    Args:
        pipe: Pipeline of the executor, with the shared state that the plan names.
        trees: The groups.
        plan: Denoising plan of all groups.
        batch: The largest batch.
        handoff: Hand-off mode.
        number_format: Number format of the packets; None for bits as computed.

    Returns:
        For each group, its packets line by line; or `Failure.NOT_FINITE`.

    Raises:
        UserError: As `run_shared_steps`, or if the sampler draws noise, which a batch draws for all of its samples.
    """
    if draws_noise(plan):
        raise UserError(
            f"{plan.scheduler_class} draws noise in its steps, and a batch would draw it for all of its groups: run "
            "them one after the other"
        )
    for step in {step for tree in trees for line in tree.lines for step in line.stops}:
        check_handoff(plan, step, handoff)
    done = [_Done({}) for _ in trees]
    running = [_Running(n, 0, initial_state(pipe, plan, tree.noise_seed)) for n, tree in enumerate(trees)]
    while running:
        # all lines that run are at the same step: that at which the next one of them hands off, ends or divides
        begin = running[0].state.step
        until = min(step for each in running for step in _breaks(trees[each.tree], each.line) if step > begin)
        for start in range(0, len(running), batch):
            _advance(pipe, running[start : start + batch], trees, plan, until, done)
        following = []
        for each in running:
            tree, line = trees[each.tree], trees[each.tree].lines[each.line]
            if done[each.tree].failed:
                continue
            if until in line.stops:
                done[each.tree].packets[each.line, until] = pack(each.state, plan, handoff, number_format)
            if until < line.stops[-1]:
                following.append(each)
            following += [
                _Running(each.tree, number, each.state)
                for number, below in enumerate(tree.lines)
                if number and below.parent == each.line and below.start == until
            ]
        running = following
    return [_reply(tree, found) for tree, found in zip(trees, done, strict=True)]


def _breaks(tree: Tree, number: int) -> set[int]:
    starts = {line.start for at, line in enumerate(tree.lines) if at and line.parent == number}
    return {*tree.lines[number].stops, *starts}


def _reply(tree: Tree, done: _Done) -> SharedSteps | Failure:
    if done.failed:
        return Failure.NOT_FINITE
    first, *later = (done.packets[n, step] for n, line in enumerate(tree.lines) for step in line.stops)
    return SharedSteps(first, done.calls, done.samples, tuple(later))


def _advance(
    pipe: "DiffusionPipeline",
    running: Sequence[_Running],
    trees: Sequence[Tree],
    plan: DenoisingPlan,
    until: int,
    done: Sequence[_Done],
) -> None:
    """Run lines in one batch up to a step. If a value is not finite, each runs by itself, and its tree alone fails."""
    prompts = [trees[each.tree].lines[each.line].prompt for each in running]
    try:
        with DenoiserCount(pipe) as count:
            state = run_stages(
                pipe, _stacked([each.state for each in running]), {"prompt": prompts}, plan, until
            )
    except NotFinite:
        if len(running) == 1:
            done[running[0].tree].failed = True
            return
        for each in running:
            _advance(pipe, [each], trees, plan, until, done)
        return
    for place, each in enumerate(running):
        each.state = _part(state, place, each.state)
        done[each.tree].calls += count.calls
        done[each.tree].samples += count.samples // len(running)


def _stacked(states: Sequence[DenoisingState]) -> DenoisingState:
    """Return one state of several samples; what is no tensor of latents is the same in all of them."""
    if len(states) == 1:
        return states[0]
    first = states[0]

    def stack(values: Sequence[Any]) -> Any:
        if isinstance(values[0], Tensor) and values[0].shape == first.latents.shape:
            return torch.cat(list(values))
        if isinstance(values[0], list):
            return [stack(each) for each in zip(*values, strict=True)]
        return values[0]

    histories = [state.history or {} for state in states]
    history = {name: stack([each[name] for each in histories]) for name in histories[0]}
    # no step may draw noise: see `draws_noise`
    return replace(
        first, latents=stack([state.latents for state in states]), history=history, noise_seed=None
    )


def _part(state: DenoisingState, place: int, before: DenoisingState) -> DenoisingState:
    """Return one sample of a state, with the noise stream that it had before."""
    if len(state.latents) == 1:
        return replace(state, noise_seed=before.noise_seed)

    def part(value: Any) -> Any:
        if isinstance(value, Tensor) and value.shape == state.latents.shape:
            return value[place : place + 1].clone()
        return [part(item) for item in value] if isinstance(value, list) else value

    history = {name: part(value) for name, value in (state.history or {}).items()}
    return replace(state, latents=part(state.latents), history=history, noise_seed=before.noise_seed)
