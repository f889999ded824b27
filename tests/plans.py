"""Plans whose stage boundary falls where a test wants it."""

from dataclasses import replace

from fedaigc.diffusion.schedule.plan import DenoisingPlan, log_snr


def with_boundary(plan: DenoisingPlan, step: int) -> DenoisingPlan:
    """Return the plan with the noise level of `step` as t*; without t* for the number of steps."""
    return replace(plan, boundary_log_snr=log_snr(plan)[step] if step < plan.num_steps else None)
