"""Runs of a tiny pipeline: stock, and as one segment."""

from collections.abc import Mapping
from typing import Any

import torch

from fedaigc.diffusion.sampling.segment import (
    DenoisingState,
    initial_state,
    run_segment,
)
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from tests.diffusion.schedulers import scheduler_of
from tests.diffusion.tiny_pipelines import SIZE

PROMPT = {"prompt": "an apple on a table"}
OTHER = {"prompt": "a lemon near a bed"}
Conditioning = Mapping[str, Any]


def set_up(
    pipe: Any, family: str, scheduler: str, steps: int = 4, guidance_scale: float = 4.0, **options: Any
) -> DenoisingPlan:
    pipe.scheduler = scheduler_of(family, scheduler)
    return build_plan(
        pipe,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        height=SIZE,
        width=SIZE,
        base_hash="base",
        **options,
    )


def stock(
    pipe: Any, plan: DenoisingPlan, conditioning: Conditioning, seed: int, **options: Any
) -> torch.Tensor:
    return pipe(
        **conditioning,
        num_inference_steps=plan.num_inference_steps,
        guidance_scale=plan.guidance_scale,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **options,
    ).images


def whole(
    pipe: Any, plan: DenoisingPlan, conditioning: Conditioning, seed: int, batch: int = 1
) -> DenoisingState:
    return run_segment(pipe, initial_state(pipe, plan, seed, batch), conditioning, plan, plan.num_steps)
