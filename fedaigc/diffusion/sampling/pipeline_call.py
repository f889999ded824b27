"""Call an unmodified diffusers pipeline with a plan's arguments and a custom scheduler.

All text-to-image pipelines of diffusers take their steps from `scheduler.timesteps` and share the names of
the arguments used here. Arguments that differ (several prompts, pooled embeddings, time ids) are passed
through unchanged.
"""

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import nn

from fedaigc.errors import UserError

# a diffusers text-to-image pipeline. The base class declares neither the call nor the components
Pipeline: TypeAlias = Any

# the plan or the state fixes these on both machines
FIXED = frozenset(
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
# these divide the call, or follow what is done in it
_COUNTS_STEPS = frozenset(
    [
        "denoising_start",
        "denoising_end",
        "callback",
        "callback_steps",
        "callback_on_step_end",
        "callback_on_step_end_tensor_inputs",
    ]
)


def denoiser(pipe: Pipeline) -> nn.Module:
    """Return the network that runs once per step: the `unet`, the `transformer`, or the first one with a timestep.

    Raises:
        UserError: If the pipeline has none.
    """
    for name in ("unet", "transformer"):
        network = getattr(pipe, name, None)
        if isinstance(network, nn.Module):
            return network
    for network in timed_networks(pipe):
        return network
    raise UserError(
        f"{type(pipe).__name__} has no network that takes a timestep: give a text-to-image pipeline"
    )


def timed_networks(pipe: Pipeline) -> list[nn.Module]:
    """Return the components of a pipeline that take a timestep: its denoisers and their ControlNets."""
    found = []
    for component in getattr(pipe, "components", {}).values():
        if isinstance(component, nn.Module):
            inner: Any = getattr(component, "_orig_mod", component)
            names = inspect.signature(type(inner).forward).parameters
            if any(name == "t" or "timestep" in name for name in names):
                found.append(component)
    return found


def parts_of(network: nn.Module) -> Iterator[nn.Module]:
    """Yield a network and all modules in it, each once, in the order of its own `modules`, which is much slower."""
    seen: set[nn.Module] = set()
    left: list[nn.Module | None] = [network]
    while left:
        part = left.pop()
        if part is not None and part not in seen:
            seen.add(part)
            yield part
            left += reversed(part._modules.values())


def execution_device(pipe: Pipeline) -> torch.device:
    """Return the pipeline's `_execution_device`, without its search where no network has a hook."""
    networks = [part for part in getattr(pipe, "components", {}).values() if isinstance(part, nn.Module)]
    offloaded = any("_hf_hook" in vars(network) for network in networks) or any(
        "_diffusers_hook" in vars(part) for network in networks for part in parts_of(network)
    )
    # without networks, as a pipeline itself says
    return pipe._execution_device if offloaded or not networks else pipe.device


def dtype_name(pipe: Pipeline) -> str:
    """Return the dtype that the denoiser computes in, e.g. "float32"."""
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
    **further: Any,
) -> dict[str, Any]:
    """Return the arguments of one pipeline call: those of the plan, then the conditioning.

    An empty negative prompt is left out, like in a stock call without one (SDXL then uses zeros). A cache of keys and
    values that lasts from step to step is off, since no packet carries it.

    Args:
        pipe: The pipeline to be called.
        conditioning: The prompt or its embeddings, and other keyword arguments of the call.
        num_inference_steps: As in the plan.
        guidance_scale: As in the plan.
        negative_prompt: As in the plan. An empty one means none.
        height: As in the plan, in pixels.
        width: As in the plan, in pixels.
        **further: Further arguments of the plan.

    Raises:
        UserError: If the conditioning contains arguments that the plan fixes, that count steps, or that the
            pipeline does not take, or if the pipeline cannot be run in segments.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    fixed = sorted((FIXED | further.keys()) & conditioning.keys())
    if fixed:
        raise UserError(
            f"conditioning has {', '.join(fixed)}, which the plan fixes: build another plan instead"
        )
    counting = sorted(_COUNTS_STEPS & (conditioning.keys() | further.keys()))
    if counting:
        raise UserError(
            f"conditioning has {', '.join(counting)}, which counts steps or divides the call itself: a run cannot "
            "be split with it"
        )
    unknown = sorted((conditioning.keys() | further.keys()) - known.keys())
    if unknown:
        raise UserError(
            f"{type(pipe).__name__} does not take {', '.join(unknown)}: expected some of {', '.join(known)}"
        )
    missing = sorted({"num_inference_steps", "generator", "output_type"} - known.keys())
    if missing:
        raise UserError(f"{type(pipe).__name__} takes no {', '.join(missing)}: it cannot be run in segments")
    arguments: dict[str, Any] = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "height": height,
        "width": width,
        "use_kv_cache": False,
    }
    if negative_prompt and "negative_prompt_embeds" not in conditioning:
        prompt = conditioning.get("prompt")
        # pipelines require a list of negative prompts for a list of prompts
        arguments["negative_prompt"] = (
            [negative_prompt] * len(prompt) if isinstance(prompt, list) else negative_prompt
        )
    elif "negative_prompt_embeds" in conditioning:
        # some pipelines take "" by default, and refuse it beside embeddings
        arguments["negative_prompt"] = None
    return {name: value for name, value in arguments.items() if name in known} | further | dict(conditioning)


def check_negative(pipe: Pipeline, call: Mapping[str, Any], negative_prompt: str) -> None:
    """Refuse a negative prompt, or a scale of its guidance, that a call of the pipeline would ignore.

    Args:
        pipe: The pipeline, after a call of these arguments.
        call: The arguments.
        negative_prompt: The negative prompt of the plan, "" for none.

    Raises:
        UserError: If one of them would have no effect.
    """
    name = type(pipe).__name__
    known = inspect.signature(type(pipe).__call__).parameters
    if negative_prompt and "negative_prompt" not in known:
        raise UserError(f"{name} takes no negative prompt: leave it out")
    if "true_cfg_scale" not in known or "negative_prompt" not in known:
        if negative_prompt and getattr(pipe, "do_classifier_free_guidance", True) is False:
            raise UserError(
                f"{name} ignores a negative prompt at guidance_scale {call.get('guidance_scale', 1.0):g}: give a "
                "guidance_scale above 1, or leave the negative prompt out"
            )
        return
    has_negative = bool(negative_prompt) or call.get("negative_prompt_embeds") is not None
    if call.get("true_cfg_scale", 0) > 1 and not has_negative:
        raise UserError(
            f"{name} ignores true_cfg_scale without a negative prompt: give one; a blank stands for an empty one"
        )


def check_true_guidance(pipe: Pipeline, call: Mapping[str, Any], negative_prompt: str) -> None:
    """Refuse a negative prompt that a run would ignore because its scale of true guidance is at most 1.

    The scale may be an argument of the plan or of the conditioning, so a plan alone cannot tell.

    Args:
        pipe: The pipeline.
        call: The arguments of the plan and of the conditioning.
        negative_prompt: The negative prompt of the plan, "" for none.

    Raises:
        UserError: If it would have no effect.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    if not negative_prompt or "true_cfg_scale" not in known or "negative_prompt" not in known:
        return
    scale = call.get("true_cfg_scale", known["true_cfg_scale"].default)
    if not scale > 1:
        raise UserError(
            f"{type(pipe).__name__} ignores a negative prompt at true_cfg_scale {scale:g}: give a true_cfg_scale "
            "above 1"
        )


