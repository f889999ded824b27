"""Collaborative generation against U solo runs of the stock pipeline, compared in one run; prints JSON.

    python benchmarks/collaborative.py

Let t1 and tU be the time of a denoising step at batch 1 and U, and f and fU the fixed cost of text and decoding, all
measured in the same run (two lengths of the stock pipeline give slope and intercept). The ideal ratios are

    sequential  (K t1 + U (N - K) t1 + U f) / (U (N t1 + f))
    batched     (K t1 + (N - K) tU + fU) / (N tU + fU)

The variants take turns, so that a slow minute of the machine affects all of them; medians are compared.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from rich.console import Console
from rich.progress import track

import fedaigc
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.diffusion.handoff.packing import unpack
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.segment import finish_segment
from fedaigc.diffusion.schedule.plan import build_plan

PROMPTS = [f"{thing} on a table" for thing in ("an apple", "a lemon", "a pear", "a strawberry")]
GROUP_PROMPT = "a fruit on a table"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--users", type=int, default=8, help="U")
    parser.add_argument("--steps", type=int, default=20, help="N")
    parser.add_argument("--shared-steps", type=int, default=10, help="K")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    users, steps, shared_steps = options.users, options.steps, options.shared_steps
    pipe: Pipeline = load_pipeline()
    prompts = [PROMPTS[i % len(PROMPTS)] for i in range(users)]
    plan = build_plan(
        pipe,
        num_inference_steps=steps,
        guidance_scale=5.0,
        height=64,
        width=64,
        base_hash=base_fingerprint(pipe),
    )

    def stock(batch: list[str], length: int) -> None:
        pipe(
            batch, num_inference_steps=length, guidance_scale=5.0, generator=torch.Generator().manual_seed(0)
        )

    def solo_one_by_one() -> None:
        for prompt in prompts:
            stock([prompt], steps)

    def packet() -> bytes:
        return run_shared_steps(pipe, GROUP_PROMPT, plan, shared_steps, noise_seed=0).packet

    def collaborative_one_by_one() -> None:
        received = packet()
        for prompt in prompts:
            finish_segment(pipe, unpack(received, plan, "strict"), {"prompt": prompt}, plan)

    def collaborative_batched() -> None:
        state = unpack(packet(), plan, "strict").repeated(users)
        finish_segment(pipe, state, {"prompt": prompts}, plan)

    variants: dict[str, Callable[[], None]] = {
        "solo, one by one": solo_one_by_one,
        "solo, batched": lambda: stock(prompts, steps),
        "collaborative, one by one": collaborative_one_by_one,
        "collaborative, batched": collaborative_batched,
        "one picture, N steps": lambda: stock(prompts[:1], steps),
        "one picture, N/4 steps": lambda: stock(prompts[:1], steps // 4),
        "batch, N/4 steps": lambda: stock(prompts, steps // 4),
    }
    for run in variants.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in track(range(options.repeats), description="measuring", console=Console(stderr=True)):
        for name, run in variants.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    span = steps - steps // 4
    t1 = (median["one picture, N steps"] - median["one picture, N/4 steps"]) / span
    tu = (median["solo, batched"] - median["batch, N/4 steps"]) / span
    f1 = median["one picture, N steps"] - steps * t1
    fu = median["solo, batched"] - steps * tu
    own = steps - shared_steps
    ideal = {
        "one by one": (shared_steps * t1 + users * own * t1 + users * f1) / (users * (steps * t1 + f1)),
        "batched": (shared_steps * t1 + own * tu + fu) / (steps * tu + fu),
    }
    measured = {
        key: median[f"collaborative, {key}"] / median[f"solo, {key}"] for key in ("one by one", "batched")
    }
    report = {
        "what": f"collaborative against solo: U = {users}, N = {steps}, K = {shared_steps}",
        "fedaigc": fedaigc.__version__,
        "torch": torch.__version__,
        "threads": options.threads,
        "repeats": options.repeats,
        "median seconds": {name: round(value, 4) for name, value in median.items()},
        "t1": t1,
        "tU": tu,
        "f1": f1,
        "fU": fu,
        "ratio": measured,
        "ideal": ideal,
        "over ideal": {key: measured[key] / ideal[key] - 1 for key in ideal},
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
