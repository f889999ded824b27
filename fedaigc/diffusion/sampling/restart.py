"""Restart a scheduler from latents alone: which schedulers can restart, at which steps, and how.

Without its history a multistep method restarts at first order, which costs accuracy. The demo of [Du23] does
so, and at N = 11, K = 5 its PNDM is 7.5 % off. One-step methods lose nothing. Methods with several
evaluations per step (Heun, the first step of PNDM) can restart only between their steps.
"""

import json
from typing import Any

from fedaigc.diffusion.schedule.plan import DenoisingPlan

ONE_STEP = frozenset(
    {
        "DDIMScheduler",
        "DDPMScheduler",
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "FlowMatchEulerDiscreteScheduler",
        "LCMScheduler",
    }
)
MULTISTEP = frozenset({"DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "DEISMultistepScheduler"})
TWO_EVALUATIONS = frozenset(
    {
        "HeunDiscreteScheduler",
        "FlowMatchHeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
    }
)


def restart_refusal(plan: DenoisingPlan, step: int) -> str | None:
    """Return why a run of this plan cannot continue at `step` from latents alone, or None if it can."""
    name = plan.scheduler_class
    if step in (0, plan.num_steps) or name in ONE_STEP | MULTISTEP:
        return None
    if name in TWO_EVALUATIONS:
        # evaluations 2i - 2 and 2i - 1 make one step, and the sample between them is intermediate
        return None if step % 2 == 0 else f"step {step} lies inside one of the two-evaluation steps of {name}"
    if name == "PNDMScheduler":
        if not json.loads(plan.scheduler_config)["skip_prk_steps"]:
            return f"{name} with Runge-Kutta steps needs the model outputs of those steps"
        return None if step != 1 else f"step 1 lies inside the first, two-evaluation step of {name}"
    return f"nothing is known about {name} without its history"


def restart_at(scheduler: Any, step: int) -> None:
    """Set a fresh scheduler to `step` without a history. At step 0 it needs no change."""
    if step > 0 and hasattr(scheduler, "_step_index"):
        scheduler._step_index = step


def after_restart(scheduler: Any, step: int) -> None:
    """Correct the counter of PNDM after the first step since a restart.

    PNDM recognizes its first step by counter 0 and its second, a repetition of the first, by counter 1. A
    restarted run takes the former but must not take the latter, because its timesteps do not repeat here.
    """
    if step > 0 and hasattr(scheduler, "ets") and hasattr(scheduler, "counter"):
        scheduler.counter = step + 1
        scheduler.cur_sample = None
