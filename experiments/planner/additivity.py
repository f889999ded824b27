"""Whether damages and risks of successive shared steps add up, as planners and devices assume of a tree; prints JSON.

    python -m experiments.planner.additivity --record experiments/records/planner/additivity.json

Each trial has three public captions: its own, a near one, and a far one, as leaf and inner nodes of a tree have. Four
pictures from one noise are compared with the one drawn alone: the first K1 steps on the far caption; K1 on the near;
K2 on the near one; and the *way*, K1 on the far one and then up to K2 on the near one. The rule says

    damage of the way = damage(far, K1) + damage(near, K2) - damage(near, K1)

and the same of the shares of pictures beyond a tolerance. Intervals are bootstraps over trials.
"""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from experiments.planner.output import write
from fedaigc import assets
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.segment import DenoisingState, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.rng import derived_seed, numpy_rng
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import TOLERANCE
from fedaigc.semantics.denoiser.shipped import ATLAS

BATCH = 4
# ranks by distance from which the near and the far caption are drawn
NEAR, FAR = (1, 11), (20, 400)
RESAMPLES = 2000
PARTS = ("far K1", "near K1", "near K2", "way")


def trials(atlas: Atlas, count: int, seed: int) -> Int[np.ndarray, "count 3"]:
    """Return the captions of each trial: its own, a near one, and one that is farther."""
    random = numpy_rng(seed, "additivity")
    found = []
    for own in random.permutation(len(atlas.captions))[:count]:
        away = np.linalg.norm(atlas.vectors - atlas.vectors[own], axis=1)
        order = np.argsort(away, kind="stable")
        found.append((own, order[random.integers(*NEAR)], order[random.integers(*FAR)]))
    return np.array(found)


def damages(
    pipe: Pipeline,
    plan: DenoisingPlan,
    captions: list[tuple[str, str, str]],
    steps: tuple[int, int],
    seeds: list[int],
) -> Float[np.ndarray, "trials parts"]:
    """Return the damages of some trials, in the order of `PARTS`."""
    own, near, far = ({"prompt": [each[part] for each in captions]} for part in range(3))
    begun = [initial_state(pipe, plan, seed) for seed in seeds]
    start = replace(begun[0], latents=torch.cat([each.latents for each in begun]))

    def final(state: DenoisingState) -> torch.Tensor:
        return run_segment(pipe, state, own, plan, plan.num_steps).latents.float().flatten(1)

    first, second = steps
    on_far = run_segment(pipe, start, far, plan, first)
    on_near = run_segment(pipe, start, near, plan, first)
    alone = final(start)
    pictures = (
        final(on_far),
        final(on_near),
        final(run_segment(pipe, on_near, near, plan, second)),
        final(run_segment(pipe, on_far, near, plan, second)),
    )
    return np.array([((each - alone).norm(dim=1) / alone.norm(dim=1)).tolist() for each in pictures]).T


def interval(values: Float[np.ndarray, " trials"], seed: int) -> dict[str, float]:
    """Return a mean with its 95 % interval."""
    random = numpy_rng(seed, "bootstrap")
    means = values[random.integers(len(values), size=(RESAMPLES, len(values)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(values.mean()), "low": float(low), "high": float(high)}


def summary(found: Float[np.ndarray, "trials parts"], tolerance: float, seed: int) -> dict[str, Any]:
    """Return by how much the way differs from the sum of its parts: in damage, and in the share beyond a tolerance."""
    far, near_1, near_2, way = found.T
    predicted = far + near_2 - near_1
    beyond = (found > tolerance).astype(float)
    risk = beyond[:, 0] + beyond[:, 2] - beyond[:, 1]
    return {
        "damage": {part: interval(found[:, i], seed) for i, part in enumerate(PARTS)},
        "damage, sum": interval(predicted, seed),
        "damage, way minus sum": interval(way - predicted, seed),
        "beyond": {part: interval(beyond[:, i], seed) for i, part in enumerate(PARTS)},
        "beyond, sum": interval(risk, seed),
        "beyond, way minus sum": interval(beyond[:, 3] - risk, seed),
        "correlation": float(np.corrcoef(predicted, way)[0, 1]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--trials", type=int, default=160)
    parser.add_argument("--steps", type=int, nargs=2, default=(2, 5), help="K1 and K2")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    atlas = Atlas.read(assets.path(ATLAS))
    pipe: Pipeline = load_pipeline()
    plan = build_plan(
        pipe,
        num_inference_steps=11,
        guidance_scale=5.0,
        height=64,
        width=64,
        base_hash=base_fingerprint(pipe),
    )
    chosen = trials(atlas, options.trials, options.seed)
    parts = []
    for begin in range(0, len(chosen), BATCH):
        rows = chosen[begin : begin + BATCH].tolist()
        captions = [(atlas.captions[a], atlas.captions[b], atlas.captions[c]) for a, b, c in rows]
        seeds = [derived_seed(options.seed, "additivity", begin + i) for i in range(len(rows))]
        parts.append(damages(pipe, plan, captions, tuple(options.steps), seeds))
    found = np.concatenate(parts)
    away = np.linalg.norm(atlas.vectors[chosen[:, :1]] - atlas.vectors[chosen[:, 1:]], axis=2)
    write(
        {
            "what": "damage of two successive nodes against the sum of what each adds",
            "trials": len(found),
            "K1": options.steps[0],
            "K2": options.steps[1],
            "tolerance": TOLERANCE,
            "seed": options.seed,
            "near": {"median": float(np.median(away[:, 0]))},
            "far": {"median": float(np.median(away[:, 1]))},
            **summary(found, TOLERANCE, options.seed),
            "rows": [
                {"near": round(float(near), 4), "far": round(float(far), 4)}
                | {part: round(float(value), 6) for part, value in zip(PARTS, row, strict=True)}
                for (near, far), row in zip(away, found, strict=True)
            ],
        },
        options.record,
    )


if __name__ == "__main__":
    main()
