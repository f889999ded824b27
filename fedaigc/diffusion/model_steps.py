"""How many steps a model takes by default, and how many of them a group shares where nobody says it."""

from typing import Any

from fedaigc import assets
from fedaigc.diffusion.loading import SHIPPED
from fedaigc.diffusion.model_size import read_part
from fedaigc.diffusion.sampling.pipeline_call import Pipeline

DEFAULT_STEPS = 11
DEFAULT_SHARED_STEPS = 3
# schedulers that are made for models of few steps, and how many their models take
_FEW = {"LCMScheduler": 4, "TCDScheduler": 4, "SCMScheduler": 2}


def default_steps(model: str | Pipeline) -> int:
    """Return the number of steps that a model takes where none is asked for.

    A model of few steps says so by its scheduler. All others take `DEFAULT_STEPS`.

    Args:
        model: A shipped model, a diffusers folder, a hub name or a pipeline.
    """
    if not isinstance(model, str):
        return _FEW.get(type(model.scheduler).__name__, DEFAULT_STEPS)
    folder = str(assets.path(SHIPPED[model])) if model in SHIPPED else model
    try:
        scheduler: Any = read_part(folder, "scheduler/scheduler_config.json").get("_class_name")
    except (OSError, ValueError):
        return DEFAULT_STEPS  # loading the model then says why
    return _FEW.get(scheduler, DEFAULT_STEPS) if isinstance(scheduler, str) else DEFAULT_STEPS


def default_shared_steps(steps: int) -> int:
    """Return the number of shared steps of a plan of `steps` steps, where none is asked for.

    Below 9 steps this is a third of them, so none of one or two: with few steps, sharing half of them already changes
    pictures (docs/models.md).
    """
    return min(DEFAULT_SHARED_STEPS, steps // 3)
