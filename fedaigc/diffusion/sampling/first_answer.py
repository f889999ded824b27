"""The denoiser's answer at the first step of a plan, and nothing after it."""

from collections.abc import Mapping
from functools import wraps
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.diffusion.sampling.pipeline_call import Pipeline, borrowed, call_arguments
from fedaigc.diffusion.sampling.segment import DenoisingState, check_run
from fedaigc.diffusion.sampling.windowed_scheduler import Window, windowed_scheduler
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError


class _Answered(Exception):
    """Ends a pipeline call with the first model output."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def first_answer(
    pipe: Pipeline, state: DenoisingState, conditioning: Mapping[str, Any], plan: DenoisingPlan
) -> Float[Tensor, "b *latent"]:
    """Return what the pipeline hands to `scheduler.step` at the first step, after guidance.

    The call is the pipeline's own, ended before its first step. It costs one evaluation of the denoiser, of twice the
    batch with classifier-free guidance, and one encoding of the prompts.

    Args:
        pipe: The pipeline.
        state: A state at step 0 of the plan, with one row of latents for each prompt.
        conditioning: As for `run_segment`.
        plan: The plan.

    Returns:
        The answer in the shape of the latents, in float32 on the CPU. If the model also predicts variances, they are
        left out.

    Raises:
        UserError: If the state is not at step 0, does not belong to the plan, or the conditioning does not fit.
    """
    check_run(pipe, state, conditioning, plan, plan.num_steps)
    if state.step != 0:
        raise UserError(f"the first answer is that of step 0, and this state is at step {state.step}")
    arguments = call_arguments(
        pipe,
        conditioning,
        num_inference_steps=plan.num_inference_steps,
        guidance_scale=plan.guidance_scale,
        negative_prompt=plan.negative_prompt,
        height=plan.height,
        width=plan.width,
    )
    scheduler = windowed_scheduler(pipe, Window(plan, 0, plan.num_steps, state.history))

    @wraps(type(scheduler).step)
    def step(self: Any, model_output: Tensor, *_: Any, **__: Any) -> None:
        raise _Answered(model_output)

    scheduler.__class__ = type(type(scheduler).__name__, (type(scheduler),), {"step": step})
    device = pipe._execution_device
    placed = {name: x.to(device) if isinstance(x, Tensor) else x for name, x in arguments.items()}
    try:
        with torch.no_grad(), borrowed(pipe, scheduler):
            pipe(**placed, latents=state.latents.to(device), output_type="latent", return_dict=False)
    except _Answered as answered:
        output, latents = answered.output, state.latents
        if output.shape != latents.shape and output.shape[1] == 2 * latents.shape[1]:
            output = output[:, : latents.shape[1]]
        return output.float().cpu()
    raise UserError(f"{type(pipe).__name__} made no step: its first answer cannot be read")
