"""Infer which of the 720 Scenes prompts a packet was made from: a member's attack on the executor's own prompt.

The packet comes from a group whose shared steps ran on one member's own prompt (policy `open`, or a helper that used
its own prompt), K of 11 steps with guidance 5 on the embedded model. The member knows plan, weights and the 720
candidates, and uses everything that it received:

    seed      the noise seed in the packet's header: run every candidate from the known noise
    history   an exact hand-off of a multistep scheduler: solve its last step, which is affine in the sample,
              for the sample before it, and compare the model output in the history with every candidate's
    latents   otherwise: compute the initial noise that each candidate requires, and take the candidate whose
              noise is the most likely normal sample (the smallest norm)

`seed search` is the first attack for a short seed that is not sent. PyTorch's CPU generator uses only 32 bits of a
seed, so a search can find the noise if the latents are still close to it.

    python -m experiments.privacy.packet_prompt --output experiments/records/privacy/packet_prompt.json

Also runs against an older fedaigc: `PYTHONPATH=OLD python experiments/privacy/packet_prompt.py`.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import fedaigc
from fedaigc.data.scenes import Scene, combinations
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.diffusion.encoding import encode_text, predict
from fedaigc.diffusion.handoff.packing import Handoff, unpack
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.segment import DenoisingState, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.diffusion.schedule.stock_schedule import named_scheduler
from fedaigc.metrics.intervals import proportion
from fedaigc.rng import derived_seed, numpy_rng

STEPS, GUIDANCE, SIZE = 11, 5.0, 64
BATCH = 60
# candidates that remain after the first, coarse search, and iterations of the correction of their noise
KEPT, CORRECTIONS = 24, 3
SEARCHED = 1 << 20
# number of different noises, used by packets in turn
NOISES = 4
VALUES = 64


class Attacker:
    """The knowledge of a member: pipeline, plan, candidates and their embeddings."""

    def __init__(self, pipe: Pipeline, plan: DenoisingPlan, prompts: Sequence[str]) -> None:
        self.pipe, self.plan, self.prompts = pipe, plan, prompts
        parts = [
            encode_text(pipe, prompts[i : i + BATCH])["prompt_embeds"] for i in range(0, len(prompts), BATCH)
        ]
        self.embeds = torch.cat(parts)
        self.empty = encode_text(pipe, [""])["prompt_embeds"]
        self._at_noise: dict[int, Tensor] = {}

    def outputs_at_noise(self, noise: Tensor, name: int) -> Tensor:
        """Return `outputs` at the initial noise, computed once for the packets that started from it."""
        if name not in self._at_noise:
            self._at_noise[name] = self.outputs(noise, 0)
        return self._at_noise[name]

    @torch.no_grad()
    def outputs(self, latents: Tensor, step: int) -> Tensor:
        """Return the guided model outputs of all candidates at the same latents [1, c, h, w]."""
        time_ = torch.full((1,), self.plan.timesteps[step])
        empty = predict(self.pipe, latents, time_, {"prompt_embeds": self.empty})
        found = []
        for start in range(0, len(self.prompts), BATCH):
            embeds = self.embeds[start : start + BATCH]
            given = latents.expand(len(embeds), -1, -1, -1)
            found.append(predict(self.pipe, given, time_.expand(len(embeds)), {"prompt_embeds": embeds}))
        guided: Tensor = empty + GUIDANCE * (torch.cat(found) - empty)
        return guided

    def run(self, noise: Tensor, rows: Sequence[int], stop: int) -> Tensor:
        """Run steps [0, stop) of the candidates `rows` from their noise [rows, c, h, w]."""
        found = []
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            state = DenoisingState(0, noise[start : start + BATCH], {}, 0, 1, self.plan.fingerprint())
            given = {"prompt": [self.prompts[row] for row in part]}
            found.append(run_segment(self.pipe, state, given, self.plan, stop).latents)
        return torch.cat(found)

    def by_seed(self, state: DenoisingState, seed: int) -> int:
        """Return the candidate whose run from the noise of the seed ends nearest to the latents."""
        noise = initial_state(self.pipe, self.plan, seed).latents
        gain, share = linear(self.plan, state.step)
        outputs = self.outputs_at_noise(noise, seed)
        coarse = (gain * noise + share * outputs - state.latents).flatten(1).norm(dim=1)
        rows = coarse.argsort()[:KEPT].tolist()
        if state.step > 1:
            # outputs change between the steps, so keep also candidates that fit at the last step
            outputs = self.outputs(state.latents, state.step)
            coarse = (gain * noise + share * outputs - state.latents).flatten(1).norm(dim=1)
            rows = sorted({*rows, *coarse.argsort()[:KEPT].tolist()})
        ends = self.run(noise.expand(len(rows), -1, -1, -1), rows, state.step)
        return rows[int((ends - state.latents).flatten(1).norm(dim=1).argmin())]

    def by_history(self, state: DenoisingState, group: int) -> int:
        """Return the candidate whose model output equals that of the history, at the sample before the last step.

        `group` identifies packets that started from the same noise.
        """
        scheduler, step = scheduler_of(self.plan), state.step - 1
        assert state.history is not None
        history = dict(state.history)
        history["_step_index"] = step
        for name, value in history.items():
            setattr(scheduler, name, value)
        kept = history["model_outputs"]

        def last(sample: Tensor) -> Any:
            if step == 0:
                return scheduler.dpm_solver_first_order_update(kept[-1], sample=sample)
            return scheduler.multistep_dpm_solver_second_order_update(kept, sample=sample)

        zero, one = last(torch.zeros_like(state.latents)), last(torch.ones_like(state.latents))
        before = (state.latents - zero) / (one - zero)
        outputs = self.outputs(before, step) if step else self.outputs_at_noise(before, group)
        converted = scheduler.convert_model_output(outputs, sample=before.expand_as(outputs))
        return int((converted - kept[-1]).flatten(1).norm(dim=1).argmin())

    def by_latents(self, state: DenoisingState) -> int:
        """Return the candidate that needs the most likely noise."""
        gain, share = linear(self.plan, state.step)
        outputs = self.outputs(state.latents, state.step)
        noise = (state.latents - share * outputs) / gain
        rows = noise.flatten(1).norm(dim=1).argsort()[:KEPT].tolist()
        noise = noise[rows]
        for _ in range(CORRECTIONS):
            noise = noise + (state.latents - self.run(noise, rows, state.step)) / gain
        return rows[int(noise.flatten(1).norm(dim=1).argmin())]


def scheduler_of(plan: DenoisingPlan) -> Any:
    """Return the plan's scheduler with its timesteps set."""
    scheduler: Any = named_scheduler(plan.scheduler_class).from_config(json.loads(plan.scheduler_config))
    scheduler.set_timesteps(plan.num_inference_steps)
    return scheduler


