"""The initial noise of a plan, as the stock pipeline prepares it: its shape, dtype, packing and scale."""

import inspect
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fedaigc.diffusion.sampling.observed_call import (
    ObservedCall,
    Prepare,
    equal,
    first_tensor,
    note_preparation,
    observe_call,
)
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, borrowed, call_arguments, execution_device
from fedaigc.diffusion.sampling.windowed_scheduler import follow_plan
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.diffusion.schedule.stock_schedule import built_scheduler
from fedaigc.rng import noise_generator

_MAX_CALLS = 16
# by pipeline, then by plan, batch and device: a call on empty prompts
_observed: "WeakKeyDictionary[Pipeline, dict[Any, ObservedCall]]" = WeakKeyDictionary()


def observe_plan(
    pipe: Pipeline, plan: DenoisingPlan, conditioning: Mapping[str, Any], seed: int = 0
) -> ObservedCall:
    """Observe the plan's call on this conditioning, without computing a step."""
    call = call_arguments(pipe, conditioning, **plan.call)
    observed = observe_call(
        pipe,
        {**call, "generator": noise_generator(seed), "output_type": "latent"},
        built_scheduler(plan.scheduler_class, plan.scheduler_config, type(pipe.scheduler)),
        lambda scheduler: follow_plan(scheduler, plan),
    )
    note_preparation(pipe, observed)
    return observed


def initial_noise(
    pipe: Pipeline, plan: DenoisingPlan, seed: int, batch: int, conditioning: Mapping[str, Any] | None
) -> Tensor:
    """Return the latents at step 0 of a run with this seed.

    A call without a conditioning of its own is observed once. The noise of other seeds then comes from the
    pipeline's `prepare_latents` with the arguments of that call.
    """
    if conditioning is not None:
        return observe_plan(pipe, plan, conditioning, seed).latents
    kept = _observed.setdefault(pipe, {})
    key = (plan.fingerprint(), batch, str(execution_device(pipe)))
    if key not in kept:
        found = observe_plan(pipe, plan, {"prompt": [""] * batch}, seed)
        if not equal(_prepared(pipe, found, seed), found.latents):
            return found.latents
        if len(kept) >= _MAX_CALLS:
            kept.pop(next(iter(kept)))
        kept[key] = found
        return found.latents
    return _prepared(pipe, kept[key], seed)


def _prepared(pipe: Pipeline, observed: ObservedCall, seed: int) -> Any:
    """Return the noise of a seed by `prepare_latents`, or None if it does not prepare the latents of step 0."""
    if observed.preparation is None:
        return None
    arguments, options = observed.preparation
    prepare: Prepare = pipe.prepare_latents
    bound = inspect.signature(prepare).bind(*arguments, **options)
    if "generator" not in bound.arguments:
        return None
    bound.arguments["generator"] = noise_generator(seed)
    with torch.no_grad(), borrowed(pipe, observed.scheduler):
        return first_tensor(prepare(*bound.args, **bound.kwargs))
