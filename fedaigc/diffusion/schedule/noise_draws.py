"""Determine whether a plan's sampler draws noise, so that continuing a run requires a noise stream."""

import inspect
import json
from functools import lru_cache
from typing import Any

import torch

from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.diffusion.schedule.stock_schedule import named_scheduler


@lru_cache(maxsize=32)
def draws_noise(plan: DenoisingPlan) -> bool:
    """Return whether a step of the plan's scheduler draws from the generator that it is given.

    The scheduler itself is tested: it takes all steps of the plan with small latents of zeros. If a scheduler
    cannot be run this way, the result is True.
    """
    try:
        stock: Any = named_scheduler(plan.scheduler_class)
        if "generator" not in inspect.signature(stock.step).parameters:
            return False
        scheduler = stock.from_config(json.loads(plan.scheduler_config))
        scheduler.set_timesteps(plan.num_inference_steps)
        generator = torch.Generator().manual_seed(0)
        before = generator.get_state()
        sample = torch.zeros(1, 4, 8, 8)
        for timestep in scheduler.timesteps:
            sample = scheduler.step(
                torch.zeros_like(sample), timestep, sample, generator=generator, return_dict=False
            )[0]
        return not torch.equal(before, generator.get_state())
    except Exception:  # a scheduler of another package, or one that needs other inputs
        return True
