"""Call an unmodified diffusers pipeline with a plan's arguments and a scheduler of our own.

All text-to-image pipelines of diffusers take their steps from `scheduler.timesteps` and share the names of
the arguments used here; what differs (several prompts, pooled embeddings, time ids) passes through untouched.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn

from fedaigc.errors import UserError

# a diffusers text-to-image pipeline; their base class declares neither the call nor the components
Pipeline: TypeAlias = Any

# the plan or the state fixes these, on both machines
_FIXED = frozenset(
    [
        "num_inference_steps",
        "timesteps",
        "sigmas",
        "mu",
        "guidance_scale",
        "height",
        "width",
        "negative_prompt",
        "latents",
        "generator",
        "output_type",
        "return_dict",
    ]
)
# these count steps from the start of the call, which in a segment is not the start of the plan
_COUNTS_STEPS = frozenset(
    [
        "skip_guidance_layers",
        "denoising_start",
        "denoising_end",
        "callback",
        "callback_steps",
        "callback_on_step_end",
        "callback_on_step_end_tensor_inputs",
    ]
)


def denoiser(pipe: Pipeline) -> nn.Module:
    """The network that runs once a step: the `unet` or the `transformer`.

    Raises UserError when there is neither.
    """
    for name in ("unet", "transformer"):
        network = getattr(pipe, name, None)
        if isinstance(network, nn.Module):
            return network
    raise UserError(
        f"{type(pipe).__name__} has neither a unet nor a transformer: give a text-to-image pipeline"
    )


def dtype_name(pipe: Pipeline) -> str:
    """The dtype that the denoiser computes in, e.g. "float32"."""
    return str(next(denoiser(pipe).parameters()).dtype).removeprefix("torch.")


def call_arguments(
    pipe: Pipeline,
    conditioning: Mapping[str, Any],
    *,
    num_inference_steps: int,
    guidance_scale: float,
    negative_prompt: str,
    height: int,
    width: int,
) -> dict[str, Any]:
    """The arguments of one pipeline call: the plan's, then the conditioning's (prompt, or embeddings, ...).

    An empty negative prompt is left out, as a stock call without one does it (SDXL then uses zeros). Raises
    UserError for conditioning that the plan fixes, that counts steps, or that this pipeline does not take.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    fixed = sorted(_FIXED & conditioning.keys())
    if fixed:
        raise UserError(
            f"conditioning names {', '.join(fixed)}: the plan fixes these, build another plan instead"
        )
    counting = sorted(_COUNTS_STEPS & conditioning.keys())
    if counting:
        raise UserError(
            f"conditioning names {', '.join(counting)}: it counts steps, so a run cannot be split with it"
        )
    unknown = sorted(conditioning.keys() - known.keys())
    if unknown:
        raise UserError(
            f"{type(pipe).__name__} does not take {', '.join(unknown)}: expected some of {', '.join(known)}"
        )
    missing = sorted({"num_inference_steps", "latents", "generator", "output_type"} - known.keys())
    if missing:
        raise UserError(f"{type(pipe).__name__} takes no {', '.join(missing)}: it cannot be run in segments")
    arguments: dict[str, Any] = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "height": height,
        "width": width,
    }
    if negative_prompt and "negative_prompt_embeds" not in conditioning:
        prompt = conditioning.get("prompt")
        # a list of prompts wants a list of negative ones
        arguments["negative_prompt"] = (
            [negative_prompt] * len(prompt) if isinstance(prompt, list) else negative_prompt
        )
    return {name: value for name, value in arguments.items() if name in known} | dict(conditioning)


def batch_size(conditioning: Mapping[str, Any]) -> int:
    """How many images one call with this conditioning makes."""
    prompt = conditioning.get("prompt")
    if isinstance(prompt, list):
        count = len(prompt)
    elif prompt is not None:
        count = 1
    elif isinstance(conditioning.get("prompt_embeds"), torch.Tensor):
        count = conditioning["prompt_embeds"].shape[0]
    else:
        raise UserError(
            f"conditioning names {sorted(conditioning)}: expected prompt or prompt_embeds among them"
        )
    return count * int(conditioning.get("num_images_per_prompt", 1))


@contextmanager
def borrowed(pipe: Pipeline, scheduler: Any) -> Iterator[None]:
    """The pipeline with another scheduler and a silent progress bar, put back in the end.

    One segment of a pipeline at a time: pipelines keep the state of a call on themselves.
    """
    stock, bar = pipe.scheduler, getattr(pipe, "_progress_bar_config", {})
    pipe.scheduler = scheduler
    pipe.set_progress_bar_config(**{**bar, "disable": True})
    try:
        yield
    finally:
        pipe.scheduler = stock
        pipe.set_progress_bar_config(**bar)
