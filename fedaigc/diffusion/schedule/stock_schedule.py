"""Determine which steps an unmodified pipeline takes with an unmodified scheduler."""

import copy
import inspect
import json
from collections.abc import Mapping
from functools import wraps
from typing import Any

from fedaigc.diffusion.sampling.pipeline_call import Pipeline, borrowed
from fedaigc.errors import UserError

Schedule = tuple[tuple[float, ...], tuple[float, ...] | None]


class _Captured(Exception):
    """Ends a pipeline call as soon as it requests its timesteps."""

    def __init__(self, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        super().__init__()
        self.arguments, self.options = arguments, options


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


def schedule(scheduler: Any) -> Schedule:
    """Return a scheduler's timesteps and sigmas after `set_timesteps`. Sigmas are None if it keeps none."""
    sigmas = getattr(scheduler, "sigmas", None)
    timesteps = tuple(float(value) for value in scheduler.timesteps)
    return timesteps, None if sigmas is None else tuple(float(value) for value in sigmas)


def requested_schedule(pipe: Pipeline, call: Mapping[str, Any]) -> Schedule:
    """Return the schedule that `pipe(**call)` would run.

    The call is made and ended before its first step.

    Raises:
        UserError: If the pipeline refuses the call, or if its scheduler was changed in a way that its config
            does not describe, because no other machine could follow it.
    """
    stock = type(pipe.scheduler)
    config = json.loads(canonical_config(pipe.scheduler))

    def capture(_: Any, *arguments: Any, **options: Any) -> None:
        raise _Captured(arguments, options)

    from_config, own = stock.from_config(config), copy.deepcopy(pipe.scheduler)
    probe = stock.from_config(config)
    # diffusers inspects the signature of set_timesteps before it calls it
    members = {"set_timesteps": wraps(stock.set_timesteps)(capture), "__module__": stock.__module__}
    # after construction, because some constructors call set_timesteps themselves
    probe.__class__ = type(stock.__name__, (stock,), members)
    request = None
    try:
        try:
            with borrowed(pipe, probe):
                pipe(**call, output_type="latent", return_dict=False)
        except _Captured as captured:
            request = captured
        if request is not None:
            for scheduler in (from_config, own):
                scheduler.set_timesteps(*request.arguments, **request.options)
    except ValueError as error:
        raise UserError(f"{type(pipe).__name__} refuses these settings: {error}") from error
    if request is None:
        raise UserError(
            f"{type(pipe).__name__} never sets its scheduler's timesteps: no plan can be built for it"
        )
    if schedule(own) != schedule(from_config):
        raise UserError(
            f"the pipeline's {stock.__name__} takes other steps than its config defines (was it changed by "
            "set_shift?): change the config instead, so that other machines take the same steps"
        )
    return schedule(from_config)


def _plain(value: Any) -> Any:
    """Return numpy arrays and scalars as JSON values. Trained betas are often arrays."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
