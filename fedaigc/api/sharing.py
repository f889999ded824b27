"""Which prompts can share their first steps with a model, and how many: distance, atlas, calibration."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.semantics.denoiser import atlas_build
from fedaigc.semantics.denoiser import calibrate as measuring
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, distance, phi


def sharing_distance(
    pipe: Pipeline, plan: DenoisingPlan, one: str, other: str, *, noises: int = 1, dimensions: int = 0
) -> float:
    """Return how differently the denoiser answers two prompts at the first step: what they fix before any detail.

    Example:
        >>> import fedaigc as fa
        >>> pipe = fa.load_pipeline()
        >>> plan = fa.plan(pipe, num_inference_steps=11)
        >>> dog = "a dog on a beach"
        >>> near, far = (fa.sharing_distance(pipe, plan, dog, other) for other in ("a cat on a beach", "a cup"))
        >>> near < far
        True

    Args:
        pipe: The pipeline, without adapters.
        plan: A plan of the pipeline; its first timestep is asked, without guidance.
        one: A prompt.
        other: Another prompt.
        noises: Public noises that the prompts are asked with.
        dimensions: Numbers that each answer is projected to; 0: no projection.

    Raises:
        UserError: If an answer is not finite, or the plan is another pipeline's.
    """
    first, second = phi(pipe, DenoiserSpace.of(plan, noises, dimensions), [one, other])
    return distance(first, second)


def sharing_vectors(
    pipe: Pipeline, plan: DenoisingPlan, prompts: Sequence[str], *, noises: int = 1, dimensions: int = 64
) -> np.ndarray:
    """Return a vector of each prompt, `[n, d]` in float32: their distances are the sharing distances.

    Example:
        >>> import fedaigc as fa
        >>> pipe = fa.load_pipeline()
        >>> fa.sharing_vectors(pipe, fa.plan(pipe), ["a dog on a beach", "a cup"]).shape
        (2, 64)

    Args:
        pipe: The pipeline, without adapters.
        plan: A plan of the pipeline; its first timestep is asked, without guidance.
        prompts: The prompts.
        noises: Public noises that each prompt is asked with.
        dimensions: Numbers that each answer is projected to; 0: no projection. Noises and dimensions are those of the
            calibration with which the vectors are used.

    Raises:
        UserError: If there is no prompt, an answer is not finite, or the plan is another pipeline's.
    """
    return phi(pipe, DenoiserSpace.of(plan, noises, dimensions), prompts)


def build_atlas(
    pipe: Pipeline,
    plan: DenoisingPlan,
    captions: Sequence[str],
    *,
    min_captions: int = atlas_build.MIN_CAPTIONS,
    noises: int = 1,
    dimensions: int = 64,
    note: str = "",
) -> Atlas:
    """Build a public atlas of captions; `Atlas.write` keeps it for `generation.denoiser.atlas` of a run.

    Example:
        >>> import fedaigc as fa
        >>> pipe = fa.load_pipeline()
        >>> captions = [f"{one} on {place}" for one in ("a dog", "a cup") for place in ("a beach", "a table")]
        >>> atlas = fa.build_atlas(pipe, fa.plan(pipe), captions, min_captions=2)
        >>> len(atlas.captions), atlas.counts[0]
        (4, 4)

    Args:
        pipe: The pipeline, without adapters.
        plan: A plan of the pipeline.
        captions: Public captions.
        min_captions: Fewest captions of a node.
        noises: Public noises that each caption is asked with.
        dimensions: Numbers that each answer is projected to; 0: no projection.
        note: Source and licence of the captions, kept in the file.

    Raises:
        UserError: If there are fewer captions than a node needs.
    """
    about = {"model": str(getattr(pipe, "name_or_path", "") or "embedded"), "captions": "", "note": note}
    with tempfile.TemporaryDirectory() as folder:
        return atlas_build.build_atlas(
            pipe,
            DenoiserSpace.of(plan, noises, dimensions),
            captions,
            Path(folder) / "parts",
            about,
            min_captions,
        )


def calibrate(
    pipe: Pipeline,
    plan: DenoisingPlan,
    captions: Sequence[str],
    *,
    pairs: int = 60,
    handoffs: Sequence[int] = (),
    noises: int = 1,
    dimensions: int = 64,
    seed: int = 0,
) -> Calibration:
    """Measure what sharing costs: the damage to a picture by hand-off and distance, without labels.

    Example:
        >>> import fedaigc as fa
        >>> pipe = fa.load_pipeline()
        >>> captions = [f"{one} on {place}" for one in ("a dog", "a cup") for place in ("a beach", "a table")]
        >>> curve = fa.calibrate(pipe, fa.plan(pipe, num_inference_steps=4), captions, pairs=2, handoffs=[1, 2])
        >>> curve.handoffs
        (1, 2)
        >>> curve.last_handoff(0.0, tolerance=0.3)
        2

    Args:
        pipe: The pipeline, without adapters.
        plan: The plan of the pictures.
        captions: Public captions, at least twice as many as pairs.
        pairs: Pairs of captions, spread from the nearest to the farthest.
        handoffs: The hand-offs K; empty: up to five, evenly spaced.
        noises: Public noises that each caption is asked with.
        dimensions: Numbers that each answer is projected to; 0: no projection.
        seed: Seed of pairs and noises.

    Raises:
        UserError: If there are too few captions, or no hand-off.
    """
    space = DenoiserSpace.of(plan, noises, dimensions)
    return measuring.calibrate(pipe, plan, space, captions, pairs=pairs, handoffs=handoffs, seed=seed)
