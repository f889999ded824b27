"""Determine which steps an unmodified pipeline takes with an unmodified scheduler."""

import copy
import inspect
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from fedaigc.diffusion.sampling.observed_call import ObservedCall, observe_call
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.schedule.carried_values import uncarried_value
from fedaigc.errors import UserError
from fedaigc.rng import noise_generator

Schedule = tuple[tuple[float, ...], tuple[float, ...] | None]


def canonical_config(scheduler: Any) -> str:
    """Return the arguments that rebuild a scheduler, as canonical JSON (sorted keys, no spaces).

    Entries that the scheduler's class does not take (left over from other schedulers) and the internal
    entries of diffusers are left out. They would distinguish two machines that compute the same.

    Raises:
        UserError: If JSON cannot represent a value.
    """
    known = inspect.signature(type(scheduler).__init__).parameters
    config = {name: value for name, value in scheduler.config.items() if name in known}
    try:
        # NaN and infinity are allowed: DPM-Solver's lambda_min_clipped is minus infinity
        return json.dumps(config, sort_keys=True, separators=(",", ":"), default=_plain)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"the config of {type(scheduler).__name__} cannot be written as JSON: {error}"
        ) from error


def named_scheduler(name: str, own: type[Any] | None = None) -> type[Any]:
    """Return the stock scheduler class of this name: `own` (a pipeline's class), or a class of diffusers.

    Raises:
        UserError: If the name is neither. A plan from another machine may contain any name.
    """
    import diffusers
    from diffusers.schedulers.scheduling_utils import SchedulerMixin

    if own is not None and own.__name__ == name:
        return own
    found = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if not (isinstance(found, type) and issubclass(found, SchedulerMixin)):
        raise UserError(f"the plan names the scheduler {name!r}: expected a scheduler class of diffusers")
    return found


def built_scheduler(name: str, config: str, own: type[Any] | None = None) -> Any:
    """Return an unused scheduler of this class and canonical config (see `named_scheduler`)."""
    # some constructors (KDPM2) take a quarter of a second
    stock: Any = named_scheduler(name, own)
    return copy.deepcopy(_built(stock, config))


@lru_cache(maxsize=8)
def _built(stock: Any, config: str) -> Any:
    return stock.from_config(json.loads(config))


def schedule(scheduler: Any) -> Schedule:
    """Return a scheduler's timesteps and sigmas after `set_timesteps`. Sigmas are None if it keeps none."""
    sigmas = getattr(scheduler, "sigmas", None)
    timesteps = tuple(float(value) for value in scheduler.timesteps)
    return timesteps, None if sigmas is None else tuple(float(value) for value in sigmas)


def observed_schedule(pipe: Pipeline, call: Mapping[str, Any]) -> tuple[Schedule, ObservedCall]:
    """Return the schedule that `pipe(**call)` would run, and what else the call does.

    The call is made with all of its steps skipped. The schedule has one timestep per step that the pipeline
    takes.

    Raises:
        UserError: If the pipeline refuses the call, or if its scheduler was changed in a way that its config
            does not describe, because no other machine could follow it.
    """
    stock = type(pipe.scheduler)
    config = json.loads(canonical_config(pipe.scheduler))
    own = copy.deepcopy(pipe.scheduler)
    observed = observe_call(
        pipe,
        {"output_type": "latent", "generator": noise_generator(0), **call},
        stock.from_config(config),
    )
    arguments, options = observed.request
    own.set_timesteps(*arguments, **options)
    timesteps, sigmas = schedule(observed.scheduler)
    if schedule(own) != (timesteps, sigmas):
        raise UserError(
            f"the pipeline's {stock.__name__} takes other steps than its config defines (was it changed by "
            "set_shift?): change the config instead, so that other machines take the same steps"
        )
    if observed.steps > len(timesteps):
        raise UserError(
            f"{type(pipe).__name__} takes {observed.steps} steps for {len(timesteps)} timesteps: it cannot be "
            "divided"
        )
    kept = uncarried_value(own)
    if kept is not None:
        seed = ": set noise_sampler_seed in its config" if hasattr(own, "noise_sampler_seed") else ""
        raise UserError(
            f"{stock.__name__} keeps a {type(getattr(own, kept)).__name__} ({kept}) between its steps, which no "
            f"packet can carry{seed or ': choose another scheduler'}"
        )
    return (timesteps[: observed.steps], sigmas), observed


def _plain(value: Any) -> Any:
    """Return numpy arrays and scalars as JSON values. Trained betas are often arrays."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
