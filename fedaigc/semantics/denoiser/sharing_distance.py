r"""The sharing distance of two prompts: how differently the denoiser answers them at the first step.

For a prompt with conditioning c, public noises x_1, ..., x_m at the first step t_0 of a plan, and a public random
projection P,

    phi(c) = [P eps(x_1, t_0, c), ..., P eps(x_m, t_0, c)] / sqrt(m),    distance(c, c') = |phi(c) - phi(c')|

where eps is the denoiser's answer without guidance. At the noisiest step the best answer is, up to scale and shift, the
conditional mean E[x_0 | c]. The distance therefore compares what two prompts fix in common before any detail: layout
and palette. Guidance would change nothing but the scale: with classifier-free guidance of scale w the answers differ
by w times as much, since the unconditional answer to a public noise is the same for all prompts and cancels. For the
same reason the conditional minus the unconditional answer has the same distances.

P has entries +-1 / sqrt(d) [Ach03], drawn from a public seed, so that distances are kept up to a factor of about
1 +- sqrt(2 / d). Without projection the distance is exact.

References:
    [Ach03] Achlioptas, "Database-friendly random projections", JCSS 66 (4), 2003.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.diffusion.sampling.first_answer import first_answer
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.segment import initial_state
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError
from fedaigc.rng import derived_seed, numpy_rng

PUBLIC_SEED = 20_260_101
"""Seed of the public noises and of the projection, the same everywhere."""
_BATCH = 8
_CHUNK = 1 << 16


@dataclass(frozen=True)
class DenoiserSpace:
    """How phi is computed. Two machines compare their vectors only if all of it is equal.

    Attributes:
        plan: The plan whose first step is asked, without guidance.
        noises: Number of public noises m.
        dimensions: Numbers for each noise after the projection, d. 0: no projection.
    """

    plan: DenoisingPlan
    noises: int = 1
    dimensions: int = 64

    def __post_init__(self) -> None:
        if self.noises < 1 or self.dimensions < 0:
            raise UserError(
                f"{self.noises} noises and {self.dimensions} dimensions: expected at least 1, and at least 0"
            )

    @classmethod
    def of(cls, plan: DenoisingPlan, noises: int = 1, dimensions: int = 64) -> "DenoiserSpace":
        """Return the space of a plan: guidance, negative prompt and shared state of the plan do not matter to it."""
        return cls(replace(plan, guidance_scale=1.0, negative_prompt=""), noises, dimensions)

    @property
    def hash(self) -> str:
        """SHA-256, in hex, of everything that phi depends on besides the prompt."""
        plan = self.plan
        parts = {
            "base": plan.base_hash,
            "shared": plan.shared_hash,
            "scheduler": [plan.scheduler_class, plan.scheduler_config],
            "first": [plan.timesteps[0], plan.sigmas[0] if plan.sigmas is not None else None],
            "size": [plan.height, plan.width],
            "noises": self.noises,
            "dimensions": self.dimensions,
            "seed": PUBLIC_SEED,
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def phi(pipe: Pipeline, space: DenoiserSpace, prompts: Sequence[str]) -> Float[np.ndarray, "n d"]:
    """Return the vector of each prompt, in float32.

    Args:
        pipe: The pipeline.
        space: The space, built from a plan of this pipeline.
        prompts: The prompts.

    Raises:
        UserError: If an answer is not finite.
    """
    rows = []
    for start in range(0, len(prompts), _BATCH):
        chunk = list(prompts[start : start + _BATCH])
        parts = [
            projected(answers(pipe, space.plan, chunk, number), space.dimensions, number)
            for number in range(space.noises)
        ]
        rows.append(np.concatenate(parts, axis=1) / np.float32(np.sqrt(space.noises)))
    if not rows:
        raise UserError("no prompts: expected at least one")
    return _finite(np.concatenate(rows))


def phi_of(
    pipe: Pipeline, space: DenoiserSpace, conditioning: Mapping[str, Tensor]
) -> Float[np.ndarray, "n d"]:
    """Return the vector of each row of a conditioning, as `phi` does of prompts.

    Args:
        pipe: The pipeline.
        space: The space, built from a plan of this pipeline.
        conditioning: Embeddings in place of the prompts, as of `diffusion.conditioning.placed`.

    Raises:
        UserError: As `phi`.
    """
    (rows, *_) = {len(tensor) for tensor in conditioning.values()}
    parts = [
        projected(answers_of(pipe, space.plan, dict(conditioning), rows, number), space.dimensions, number)
        for number in range(space.noises)
    ]
    return _finite(np.concatenate(parts, axis=1) / np.float32(np.sqrt(space.noises)))


def distance(one: Float[np.ndarray, " d"], other: Float[np.ndarray, " d"]) -> float:
    """Return the sharing distance of two vectors of one space."""
    return float(np.linalg.norm(one - other))


def answers(
    pipe: Pipeline, plan: DenoisingPlan, prompts: Sequence[str], number: int
) -> Float[Tensor, "n values"]:
    """Return the denoiser's flattened first answers to prompts and public noise `number`."""
    return answers_of(pipe, plan, {"prompt": list(prompts)}, len(prompts), number)


def answers_of(
    pipe: Pipeline, plan: DenoisingPlan, conditioning: Mapping[str, Any], rows: int, number: int
) -> Float[Tensor, "n values"]:
    """Return the flattened first answers to a conditioning of `rows` prompts and public noise `number`."""
    begun = initial_state(pipe, plan, derived_seed(PUBLIC_SEED, "noise", number) % 2**32)
    state = replace(begun, latents=begun.latents.repeat_interleave(rows, 0))
    return first_answer(pipe, state, conditioning, plan).flatten(1)


def projected(values: Float[Tensor, "n values"], dimensions: int, number: int) -> Float[np.ndarray, "n d"]:
    """Return P times each row; P is drawn in blocks of columns, so that it is never held as a whole.

    Args:
        values: The rows.
        dimensions: d; 0 returns the rows themselves.
        number: Number of the public noise: each has its own P.
    """
    if not dimensions:
        return values.numpy()
    total = np.zeros((len(values), dimensions))
    for block, part in enumerate(torch.split(values, _CHUNK, dim=1)):
        random = numpy_rng(PUBLIC_SEED, "projection", dimensions, number, block)
        signs = random.integers(0, 2, (part.shape[1], dimensions), dtype=np.int8) * 2.0 - 1.0
        total += part.double().numpy() @ signs
    return (total / np.sqrt(dimensions)).astype(np.float32)


def _finite(vectors: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    if not np.isfinite(vectors).all():
        raise UserError("the denoiser's first answer is not finite: use another dtype, or another model")
    return vectors
