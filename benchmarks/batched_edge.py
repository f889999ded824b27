"""An edge server that runs the shared steps of U groups in one batch, against one after another; prints JSON.

    python benchmarks/batched_edge.py

Let t(1) and t(U) be the time of a denoising step at batch 1 and U, and f and f(U) the fixed time of a call, from
segments of two lengths in the same run. K steps of U groups ideally take

    one after another  U (f + K t(1))          in one batch  f(U) + K t(U)

The variants take turns, so that a slow minute affects all of them. Seconds are those of the processor, so that other
work on the machine counts less; medians over rounds are compared.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch

import fedaigc
from fedaigc.device.batched_steps import Tree, run_batched_steps
from fedaigc.device.replies import SharedSteps
from fedaigc.device.shared_steps import Line
from fedaigc.diffusion.handoff.packing import unpack
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan

THINGS = ("a fruit", "an animal", "a vehicle", "a plant", "a person", "food", "a bird", "a tool")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--groups", type=int, default=8, help="U")
    parser.add_argument("--steps", type=int, default=11, help="N")
    parser.add_argument("--shared-steps", type=int, default=6, help="K")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    groups, shared = options.groups, options.shared_steps
    pipe: Pipeline = load_pipeline()
    plan = build_plan(
        pipe,
        num_inference_steps=options.steps,
        guidance_scale=5.0,
        height=64,
        width=64,
        base_hash=base_fingerprint(pipe),
    )
    prompts = [f"{THINGS[n % len(THINGS)]} on a table" for n in range(groups)]
    trees = [Tree(n, (Line(prompt, 0, (shared,)),)) for n, prompt in enumerate(prompts)]

    def segment(batch: int, steps: int) -> Callable[[], object]:
        state = initial_state(pipe, plan, 0, batch)
        return lambda: run_segment(pipe, state, {"prompt": prompts[:batch]}, plan, steps)

    tasks: dict[str, Callable[[], object]] = {
        "short 1": segment(1, 1),
        "long 1": segment(1, shared),
        "short U": segment(groups, 1),
        "long U": segment(groups, shared),
        "one after another": lambda: run_batched_steps(pipe, trees, plan, 1),
        "in one batch": lambda: run_batched_steps(pipe, trees, plan, groups),
    }
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for task in tasks.values():
        task()
    for _ in range(options.repeats):
        for name, task in tasks.items():
            begun = time.process_time()
            task()
            seconds[name].append(time.process_time() - begun)
    median = {name: statistics.median(each) for name, each in seconds.items()}
    step, full = ((median[f"long {which}"] - median[f"short {which}"]) / (shared - 1) for which in ("1", "U"))
    fixed, fixed_full = median["short 1"] - step, median["short U"] - full
    ideal = groups * (fixed + shared * step), fixed_full + shared * full
    taken = median["one after another"], median["in one batch"]
    print(
        json.dumps(
            {
                "fedaigc": fedaigc.__version__,
                "groups": groups,
                "shared steps": shared,
                "repeats": options.repeats,
                "t(1)": round(step, 5),
                "t(U)": round(full, 5),
                "one after another": round(taken[0], 4),
                "in one batch": round(taken[1], 4),
                "faster": round(taken[0] / taken[1], 3),
                "faster, ideal": round(ideal[0] / ideal[1], 3),
                "one after another / ideal": round(taken[0] / ideal[0], 3),
                "in one batch / ideal": round(taken[1] / ideal[1], 3),
                "largest difference of latents": difference(pipe, trees, plan, groups),
            },
            indent=1,
        )
    )


def difference(pipe: Pipeline, trees: list[Tree], plan: DenoisingPlan, batch: int) -> float:
    """Return the largest difference of the handed-off latents of both ways."""
    found = []
    for size in (1, batch):
        replies = run_batched_steps(pipe, trees, plan, size)
        found.append([unpack(each.packet, plan).latents for each in replies if isinstance(each, SharedSteps)])
    return float(torch.tensor([(a - b).abs().max() for a, b in zip(*found, strict=True)]).max())


if __name__ == "__main__":
    main()
