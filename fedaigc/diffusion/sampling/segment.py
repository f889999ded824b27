"""Run steps [a, b) of any diffusers text-to-image pipeline, bit for bit like the stock pipeline [Du23].

The pipeline is not modified. It gets a scheduler that exposes only those steps (`windowed_scheduler`), and
returns latents. A `DenoisingState` holds everything that a later segment needs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from jaxtyping import Float
from torch import Tensor

from fedaigc.counting import counted
from fedaigc.diffusion.sampling.count import DenoiserCount
from fedaigc.diffusion.sampling.finite import check_finite, finite_pictures
from fedaigc.diffusion.sampling.initial_noise import initial_noise, observe_plan
from fedaigc.diffusion.sampling.kept_values import kept_between_steps, kept_values
from fedaigc.diffusion.sampling.loop import Loop, laid_out, seek
from fedaigc.diffusion.sampling.observed_call import (
    Prepare,
    Request,
    equal,
    first_tensor,
    prepares_start,
    run_call,
    with_first_tensor,
)
from fedaigc.diffusion.sampling.pipeline_call import (
    Pipeline,
    batch_size,
    call_arguments,
    check_true_guidance,
    dtype_name,
)
from fedaigc.diffusion.sampling.restart import restart_refusal
from fedaigc.diffusion.sampling.windowed_scheduler import Window, read_history, windowed_scheduler
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError
from fedaigc.rng import noise_generator

__all__ = [
    "DenoiserCount",
    "DenoisingState",
    "decode",
    "finish_segment",
    "initial_state",
    "latents_shape",
    "outputs_from",
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
        own_stream: Whether the stream began after the initial noise (`with_noise_stream`). Not in packets.
    """

    step: int
    latents: Float[Tensor, "b *latent"]
    history: Mapping[str, Any] | None
    noise_seed: int | None
    draw_count: int
    plan_fingerprint: str
    own_stream: bool = False

    def with_noise_stream(self, noise_seed: int) -> "DenoisingState":
        """Return the same state at the start of another noise stream, e.g. a member's own after step K."""
        return replace(self, noise_seed=noise_seed, draw_count=0, own_stream=True)

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


def initial_state(
    pipe: Pipeline,
    plan: DenoisingPlan,
    seed: int,
    batch: int = 1,
    conditioning: Mapping[str, Any] | None = None,
) -> DenoisingState:
    """Return the state at step 0, with the initial noise of the stock pipeline.

    The noise is that of `pipe(..., generator=torch.Generator().manual_seed(seed))`. For a negative seed, see
    `noise_generator`. The generator is on the CPU, so a seed gives the same noise on every machine.

    Args:
        pipe: The pipeline that prepares the latents.
        plan: The plan of the run.
        seed: The noise seed.
        batch: Number of images b. All are drawn at once, as the stock pipeline does with one generator.
        conditioning: The arguments of the call, for a pipeline that needs more than a prompt. None: b empty
            prompts.

    Raises:
        UserError: If the pipeline does not compute in the plan's dtype, or if it refuses the call.
    """
    _check_dtype(pipe, plan)
    latents = initial_noise(pipe, plan, seed, batch, conditioning)
    return DenoisingState(0, latents, {}, seed, 1, plan.fingerprint())


def latents_shape(
    pipe: Pipeline, plan: DenoisingPlan, conditioning: Mapping[str, Any] | None = None
) -> tuple[int, ...]:
    """Return the shape of one image's latents, (1, c, h, w) or (1, tokens, c).

    Packets of the plan must have this shape.

    Args:
        pipe: The pipeline that prepares the latents.
        plan: The plan of the run.
        conditioning: As in `initial_state`.

    Raises:
        UserError: If the pipeline refuses the call.
    """
    return tuple(initial_noise(pipe, plan, 0, 1, conditioning).shape)


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
    loop, scheduler, _ = _run_steps(pipe, state, conditioning, plan, stop, progress, "latent")
    assert loop.last is not None
    return replace(
        state,
        step=stop,
        latents=loop.last,
        history=read_history(scheduler),
        draw_count=state.draw_count + loop.draws,
    )


def finish_segment(
    pipe: Pipeline,
    state: DenoisingState,
    conditioning: Mapping[str, Any],
    plan: DenoisingPlan,
    progress: Callable[[int], None] | None = None,
) -> list[Any]:
    """Run all remaining steps and return the b images, or videos as lists of frames, in a single pipeline call.

    The images equal those of `decode(run_segment(...))` byte for byte, without its second call, which costs a
    text encoding. A state without remaining steps is decoded. Arguments and errors are those of
    `run_segment`.
    """
    check_run(pipe, state, conditioning, plan, plan.num_steps)
    if state.step == plan.num_steps:
        return decode(pipe, state, plan, conditioning)
    return list(_run_steps(pipe, state, conditioning, plan, plan.num_steps, progress, "pil")[2])


def first_model_output(
    pipe: Pipeline, state: DenoisingState, conditioning: Mapping[str, Any], plan: DenoisingPlan
) -> Any:
    """Run one step, and return what the pipeline hands to it after guidance. Errors are those of `run_segment`."""
    check_run(pipe, state, conditioning, plan, state.step + 1)
    return _run_steps(pipe, state, conditioning, plan, state.step + 1, None, "latent")[0].answer


