"""Pictures of plans: each task's way through its tree, denoised step by step, steps in common only once.

A *way* is a noise and what each of the N steps runs on. Two ways that begin alike are one run until they part, so the
pictures of many plans of the same tasks cost little more than those of one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.diffusion.encoding import encode_text
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.segment import decode, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.metrics.judge import Judge, Verdict
from fedaigc.planning.plan import Plan
from fedaigc.planning.tasks import Tasks

STEPS, GUIDANCE, BATCH = 11, 5.0, 16

Mean = tuple[str, ...]
"""Prompts, ascending, whose embeddings have the conditioning as their mean."""


@dataclass(frozen=True)
class Way:
    """How a picture comes about.

    Attributes:
        noise: Seed of the initial noise.
        runs_on: What each step runs on.
    """

    noise: int
    runs_on: tuple[Mean, ...]


def mean_of(prompts: Iterable[str]) -> Mean:
    """Return the mean of prompts; that of equal ones is the prompt itself."""
    found = tuple(sorted(prompts))
    return found[:1] if len(set(found)) == 1 else found


def ways_of(plan: Plan, tasks: Tasks, prompts: Sequence[str], noises: Sequence[int], steps: int) -> list[Way]:
    """Return the way of each task of a plan.

    A node runs on the prompt of a task that lies exactly at its conditioning, or else on the mean of its members. All
    tasks of a tree start from the noise of its first member.

    Args:
        plan: The plan.
        tasks: Its tasks.
        prompts: Prompt of each task.
        noises: Own noise of each task.
        steps: N.
    """
    noise = list(noises)
    shared: list[list[Mean]] = [[] for _ in prompts]
    for node in plan.nodes:
        there = (tasks.vectors == node.conditioning).all(1).nonzero()[0]
        alike = {prompts[row] for row in there.tolist()}
        runs_on = mean_of(alike if len(alike) == 1 else (prompts[row] for row in node.members.tolist()))
        for row in node.members.tolist():
            shared[row] += [runs_on] * (node.stop - node.start)
            if node.parent is None:
                noise[row] = noises[int(node.members[0])]
    return [
        Way(noise[row], (*shared[row], *[(prompt,)] * (steps - len(shared[row]))))
        for row, prompt in enumerate(prompts)
    ]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Draws ways with the embedded model, and lets the judge look.

    Attributes:
        pipe: The model.
        plan: The denoising plan; its sampler has no memory, so steps are run one at a time.
        judge: The judge.
    """

    pipe: Any
    plan: DenoisingPlan
    judge: Judge

    @classmethod
    def open(cls) -> "Pictures":
        """Load the embedded model and the judge."""
        pipe: Any = load_pipeline()
        plan = build_plan(
            pipe,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=64,
            width=64,
            base_hash=base_fingerprint(pipe),
        )
        return cls(pipe, plan, Judge.load())

    def verdicts(self, ways: Iterable[Way]) -> dict[Way, Verdict]:
        """Return what the judge sees in the picture of each way."""
        latents = self.latents(ways)
        wanted, found = list(latents), []
        for start in range(0, len(wanted), BATCH):
            part = torch.cat([latents[way] for way in wanted[start : start + BATCH]])
            found += self.judge.score(decode(self.pipe, part, self.plan))
        return dict(zip(wanted, found, strict=True))

    def latents(self, ways: Iterable[Way]) -> dict[Way, Float[Tensor, "1 c h w"]]:
        """Return the final latents of each way, up to the rounding of batches."""
        wanted = sorted(set(ways), key=lambda way: (way.noise, way.runs_on))
        begun = initial_state(self.pipe, self.plan, 0)
        at = {
            Way(noise, ()): initial_state(self.pipe, self.plan, noise).latents
            for noise in {way.noise for way in wanted}
        }
        for step in range(self.plan.num_steps):
            following = list(dict.fromkeys(replace(w, runs_on=w.runs_on[: step + 1]) for w in wanted))
            moved: list[Tensor] = []
            for first in range(0, len(following), BATCH):
                part = following[first : first + BATCH]
                before = torch.cat([at[replace(way, runs_on=way.runs_on[:-1])] for way in part])
                embeds = torch.stack([self._embedding(way.runs_on[-1]) for way in part])
                state = replace(begun, latents=before, step=step)
                done = run_segment(self.pipe, state, {"prompt_embeds": embeds}, self.plan, step + 1)
                moved += done.latents.split(1)
            at = dict(zip(following, moved, strict=True))
        return at

    def _embedding(self, mean: Mean) -> Float[Tensor, "tokens d"]:
        return torch.stack([_encoded(self, prompt) for prompt in mean]).mean(0)


@lru_cache(maxsize=4096)
def _encoded(pictures: Pictures, prompt: str) -> Float[Tensor, "tokens d"]:
    embeds: Tensor = encode_text(pictures.pipe, [prompt])["prompt_embeds"][0]
    return embeds
