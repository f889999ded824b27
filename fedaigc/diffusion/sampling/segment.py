"""Run steps [a, b) of any diffusers text-to-image pipeline, bit for bit like the stock pipeline [Du23].

The pipeline is not modified. It gets a scheduler that exposes only those steps (`windowed_scheduler`), and
returns latents. A `DenoisingState` holds everything that a later segment needs.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from PIL.Image import Image
from torch import Tensor

from fedaigc.diffusion.sampling.count import DenoiserCount
from fedaigc.diffusion.sampling.finite import check_finite, finite_pictures
from fedaigc.diffusion.sampling.pipeline_call import (
    Pipeline,
    batch_size,
    borrowed,
    call_arguments,
    denoiser,
    dtype_name,
)
from fedaigc.diffusion.sampling.restart import restart_refusal
from fedaigc.diffusion.sampling.windowed_scheduler import Window, read_history, windowed_scheduler
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.diffusion.schedule.stock_schedule import named_scheduler
from fedaigc.errors import UserError
from fedaigc.rng import noise_generator

__all__ = [
    "DenoiserCount",
    "DenoisingState",
    "decode",
    "finish_segment",
    "initial_state",
    "latents_shape",
    "run_segment",
]


@dataclass(frozen=True, eq=False)
class DenoisingState:
    """The state of a denoising run: all that the next step needs besides plan, weights and prompt.

    Attributes:
        step: Number of steps done, i.e. the index of the next step. When the state is sent, this is the
            hand-off step K.
        latents: Latents [b, c, h, w], or [b, tokens, c] in pipelines that pack them (FLUX).
        history: Running values of the scheduler (counters, earlier model outputs). None after a hand-off of
            latents alone. A multistep scheduler then restarts at first order.
        noise_seed: Seed of the noise stream. None after a hand-off without the stream. No step may draw noise
            then.
        draw_count: Number of latents-shaped draws taken from the stream. The initial noise is the first.
        plan_fingerprint: Fingerprint of the plan that the steps belong to.
    """

    step: int
    latents: Float[Tensor, "b *latent"]
    history: Mapping[str, Any] | None
    noise_seed: int | None
    draw_count: int
    plan_fingerprint: str

    def with_noise_stream(self, noise_seed: int) -> "DenoisingState":
        """Return the same state at the start of another noise stream, e.g. a member's own after step K."""
        return replace(self, noise_seed=noise_seed, draw_count=0)

    def repeated(self, count: int) -> "DenoisingState":
        """Return a state with `count` copies of every sample, to finish several group members in one batch.

        Do not use this for samplers that draw noise if each member needs its own noise: the batch draws from
        one stream.
        """
        batch = self.latents.shape[0]

        def repeat(value: Any) -> Any:
            if isinstance(value, Tensor) and value.dim() > 0 and value.shape[0] == batch:
                return value.repeat_interleave(count, dim=0)
            return [repeat(item) for item in value] if isinstance(value, list) else value

        history = None if self.history is None else {k: repeat(value) for k, value in self.history.items()}
        return replace(self, latents=repeat(self.latents), history=history)


def initial_state(pipe: Pipeline, plan: DenoisingPlan, seed: int, batch: int = 1) -> DenoisingState:
    """Return the state at step 0, with the initial noise of the stock pipeline.

    The noise is that of `pipe(..., generator=torch.Generator().manual_seed(seed))`. For a negative seed, see
    `noise_generator`. The generator is on the CPU, so a seed gives the same noise on every machine.

    Args:
        pipe: The pipeline that prepares the latents.
        plan: The plan of the run.
        seed: The noise seed.
        batch: Number of images b. All are drawn at once, as the stock pipeline does with one generator.

    Raises:
        UserError: If the pipeline does not compute in the plan's dtype, or if its `prepare_latents` has an
            unusual signature.
    """
    _check_dtype(pipe, plan)
    scheduler = named_scheduler(plan.scheduler_class, type(pipe.scheduler)).from_config(
        json.loads(plan.scheduler_config)
    )
    if plan.sigmas is not None:
        # the scale of the initial noise depends on the sigmas
        scheduler.sigmas = torch.tensor(plan.sigmas, dtype=scheduler.sigmas.dtype)
    with borrowed(pipe, scheduler):
        latents = _prepared_latents(pipe, plan, seed, batch)
    return DenoisingState(0, latents, {}, seed, 1, plan.fingerprint())


