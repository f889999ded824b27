"""The denoiser's answer at the first step of a plan, and nothing after it."""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.segment import DenoisingState, check_run, first_model_output
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError


def first_answer(
    pipe: Pipeline, state: DenoisingState, conditioning: Mapping[str, Any], plan: DenoisingPlan
) -> Float[Tensor, "b *latent"]:
    """Return what the pipeline hands to `scheduler.step` at the first step, after guidance.

    The call is the pipeline's own, with all steps but the first skipped. It costs one evaluation of the denoiser, of
    twice the batch with classifier-free guidance, and one encoding of the prompts.

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
    # the scheduler's own step draws from a stream that nothing else reads
    output = first_model_output(pipe, state.with_noise_stream(0), conditioning, plan)
    latents = state.latents
    if output.shape != latents.shape and output.shape[1] == 2 * latents.shape[1]:
        output = output[:, : latents.shape[1]]
    return output.float().cpu()
