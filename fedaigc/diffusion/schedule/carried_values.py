"""Determine whether a packet can carry what a scheduler keeps from step to step."""

import warnings
from typing import Any

import numpy as np
import torch


def uncarried_value(scheduler: Any) -> str | None:
    """Return the name of a value that a scheduler keeps and no packet can carry, or None if there is none.

    The scheduler takes a few steps with small latents of zeros. If it cannot be run this way, the result is
    None. A Brownian tree is carried if the config has its seed (`noise_sampler_seed`): the next machine builds
    it again from this seed, and it yields the same noise.

    Args:
        scheduler: The scheduler after `set_timesteps`. It must not be used afterwards.
    """
    sample = torch.zeros(1, 4, 8, 8)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # some schedulers warn of input that was not scaled
            warnings.simplefilter("ignore")
            for timestep in scheduler.timesteps[:3]:
                sample = scheduler.step(torch.zeros_like(sample), timestep, sample, return_dict=False)[0]
    except Exception:  # a scheduler of another package, or one that needs other inputs
        return None
    for name, value in vars(scheduler).items():
        if name != "_internal_dict" and not (_is_carried(value) or is_built_again(scheduler, name)):
            return name
    return None


def is_built_again(scheduler: Any, name: str) -> bool:
    """Return whether a value of a scheduler follows from its config, so that the next step builds it again."""
    return name == "noise_sampler" and getattr(scheduler, "noise_sampler_seed", None) is not None


def _is_carried(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(_is_carried(item) for item in value)
    if isinstance(value, dict | np.ndarray | torch.device | torch.dtype):
        return True  # tables and settings, which steps do not change
    return isinstance(value, bool | int | float | str | np.generic | torch.Tensor | None)
