"""A stock scheduler that computes only the steps [start, stop) of a plan, from the inner state at `start`.

The scheduler takes the complete schedule of the plan, from the inner state that it had at `start`. No
scheduler's formulas are therefore repeated here.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedaigc.diffusion.sampling.loop import OWN, Loop, in_loop
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.restart import after_restart, restart_at
from fedaigc.diffusion.schedule.carried_values import is_built_again
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.diffusion.schedule.stock_schedule import built_scheduler, schedule
from fedaigc.errors import UserError

# exp and log may differ in the last bits between two machines. The plan's values are then used
_SCHEDULE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Window:
    """One segment of a plan.

    Attributes:
        plan: The plan.
        start: The first step of the segment.
        stop: The step to stop before.
        history: The scheduler's inner state at `start`. None if it was not kept, and the method restarts.
        latents: The latents at `start`. None at step 0 leaves those that the pipeline prepares.
        generator: The noise stream, a CPU generator.
        on_start: Called at `start` (see `Loop`).
        progress: Called after each step with the number of plan steps done.
    """

    plan: DenoisingPlan
    start: int
    stop: int
    history: Mapping[str, Any] | None
    latents: Tensor | None = None
    generator: torch.Generator | None = None
    on_start: Callable[[Tensor, Tensor | None], None] | None = None
    progress: Callable[[int], None] | None = None


def windowed_scheduler(pipe: Pipeline, window: Window) -> tuple[Any, Loop]:
    """Return a scheduler of the plan's class and config that runs the steps of `window`, and its loop."""
    plan = window.plan
    scheduler = built_scheduler(plan.scheduler_class, plan.scheduler_config, type(pipe.scheduler))

    def on_timesteps(scheduler: Any, _: tuple[Any, ...], __: dict[str, Any]) -> None:
        follow_plan(scheduler, plan)
        scheduler.__dict__["_fresh"] = {name: _kept(value) for name, value in scheduler.__dict__.items()}
        if window.history is None:
            restart_at(scheduler, window.start)
        else:
            _restore(scheduler, window.history)

    def on_step(scheduler: Any) -> None:
        if loop.position == window.start + 1 and window.history is None:
            after_restart(scheduler, window.start)
        if window.progress is not None:
            window.progress(loop.position)

    loop = Loop(
        window.start,
        window.stop,
        window.latents,
        window.generator,
        on_timesteps=on_timesteps,
        on_start=window.on_start,
        on_step=on_step,
    )
    return in_loop(scheduler, loop), loop


def read_history(scheduler: Any) -> dict[str, Any]:
    """Return what the steps changed since `set_timesteps`: counters, stored samples and model outputs."""
    fresh = scheduler.__dict__["_fresh"]
    return {
        name: value
        for name, value in scheduler.__dict__.items()
        if name not in _OWN
        and not (name in fresh and _same(fresh[name], value))
        and not is_built_again(scheduler, name)
    }


_OWN = OWN | {"_fresh", "_internal_dict"}


def follow_plan(scheduler: Any, plan: DenoisingPlan) -> None:
    """Check that the pipeline requested the plan's steps, and set the plan's if only rounding differs."""
    for name, given, planned in zip(
        ("timesteps", "sigmas"), schedule(scheduler), (plan.timesteps, plan.sigmas), strict=True
    ):
        # some pipelines leave the last timestep out (SanaSprint)
        unused = given[len(planned) :] if name == "timesteps" and given and planned else ()
        taken = given[: len(given) - len(unused)] if given is not None else None
        if taken == planned:
            continue
        close = (
            taken is not None
            and planned is not None
            and len(taken) == len(planned)
            and all(
                math.isclose(a, b, rel_tol=_SCHEDULE_TOLERANCE, abs_tol=_SCHEDULE_TOLERANCE)
                for a, b in zip(taken, planned, strict=True)
            )
        )
        if not close or planned is None:
            raise UserError(
                f"the pipeline's steps differ from those of the plan: {name} {_shown(given)}, "
                f"in the plan {_shown(planned)}"
            )
        old = getattr(scheduler, name)
        setattr(scheduler, name, torch.tensor((*planned, *unused), dtype=torch.float64).to(old))


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