def linear(plan: DenoisingPlan, stop: int) -> tuple[float, float]:
    """Return A and B of

        x_K = A x_0 + B v

    for a constant model output v: DDIM's steps are affine.
    """
    ends = []
    for sample, output in ((1.0, 0.0), (0.0, 1.0)):
        scheduler, value = scheduler_of(plan), torch.tensor([[[[sample]]]])
        for timestep in scheduler.timesteps[:stop]:
            value = scheduler.step(torch.tensor([[[[output]]]]), timestep, value, return_dict=False)[0]
        ends.append(float(value))
    gain, share = ends
    return gain, share


def first_normals(seeds: np.ndarray, count: int) -> np.ndarray:
    """Return the first `count` values of torch.randn for many seeds at once, [seeds, count].

    As in PyTorch, the generator is a Mersenne twister with the low 32 bits as its seed, and Box-Muller on blocks of 16.
    """
    words = np.empty((count + 398, len(seeds)), np.uint32)
    words[0] = (np.asarray(seeds, np.uint64) & 0xFFFFFFFF).astype(np.uint32)
    for j in range(1, len(words)):
        words[j] = np.uint32(1812433253) * (words[j - 1] ^ (words[j - 1] >> 30)) + np.uint32(j)
    mixed = (words[:count] & np.uint32(0x80000000)) | (words[1 : count + 1] & np.uint32(0x7FFFFFFF))
    y = words[397 : 397 + count] ^ (mixed >> 1) ^ ((mixed & 1) * np.uint32(0x9908B0DF))
    y ^= y >> 11
    y ^= (y << 7) & np.uint32(0x9D2C5680)
    y ^= (y << 15) & np.uint32(0xEFC60000)
    y ^= y >> 18
    uniform = ((y & np.uint32((1 << 24) - 1)) * np.float32(2**-24)).reshape(count // 16, 2, 8, -1)
    radius = np.sqrt(-2 * np.log1p(-uniform[:, 0]))
    angle = np.float32(2 * np.pi) * uniform[:, 1]
    pair = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return pair.reshape(count, -1).T


def seed_search(latents: Tensor, seed: int, generator: np.random.Generator) -> tuple[bool, float, float]:
    """Return whether the true seed among `SEARCHED` fits the latents best, its fit, and seconds per seed."""
    wanted = latents.flatten()[:VALUES].numpy()
    seeds = np.append(generator.integers(2**32, size=SEARCHED - 1, dtype=np.uint64), seed & 0xFFFFFFFF)
    best, where, began = -np.inf, -1, time.process_time()
    for start in range(0, len(seeds), 1 << 14):
        values = first_normals(seeds[start : start + (1 << 14)], VALUES)
        fits = values @ wanted / np.linalg.norm(values, axis=1)
        if fits.max() > best:
            best, where = float(fits.max()), int(seeds[start + int(fits.argmax())])
    fit = best / float(np.linalg.norm(wanted))
    return where == seed & 0xFFFFFFFF, fit, (time.process_time() - began) / len(seeds)


def told(packet: bytes) -> dict[str, Any]:
    """Return every header entry of a packet that is not part of the state itself."""
    length = int.from_bytes(packet[6:10], "little")
    header: dict[str, Any] = json.loads(packet[42 : 42 + length])
    return header


def rate(hits: Sequence[bool]) -> dict[str, float]:
    """Return the share with Wilson's 95 % interval."""
    found = proportion(hits)
    return {"hits": sum(hits), "trials": found.n, "rate": found.mean, "low": found.low, "high": found.high}


def save(record: dict[str, Any], path: Path) -> None:
    """Write the record, including that of an unfinished run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--schedulers", nargs="+", choices=["DDIM", "DPM++2M"], default=["DDIM", "DPM++2M"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe: Pipeline = load_pipeline()
    prompts = [Scene(*triple, style="noto").caption for triple in combinations(include_held_out=True)]
    chosen = numpy_rng(options.seed, "packet prompts").choice(len(prompts), options.trials, replace=False)
    base, stock = base_fingerprint(pipe), pipe.scheduler
    cases: list[tuple[str, int, Handoff]] = [
        ("DDIM", 1, "exact"),
        ("DDIM", 3, "exact"),
        ("DPM++2M", 1, "exact"),
        ("DPM++2M", 3, "exact"),
    ]
    code = Path(fedaigc.__file__).parents[1]
    commit = subprocess.run(
        ["git", "-C", str(code), "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    rows: list[dict[str, Any]] = []
    record = {
        "what": "the prompt of a packet among the Scenes prompts, by a member that received it",
        "commit": commit,
        "candidates": len(prompts),
        "chance": 1 / len(prompts),
        "steps": STEPS,
        "guidance_scale": GUIDANCE,
        "seed": options.seed,
        "cases": rows,
    }
    for scheduler, k, handoff in (case for case in cases if case[0] in options.schedulers):
        pipe.scheduler = stock
        if scheduler != "DDIM":
            import diffusers

            pipe.scheduler = diffusers.DPMSolverMultistepScheduler.from_config(stock.config)
        plan = build_plan(
            pipe,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=SIZE,
            width=SIZE,
            base_hash=base,
        )
        attacker = Attacker(pipe, plan, prompts)
        hits: list[bool] = []
        found: list[bool] = []
        fits: list[float] = []
        costs: list[float] = []
        used: set[str] = set()
        for number, row in enumerate(int(row) for row in chosen):
            seed = derived_seed(options.seed, "noise", number % NOISES)
            packet = run_shared_steps(pipe, prompts[row], plan, k, noise_seed=seed, handoff=handoff).packet
            state, header = unpack(packet, plan), told(packet)
            if "noise_seed" in header:
                used.add("seed")
                guess = attacker.by_seed(state, header["noise_seed"])
            elif any(name == "model_outputs" for name in header["history"]):
                used.add("history")
                guess = attacker.by_history(state, seed)
            else:
                used.add("latents")
                guess = attacker.by_latents(state)
            hits.append(guess == row)
            if scheduler == "DDIM" and number < NOISES:
                right, fit, cost = seed_search(state.latents, seed, numpy_rng(number, "seeds"))
                found.append(right)
                fits.append(fit)
                costs.append(cost)
            print(
                f"{scheduler} K={k} {handoff} {number + 1}/{len(chosen)}: {sum(hits)} right", file=sys.stderr
            )
            partly = {"scheduler": scheduler, "K": k, "identified": rate(hits)}
            save(record | {"cases": [*rows, partly]}, options.output)
        (how,) = used
        case: dict[str, Any] = {
            "scheduler": scheduler,
            "K": k,
            "handoff": handoff,
            "attack": how,
            "identified": rate(hits),
        }
        if found:
            case["seed search"] = {
                "found": rate(found),
                "chance": 1 / SEARCHED,
                "seeds searched a trial": SEARCHED,
                "smallest correlation of the right seed": min(fits),
                "core hours for all 32 bits": float(np.mean(costs)) * 2**32 / 3600,
            }
        rows.append(case)
        save(record, options.output)
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
