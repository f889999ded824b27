"""Measure what sharing costs on pairs of public captions, without labels: see `calibration`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from fedaigc.diffusion.handoff.packing import check_handoff
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError
from fedaigc.rng import derived_seed, numpy_rng

_BATCH = 4


@dataclass(frozen=True)
class CaptionPair:
    """Two captions: the steps are shared on `other`, the picture is `own`'s."""

    own: str
    other: str
    distance: float


def spread_pairs(
    captions: Sequence[str], vectors: Float[np.ndarray, "n d"], count: int, seed: int
) -> list[CaptionPair]:
    """Choose pairs from the smallest distance to the largest; a caption is in one pair.

    Their distances grow like squares: most pairs are near, where devices decide, and none is repeated.

    Args:
        captions: The captions, at least twice as many as pairs.
        vectors: Vector of each caption.
        count: Number of pairs.
        seed: Seed of the draw: which of the two is `own`.

    Raises:
        UserError: If there are too few captions.
    """
    if not 2 <= 2 * count <= len(captions):
        raise UserError(f"{count} pairs need {2 * count} different captions, got {len(captions)}")
    from scipy.spatial.distance import pdist, squareform

    apart = squareform(pdist(vectors))
    ones, others = np.triu_indices(len(captions), 1)
    order = np.argsort(apart[ones, others], kind="stable")
    ones, others = ones[order], others[order]
    lengths = apart[ones, others]
    wanted = lengths[0] + (lengths[-1] - lengths[0]) * np.linspace(0, 1, count) ** 2
    free = np.ones(len(captions), bool)
    random = numpy_rng(seed, "pairs")
    found = []
    # the rare distances first: there are few very near and very far pairs
    for target in sorted(
        wanted, key=lambda value: abs(int(np.searchsorted(lengths, value)) - len(lengths) / 2)
    )[::-1]:
        usable = np.flatnonzero(free[ones] & free[others])
        best = usable[int(np.abs(lengths[usable] - target).argmin())]
        pair = (int(ones[best]), int(others[best]))
        free[list(pair)] = False
        one, two = pair if random.integers(2) else pair[::-1]
        found.append(CaptionPair(captions[one], captions[two], float(lengths[best])))
    return sorted(found, key=lambda each: (each.distance, each.own))


def measure_damage(
    pipe: Pipeline,
    plan: DenoisingPlan,
    pairs: Sequence[CaptionPair],
    handoffs: Sequence[int],
    seed: int,
    progress: Callable[[int], None] | None = None,
) -> dict[int, list[float]]:
    """Return the damage of each pair at each hand-off.

    Each pair has its own noise. The shared part of a pair is run once, up to the last hand-off.

    Args:
        pipe: The pipeline.
        plan: The plan.
        pairs: The pairs.
        handoffs: The hand-offs K.
        seed: Seed of the noises.
        progress: Called with the number of pairs that are done.

    Raises:
        UserError: If a run cannot be handed off at one of the steps, or a result is not finite.
    """
    for k in handoffs:
        check_handoff(plan, k, "exact")
    found: dict[int, list[float]] = {k: [] for k in sorted(handoffs)}
    for start in range(0, len(pairs), _BATCH):
        chunk = pairs[start : start + _BATCH]
        own, other = {"prompt": [pair.own for pair in chunk]}, {"prompt": [pair.other for pair in chunk]}
        begun = [
            initial_state(pipe, plan, derived_seed(seed, "calibration", start + i)) for i in range(len(chunk))
        ]
        state = replace(begun[0], latents=torch.cat([one.latents for one in begun]))
        alone = run_segment(pipe, state, own, plan, plan.num_steps).latents.float().flatten(1)
        for k in found:
            state = run_segment(pipe, state, other, plan, k)
            final = run_segment(pipe, state, own, plan, plan.num_steps).latents.float().flatten(1)
            damage = (final - alone).norm(dim=1) / alone.norm(dim=1)
            if not bool(damage.isfinite().all()):
                raise UserError("the model's latents are not finite: use another dtype, or another model")
            found[k] += [round(float(value), 6) for value in damage]
        if progress is not None:
            progress(start + len(chunk))
    return found


def default_handoffs(num_steps: int) -> tuple[int, ...]:
    """Return up to five hand-offs, evenly spaced strictly inside of N steps."""
    return tuple(sorted({k for i in range(1, 6) if 0 < (k := round(num_steps * i / 6)) < num_steps}))
