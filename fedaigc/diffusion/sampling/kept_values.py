"""Find what a pipeline keeps from one step to the next outside of its latents and its scheduler.

A segment in another process would miss it. Caches across steps and guidance with a momentum keep such values.
"""

from typing import Any

from torch import Tensor, nn

from fedaigc.diffusion.sampling.pipeline_call import Pipeline, parts_of, timed_networks

_MAX_DEPTH = 4


def kept_between_steps(pipe: Pipeline) -> str | None:
    """Return which network or guidance reuses values of earlier steps, or None if none does."""
    for name, component in getattr(pipe, "components", {}).items():
        if _computes(component) and getattr(component, "_enabled", True) and _has_momentum(component):
            return f"its {name} ({type(component).__name__}) has a momentum, which keeps values from step to step"
    for network in timed_networks(pipe):
        for part in parts_of(network):
            for name, hook in getattr(vars(part).get("_diffusers_hook"), "hooks", {}).items():
                if getattr(hook, "_is_stateful", False):
                    return (
                        f"{type(network).__name__} reuses values of earlier steps ({name}): disable its cache"
                    )
    return None


def kept_values(pipe: Pipeline) -> str | None:
    """Return which component besides networks and scheduler holds tensors of the steps, or None if none does.

    Call it after a run: such a component (guidance with a momentum) is empty before.
    """
    for name, component in getattr(pipe, "components", {}).items():
        if name == "scheduler" or not _computes(component):
            continue
        if _holds_tensor(component, _MAX_DEPTH):
            return f"its {name} ({type(component).__name__}) keeps values from step to step"
    return None


def _computes(component: Any) -> bool:
    """Return whether a component is neither a network nor what prepares inputs (tokenizer, processor)."""
    from diffusers.guiders.guider_utils import BaseGuidance

    return isinstance(component, BaseGuidance)


def _has_momentum(guidance: Any) -> bool:
    return any("momentum" in name and value for name, value in getattr(guidance, "config", {}).items())


def _holds_tensor(value: Any, depth: int) -> bool:
    if isinstance(value, Tensor):
        return value.dim() > 0
    if depth == 0 or isinstance(value, nn.Module | str | int | float | None):
        return False
    if isinstance(value, dict):
        parts = list(value.values())
    elif isinstance(value, list | tuple):
        parts = list(value)
    else:
        parts = list(getattr(value, "__dict__", {}).values())
    return any(_holds_tensor(part, depth - 1) for part in parts)
