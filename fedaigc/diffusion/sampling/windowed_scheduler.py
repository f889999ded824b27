"""A stock scheduler that exposes only the steps [start, stop) of a plan to a pipeline.

The subclass is created at run time from the class that the plan names. The pipeline sees a shorter list of
timesteps and no scaling of the initial noise. The scheduler itself steps through the complete schedule, from
the inner state that it had at `start`. No scheduler's formulas are therefore repeated here.
"""

import copy
import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache, wraps
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.restart import after_restart, restart_at
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.diffusion.schedule.stock_schedule import named_scheduler, schedule
from fedaigc.errors import UserError

# exp and log may differ in the last bits between two machines. The plan's values are then used
_SCHEDULE_TOLERANCE = 1e-5
_MAX_DRAWS_PER_STEP = 4


@dataclass
class Window:
    """One segment of a plan, and its progress.

    Attributes:
        plan: The plan.
        start: The first step of the segment.
        stop: The step to stop before.
        history: The scheduler's inner state at `start`. None if it was not kept, and the method restarts.
        generator: The noise stream, a CPU generator.
        progress: Called after each step with the number of plan steps done.
        draws: Number of latents-shaped draws that the steps took from `generator`.
        done: Number of steps done in this segment.
    """

    plan: DenoisingPlan
    start: int
    stop: int
    history: Mapping[str, Any] | None
    generator: torch.Generator | None = None
    progress: Callable[[int], None] | None = None
    draws: int = 0
    done: int = 0


def windowed_scheduler(pipe: Pipeline, window: Window) -> Any:
    """Return a scheduler of the plan's class and config that runs the steps of `window`."""
    stock: Any = named_scheduler(window.plan.scheduler_class, type(pipe.scheduler))
    scheduler = copy.deepcopy(_built(stock, window.plan.scheduler_config))
    # after construction, because some constructors call set_timesteps themselves
    scheduler.__class__ = _windowed_class(stock)
    scheduler.__dict__["_window"] = window
    return scheduler


@lru_cache(maxsize=8)
def _built(stock: Any, config: str) -> Any:
    """Return a scheduler to copy for each segment: some constructors (KDPM2) take a quarter of a second."""
    return stock.from_config(json.loads(config))


def read_history(scheduler: Any) -> dict[str, Any]:
    """Return what the steps changed since `set_timesteps`: counters, stored samples and model outputs."""
    fresh = scheduler.__dict__["_fresh"]
    return {
        name: value
        for name, value in scheduler.__dict__.items()
        if name not in _OWN and not (name in fresh and _same(fresh[name], value))
    }


_OWN = frozenset({"_window", "_fresh", "_depth", "_internal_dict"})