def outputs_from(
    pipe: Pipeline,
    state: DenoisingState,
    conditioning: Mapping[str, Any],
    plan: DenoisingPlan,
    output_type: str = "latent",
) -> Any:
    """Run all remaining steps, at least one, and return what the pipeline's call returns for `output_type`.

    Arguments and errors are those of `run_segment`.
    """
    check_run(pipe, state, conditioning, plan, plan.num_steps)
    return _run_steps(pipe, state, conditioning, plan, plan.num_steps, None, output_type)[2]


def decode(
    pipe: Pipeline,
    state: DenoisingState | Float[Tensor, "b *latent"],
    plan: DenoisingPlan,
    conditioning: Mapping[str, Any] | None = None,
) -> list[Any]:
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
    else:
        state = DenoisingState(plan.num_steps, state, {}, None, 0, plan.fingerprint())
    given = {"prompt": [""] * state.latents.shape[0]} if conditioning is None else conditioning
    check_finite(pipe, state.latents, "latents")
    end = replace(state, step=plan.num_steps, history={})
    # without guidance the negative prompt is not encoded, and nothing is denoised here
    return list(_run(pipe, end, given, plan, plan.num_steps, None, "pil", guidance_scale=1.0)[2])


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
        raise UserError(
            f"conditioning for {counted(batch_size(conditioning), 'image')}, but latents of {batch}"
        )
    check_true_guidance(pipe, {**plan.call, **conditioning}, plan.negative_prompt)
    whole = state.step == 0 and stop == plan.num_steps
    keeps = kept_between_steps(pipe) if state.step < stop and not whole else None
    if keeps is not None:
        raise UserError(f"{type(pipe).__name__} cannot be divided: {keeps}")
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
) -> tuple[Loop, Any, Any]:
    """Run steps [state.step, stop), at least one.

    Returns the loop, the scheduler after the steps, and latents or images.
    """
    loop, scheduler, output = _run(pipe, state, conditioning, plan, stop, progress, output_type)
    keeps = kept_values(pipe) if stop < plan.num_steps or state.step > 0 else None
    if keeps is not None:
        raise UserError(f"{type(pipe).__name__} cannot be divided: {keeps}")
    if loop.last is None or loop.position != plan.num_steps:
        raise UserError(
            f"{type(pipe).__name__} took {counted(loop.position, 'step')} of {plan.num_steps}: it cannot be split"
        )
    if state.noise_seed is None and loop.draws:
        raise UserError(
            f"{plan.scheduler_class} draws noise in its steps, and the packet holds no noise stream: pack it with "
            "noise_stream=True, if both halves are a run of your own, or continue with noise of your own, "
            "as `fa.unpack(pipe, plan, packet, noise_seed=7)`"
        )
    check_finite(pipe, loop.last, "latents")
    return loop, scheduler, output


def _run(
    pipe: Pipeline,
    state: DenoisingState,
    conditioning: Mapping[str, Any],
    plan: DenoisingPlan,
    stop: int,
    progress: Callable[[int], None] | None,
    output_type: str,
    **other: Any,
) -> tuple[Loop, Any, Any]:
    """Call the pipeline once, computing steps [state.step, stop).

    Returns the loop, the scheduler afterwards, and the first output.
    """
    check_finite(pipe, state.latents, "latents")
    call = call_arguments(pipe, conditioning, **(plan.call | other))
    # without a stream the scheduler must draw nothing, and this generator shows whether it did
    generator = noise_generator(state.noise_seed if state.noise_seed is not None else 0)

    def on_start(latents: Tensor, set_up: Tensor | None) -> None:
        if not equal(latents, state.latents):
            raise UserError(
                f"{type(pipe).__name__} cannot start at step {state.step} from latents of shape "
                f"{tuple(state.latents.shape)} and type {state.latents.dtype}: it starts from other noise of shape "
                f"{tuple(latents.shape)} and type {latents.dtype}"
            )
        if state.noise_seed is not None and set_up is not None:
            # the stream of a member, which begins at its seed, has drawn nothing before its steps
            begins_here = state.own_stream or state.draw_count == 0
            begin = noise_generator(state.noise_seed).get_state() if begins_here else set_up
            seek(generator, begin, state.draw_count - (0 if begins_here else 1), latents)

    window = Window(
        plan, state.step, stop, state.history, state.latents, generator, on_start=on_start, progress=progress
    )
    scheduler, loop = windowed_scheduler(pipe, window)
    prepare = None
    if state.step == 0 and prepares_start(pipe, lambda: observe_plan(pipe, plan, conditioning)):

        def prepare(stock: Prepare, request: Request) -> Any:
            result = stock(*request[0], **request[1])
            prepared = first_tensor(result)
            same = prepared.shape == state.latents.shape
            latents = laid_out(state.latents, prepared) if same else state.latents.to(prepared.device)
            return with_first_tensor(result, latents)

    with finite_pictures(pipe):
        output = run_call(
            pipe,
            {**call, "generator": generator, "output_type": output_type},
            scheduler,
            loop,
            prepare,
        )
    return loop, scheduler, output[0]


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