def latents_shape(pipe: Pipeline, plan: DenoisingPlan) -> tuple[int, ...]:
    """Return the shape of one image's latents, (1, c, h, w) or (1, tokens, c).

    Packets of the plan must have this shape.

    Raises:
        UserError: If the pipeline's `prepare_latents` has an unusual signature.
    """
    return tuple(_prepared_latents(pipe, plan, 0, 1).shape)


def _prepared_latents(pipe: Pipeline, plan: DenoisingPlan, seed: int, batch: int) -> Tensor:
    """Return initial noise as the pipeline draws and scales it."""
    known = inspect.signature(pipe.prepare_latents).parameters
    network: Any = denoiser(pipe)
    channels = network.config.in_channels
    arguments = {
        "batch_size": batch,
        # pipelines that pack latents put 2 x 2 of them into the channels of one token
        "num_channels_latents": channels // 4 if hasattr(pipe, "_pack_latents") else channels,
        "height": plan.height,
        "width": plan.width,
        "dtype": getattr(torch, plan.dtype),
        "device": pipe._execution_device,
        "generator": noise_generator(seed),
        "latents": None,
    }
    if not arguments.keys() >= {name for name, value in known.items() if value.default is value.empty}:
        raise UserError(
            f"{type(pipe).__name__}.prepare_latents takes {', '.join(known)}: its noise cannot be drawn here"
        )
    with torch.no_grad():
        prepared = pipe.prepare_latents(**arguments)
    return prepared[0] if isinstance(prepared, tuple) else prepared


def run_segment(
    pipe: Pipeline,
    state: DenoisingState,
    conditioning: Mapping[str, Any],
    plan: DenoisingPlan,
    stop: int,
    progress: Callable[[int], None] | None = None,
) -> DenoisingState:
    """Run steps [state.step, stop) of the plan and return the state at `stop`.

    The result equals the same steps of the stock pipeline bit for bit, at equal batch, dtype and thread
    count. The call draws noise only from the state's stream, and restores the pipeline afterwards.

    Runs of one pipeline must not overlap in time. Arguments that depend on the index of a step inside the
    call cannot be used: the known ones are refused.

    Args:
        pipe: The pipeline to run.
        state: The state to start from.
        conditioning: Keyword arguments of the pipeline call that determine the images: {"prompt": "..."}, a
            list of prompts for a batch, `prompt_embeds` with its companions, `eta`, `true_cfg_scale`, ...
            They must describe one image per latent.
        plan: The plan that the state belongs to.
        stop: The step to stop before.
        progress: Called after each step with the number of plan steps done so far.

    Raises:
        UserError: If the state belongs to another plan, if `stop` lies before the state or past the end of
            the plan, if the conditioning does not fit, or if the pipeline takes other steps than the plan.
        NotFinite: If latents or pictures are not finite.
    """
    check_run(pipe, state, conditioning, plan, stop)
    if stop == state.step:
        return state
    window, scheduler, latents = _run_steps(pipe, state, conditioning, plan, stop, progress, "latent")
    return DenoisingState(
        stop,
        latents,
        read_history(scheduler),
        state.noise_seed,
        state.draw_count + window.draws,
        state.plan_fingerprint,
    )


def finish_segment(
    pipe: Pipeline,
    state: DenoisingState,
    conditioning: Mapping[str, Any],
    plan: DenoisingPlan,
    progress: Callable[[int], None] | None = None,
) -> list[Image]:
    """Run all remaining steps and return the b images, in a single pipeline call.

    The images equal those of `decode(run_segment(...))` byte for byte, without its second call, which costs a
    text encoding. A state without remaining steps is decoded. Arguments and errors are those of
    `run_segment`.
    """
    check_run(pipe, state, conditioning, plan, plan.num_steps)
    if state.step == plan.num_steps:
        return decode(pipe, state, plan, conditioning)
    return list(_run_steps(pipe, state, conditioning, plan, plan.num_steps, progress, "pil")[2])


def decode(
    pipe: Pipeline,
    state: DenoisingState | Float[Tensor, "b *latent"],
    plan: DenoisingPlan,
    conditioning: Mapping[str, Any] | None = None,
) -> list[Image]:
    """Decode a state or its latents to images, as the stock pipeline decodes its final latents.

    The pipeline decodes and post-processes the latents itself, in a call without steps. Such a call encodes a
    prompt: the empty one, unless `conditioning` contains embeddings. Intermediate latents can be decoded too.
    Their images show the remaining noise.

    Args:
        pipe: The pipeline that decodes.
        state: A state, or latents [b, c, h, w] or [b, tokens, c].
        plan: The plan that the state belongs to.
        conditioning: Keyword arguments of the pipeline call. None encodes the empty prompt.

    Raises:
        UserError: If the state belongs to another plan.
    """
    if isinstance(state, DenoisingState):
        _check_plan(state, plan)
    latents = state.latents if isinstance(state, DenoisingState) else state
    given = {"prompt": [""] * latents.shape[0]} if conditioning is None else conditioning
    window = Window(plan, plan.num_steps, plan.num_steps, {})
    # without guidance the negative prompt is not encoded, and nothing is denoised here
    return list(_run(pipe, window, latents, given, 1.0, "pil")[1])