@cache
def _windowed_class(stock: Any) -> Any:
    """Return the subclass of `stock`. It keeps the name, which pipelines and configs read."""
    takes_generator = "generator" in inspect.signature(stock.step).parameters

    def inside(method: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap a stock method so that it sees the complete schedule."""

        @wraps(method)
        def run(self: Any, *arguments: Any, **options: Any) -> Any:
            self.__dict__["_depth"] = self.__dict__.get("_depth", 0) + 1
            try:
                return method(self, *arguments, **options)
            finally:
                self.__dict__["_depth"] -= 1

        return run

    @wraps(stock.set_timesteps)
    def set_timesteps(self: Any, *arguments: Any, **options: Any) -> None:
        inside(stock.set_timesteps)(self, *arguments, **options)
        window: Window = self.__dict__["_window"]
        self.__dict__["_depth"] = 1
        _follow(self, window.plan)
        self.__dict__["_depth"] = 0
        self.__dict__["_fresh"] = {name: _kept(value) for name, value in self.__dict__.items()}
        if window.history is None:
            restart_at(self, window.start)
        else:
            _restore(self, window.history)

    @wraps(stock.step)
    def step(
        self: Any, model_output: Any, timestep: Any, sample: Any, *arguments: Any, **options: Any
    ) -> Any:
        window: Window = self.__dict__["_window"]
        generator = window.generator
        if takes_generator and not arguments and options.get("generator") is None:
            # SD3 and FLUX pass no generator, so a stochastic scheduler would draw from the global stream
            options["generator"] = generator
        before = generator.get_state() if generator is not None else None
        result = inside(stock.step)(self, model_output, timestep, sample, *arguments, **options)
        if generator is not None and before is not None:
            window.draws += _draws_between(before, generator.get_state(), sample, type(self).__name__)
        if window.done == 0 and window.history is None:
            after_restart(self, window.start)
        window.done += 1
        if window.progress is not None:
            window.progress(window.start + window.done)
        return result

    def timesteps(self: Any) -> Any:
        window: Window = self.__dict__["_window"]
        complete = self.__dict__["timesteps"]
        return complete if self.__dict__.get("_depth", 0) > 0 else complete[window.start : window.stop]

    def set_timesteps_attribute(self: Any, value: Any) -> None:
        self.__dict__["timesteps"] = value

    def init_noise_sigma(self: Any) -> float:
        return 1.0

    def ignore(self: Any, value: Any) -> None:
        """Ignore the value: the latents of a state already carry the scale of the initial noise."""

    members: dict[str, Any] = {
        "set_timesteps": set_timesteps,
        "step": step,
        "timesteps": property(timesteps, set_timesteps_attribute),
        "init_noise_sigma": property(init_noise_sigma, ignore),
        "__module__": stock.__module__,
    }
    if hasattr(stock, "scale_model_input"):
        members["scale_model_input"] = inside(stock.scale_model_input)
    return type(stock.__name__, (stock,), members)


def _follow(scheduler: Any, plan: DenoisingPlan) -> None:
    """Check that the pipeline requested the plan's steps, and set the plan's if only rounding differs."""
    for name, given, planned in zip(
        ("timesteps", "sigmas"), schedule(scheduler), (plan.timesteps, plan.sigmas), strict=True
    ):
        if given == planned:
            continue
        close = (
            given is not None
            and planned is not None
            and len(given) == len(planned)
            and all(
                math.isclose(a, b, rel_tol=_SCHEDULE_TOLERANCE, abs_tol=_SCHEDULE_TOLERANCE)
                for a, b in zip(given, planned, strict=True)
            )
        )
        if not close:
            raise UserError(
                f"the pipeline's steps differ from those of the plan: {name} {_shown(given)}, "
                f"in the plan {_shown(planned)}"
            )
        old = getattr(scheduler, name)
        setattr(scheduler, name, torch.tensor(planned, dtype=torch.float64).to(old))


def _restore(scheduler: Any, history: Mapping[str, Any]) -> None:
    """Restore the inner state.

    A history from a packet may name any attribute, so only running values are accepted.
    """
    device = scheduler.timesteps.device
    fresh = scheduler.__dict__["_fresh"]
    for name, value in history.items():
        table = isinstance(fresh.get(name), Tensor | np.ndarray)
        if not name.isidentifier() or name in _OWN or hasattr(type(scheduler), name) or table:
            raise UserError(
                f"the history has {name!r}, which is not a running value of a {type(scheduler).__name__}"
            )
        setattr(scheduler, name, _copied(value, device))


def _draws_between(
    before: UInt8[Tensor, " n"], after: UInt8[Tensor, " n"], sample: Float[Tensor, "b *latent"], name: str
) -> int:
    """Return the number of latents-shaped draws between two generator states.

    A state carries only a seed and this count, so a draw of another shape could not be repeated after a
    hand-off.
    """
    if torch.equal(before, after):
        return 0
    probe = torch.Generator()
    probe.set_state(before)
    for count in range(1, _MAX_DRAWS_PER_STEP + 1):
        torch.randn(sample.shape, generator=probe, dtype=sample.dtype)
        if torch.equal(probe.get_state(), after):
            return count
    raise UserError(f"{name} draws noise of another shape than the latents: a run with it cannot be split")


def _copied(value: Any, device: torch.device) -> Any:
    """Copy a value: schedulers change stored tensors in place, and several members resume one state."""
    if isinstance(value, Tensor):
        # zero-dimensional tensors (Heun's dt) stay on the CPU, where the scheduler computes them
        return value.clone() if value.dim() == 0 else value.to(device, copy=True)
    if isinstance(value, list | tuple):
        return [_copied(item, device) for item in value]
    return value


def _kept(value: Any) -> Any:
    """Copy lists, which the steps change in place. All other values are replaced."""
    return list(value) if isinstance(value, list) else value


def _same(one: Any, other: Any) -> bool:
    if one is other:
        return True
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.shape == other.shape and one.dtype == other.dtype and torch.equal(one.cpu(), other.cpu())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        return type(one) is type(other) and np.array_equal(one, other)
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return False
    return type(one) is type(other) and bool(one == other)


def _shown(values: tuple[float, ...] | None) -> str:
    if values is None:
        return "none"
    head = ", ".join(f"{value:.6g}" for value in values[:4])
    return f"{len(values)}: {head}{', ...' if len(values) > 4 else ''}"