def batch_size(conditioning: Mapping[str, Any]) -> int:
    """Return the number of images that one call with this conditioning makes.

    Raises:
        UserError: If the conditioning has neither a prompt nor prompt embeddings.
    """
    prompt = conditioning.get("prompt")
    if isinstance(prompt, list):
        count = len(prompt)
    elif prompt is not None:
        count = 1
    else:
        # Z-Image takes a list of embeddings, Kandinsky 5 names them by their encoder
        embeddings = [
            value
            for name, value in conditioning.items()
            if name.startswith("prompt_embeds") and isinstance(value, torch.Tensor | list)
        ]
        if not embeddings:
            raise UserError(
                f"conditioning has {sorted(conditioning)}: expected prompt or prompt_embeds among them"
            )
        # HiDream has those of each layer of an encoder, of which there are more than images
        count = min(map(len, embeddings))
    return count * int(conditioning.get("num_images_per_prompt", 1))


@contextmanager
def borrowed(pipe: Pipeline, scheduler: Any) -> Iterator[None]:
    """Run a pipeline with another scheduler and a silent progress bar, and restore both on exit.

    Of a pipeline that calls others, those with the same scheduler get the other one as well. Contexts of one
    pipeline must not overlap, because pipelines keep the state of a call on themselves.
    """
    stock = pipe.scheduler
    parts = [part for part in vars(pipe).values() if hasattr(part, "set_progress_bar_config")]
    bars = [(each, getattr(each, "_progress_bar_config", {})) for each in (pipe, *parts)]
    users = [each for each in (pipe, *parts) if getattr(each, "scheduler", None) is stock]
    for each in users:
        each.scheduler = scheduler
    for each, bar in bars:
        each.set_progress_bar_config(**{**bar, "disable": True})
    try:
        yield
    finally:
        for each in users:
            each.scheduler = stock
        for each, bar in bars:
            each.set_progress_bar_config(**bar)