def check_run(
    pipe: Pipeline, state: DenoisingState, conditioning: Mapping[str, Any], plan: DenoisingPlan, stop: int
) -> None:
    """Check that steps [state.step, stop) can be run from a state.

    Raises:
        UserError: If `stop` lies before the state's step or past the end, or the state does not fit the rest.
    """
    _check_plan(state, plan)
    _check_dtype(pipe, plan)
    if not state.step <= stop <= plan.num_steps:
        raise UserError(
            f"cannot run from step {state.step} to {stop}: expected {state.step} to {plan.num_steps}"
        )
    batch = state.latents.shape[0]
    if batch_size(conditioning) != batch:
        raise UserError(f"conditioning for {batch_size(conditioning)} images, but latents of {batch}")
    refusal = restart_refusal(plan, state.step) if state.history is None else None
    if refusal is not None:
        raise UserError(f"cannot continue at step {state.step} from latents alone: {refusal}")


def _run_steps(
    pipe: Pipeline,
    state: DenoisingState,
    conditioning: Mapping[str, Any],
    plan: DenoisingPlan,
    stop: int,
    progress: Callable[[int], None] | None,
    output_type: str,
) -> tuple[Window, Any, Any]:
    """Run steps [state.step, stop), at least one.

    Returns the window of the steps, the scheduler after them, and latents or images.
    """
    # without a stream the scheduler must draw nothing, and this generator shows whether it did
    generator = noise_generator(state.noise_seed if state.noise_seed is not None else 0)
    for _ in range(state.draw_count):
        torch.randn(state.latents.shape, generator=generator, dtype=state.latents.dtype)
    window = Window(plan, state.step, stop, state.history, generator, progress)
    scheduler, output = _run(pipe, window, state.latents, conditioning, plan.guidance_scale, output_type)
    if window.done != stop - state.step:
        raise UserError(
            f"{type(pipe).__name__} ran {window.done} steps of {stop - state.step}: it cannot be split"
        )
    if state.noise_seed is None and window.draws:
        raise UserError(
            f"{plan.scheduler_class} draws noise, and this state has no noise stream: add one "
            "with `with_noise_stream`, or pack it with noise_stream=True for a run of your own"
        )
    return window, scheduler, output


def _run(
    pipe: Pipeline,
    window: Window,
    latents: Float[Tensor, "b *latent"],
    conditioning: Mapping[str, Any],
    guidance_scale: float,
    output_type: str,
) -> tuple[Any, Any]:
    """Call the pipeline once inside `window`, and return the scheduler afterwards and the first output."""
    plan = window.plan
    arguments = call_arguments(
        pipe,
        conditioning,
        num_inference_steps=plan.num_inference_steps,
        guidance_scale=guidance_scale,
        negative_prompt=plan.negative_prompt,
        height=plan.height,
        width=plan.width,
    )
    scheduler = windowed_scheduler(pipe, window)
    # embeddings and latents from a packet or a file are on the CPU
    device = pipe._execution_device
    placed = {
        name: value.to(device) if isinstance(value, Tensor) else value for name, value in arguments.items()
    }
    with torch.no_grad(), borrowed(pipe, scheduler), finite_pictures(pipe):
        output = pipe(
            **placed,
            latents=latents.to(device),
            generator=window.generator,
            output_type=output_type,
            return_dict=False,
        )
    check_finite(pipe, output[0], "latents")
    return scheduler, output[0]


def _check_plan(state: DenoisingState, plan: DenoisingPlan) -> None:
    if state.plan_fingerprint != plan.fingerprint():
        raise UserError(
            f"this state belongs to plan {state.plan_fingerprint}, not to plan {plan.fingerprint()}"
        )


def _check_dtype(pipe: Pipeline, plan: DenoisingPlan) -> None:
    if dtype_name(pipe) != plan.dtype:
        raise UserError(
            f"the pipeline computes in {dtype_name(pipe)}, the plan in {plan.dtype}: load it in that dtype"
        )
