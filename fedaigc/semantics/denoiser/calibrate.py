"""Calibrate a model: draw pairs of public captions, and fit what sharing costs."""

import hashlib
from collections.abc import Callable, Sequence

from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError
from fedaigc.rng import numpy_rng
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.damage import default_handoffs, measure_damage, spread_pairs
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, phi

# captions whose vectors are computed, for each pair that is drawn of them
_CAPTIONS_A_PAIR = 4


def calibrate(
    pipe: Pipeline,
    plan: DenoisingPlan,
    space: DenoiserSpace,
    captions: Sequence[str],
    *,
    pairs: int = 60,
    handoffs: Sequence[int] = (),
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Calibration:
    """Measure the damage of shared steps on pairs of captions, without labels.

    Args:
        pipe: The pipeline.
        plan: The plan of the pictures.
        space: The space of the distances.
        captions: The captions; empty and repeated ones do not count.
        pairs: Number of pairs, spread from the nearest to the farthest.
        handoffs: The hand-offs K; empty: up to five, evenly spaced.
        seed: Seed of pairs and noises.
        progress: Called with the number of pairs that are done.

    Raises:
        UserError: If there are too few captions, or no hand-off.
    """
    lines = sorted({caption.strip() for caption in captions} - {""})
    if pairs < 2 or len(lines) < 2 * pairs:
        raise UserError(
            f"{pairs} pairs need {2 * pairs} different captions, got {len(lines)}: give more captions, or fewer pairs "
            "(at least 2)"
        )
    chosen = sorted(numpy_rng(seed, "captions").permutation(len(lines))[: _CAPTIONS_A_PAIR * pairs])
    texts = [lines[row] for row in chosen]
    asked = sorted(set(handoffs)) or list(default_handoffs(plan.num_steps))
    if not asked:
        raise UserError(f"N = {plan.num_steps} has no hand-off inside: use more steps")
    drawn = spread_pairs(texts, phi(pipe, space, texts), pairs, seed)
    damages = measure_damage(pipe, plan, drawn, asked, seed, progress)
    return Calibration(
        space.hash,
        plan.fingerprint(),
        plan.scheduler_class,
        plan.num_steps,
        plan.guidance_scale,
        hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        seed,
        tuple(round(pair.distance, 6) for pair in drawn),
        {str(k): tuple(values) for k, values in damages.items()},
    )
