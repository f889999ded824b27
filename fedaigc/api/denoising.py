"""A denoising run that any machine can interrupt and another one continue, bit for bit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image

from fedaigc.diffusion.adapters.bare import bare_fingerprint, installed_adapters, make_bare
from fedaigc.diffusion.adapters.stages import SharedState, Stage, finish_stages, run_stages
from fedaigc.diffusion.handoff import packing
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.segment import DenoisingState, decode, initial_state, latents_shape
from fedaigc.diffusion.schedule.model_settings import model_settings
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import UserError
from fedaigc.wireless.number_format import FormatName
from fedaigc.wireless.repair import Repair

Prompt = str | Mapping[str, Any]


def plan(
    pipe: Pipeline,
    *,
    num_inference_steps: int = 11,
    guidance_scale: float = 5.0,
    height: int | None = None,
    width: int | None = None,
    negative_prompt: str = "",
    shared: SharedState | None = None,
    base_hash: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    conditioning: Mapping[str, Any] | None = None,
) -> DenoisingPlan:
    """Return the plan of a pipeline call, on which two machines must agree before they divide it.

    Example:
        >>> import fedaigc as fa
        >>> pipe = fa.load_pipeline()
        >>> fa.plan(pipe, num_inference_steps=4).num_steps
        4

    Args:
        pipe: A diffusers text-to-image pipeline.
        num_inference_steps: The argument of the pipeline call.
        guidance_scale: The argument of the pipeline call.
        height: Height of the image in pixels; default: the pipeline's own.
        width: Width of the image in pixels; default: the pipeline's own.
        negative_prompt: The argument of the pipeline call.
        shared: Shared state that is installed in the pipeline; None: its weights as they came.
        base_hash: `base_fingerprint` of the pipeline without adapters; default: that of `shared`, or taken now.
        arguments: Further arguments of the pipeline call that all machines share: `true_cfg_scale`, `num_frames`,
            `timesteps` or `sigmas` of a distilled schedule, ...
        conditioning: Arguments that stand for the prompt here, for a pipeline that needs more than a prompt (a
            control image, a mask, embeddings). They are no part of the plan; default: the empty prompt.

    Raises:
        UserError: As `build_plan`; or the pipeline has adapters, and neither `shared` nor `base_hash` is given.
    """
    if base_hash is None and shared is None:
        base_hash = bare_fingerprint(pipe)
    side = default_side(pipe)
    return build_plan(
        pipe,
        num_inference_steps=num_inference_steps,
        guidance_scale=guidance_scale,
        height=side if height is None else height,
        width=side if width is None else width,
        negative_prompt=negative_prompt,
        base_hash=base_hash if base_hash is not None else shared.base_hash if shared is not None else "",
        shared_hash="" if shared is None else shared.hash(),
        boundary_log_snr=None if shared is None else shared.boundary_log_snr,
        arguments=arguments,
        conditioning=conditioning,
    )


@dataclass(frozen=True, eq=False)
class Denoising:
    """A denoising run before one of its steps. No method changes it: each step is another object.

    Attributes:
        pipe: The pipeline.
        plan: The plan of the run.
        state: Latents and whatever else the next step needs.
    """

    pipe: Pipeline
    plan: DenoisingPlan
    state: DenoisingState

    def __repr__(self) -> str:
        shape = tuple(self.state.latents.shape)
        return f"<Denoising at step {self.step} of {self.plan.num_steps}, {self.plan.scheduler_class}, latents {shape}>"

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self.state.step

    def run(self, prompt: Prompt, until: int) -> "Denoising":
        """Run the steps up to `until`.

        Args:
            prompt: The prompt, or keyword arguments of the pipeline call such as {"prompt_embeds": ...}.
            until: Step to stop before.

        Raises:
            UserError: If `until` lies before this step or past the end of the plan.
        """
        state = run_stages(self.pipe, self.state, _conditioning(prompt), self.plan, until)
        return Denoising(self.pipe, self.plan, state)

    def finish(self, prompt: Prompt) -> Image.Image:
        """Run all remaining steps and return the image.

        Args:
            prompt: As in `run`.
        """
        (image,) = finish_stages(self.pipe, self.state, _conditioning(prompt), self.plan)
        return image

    def preview(self) -> Image.Image:
        """Return the latents of this step, decoded: a noisy image unless the run is finished."""
        (image,) = decode(self.pipe, self.state, self.plan)
        return image

    def pack(
        self,
        *,
        handoff: packing.Handoff = "exact",
        number_format: FormatName | None = None,
        noise_stream: bool = False,
    ) -> bytes:
        """Return the packet from which another machine continues.

        Args:
            handoff: "exact" with the scheduler's internal state, or "latents" without it.
            number_format: Number format of the latents; None: bit for bit as computed.
            noise_stream: Whether to send the seed of the noise too. A scheduler that draws noise in its steps
                (Euler ancestral, DDPM, LCM) then continues as the undivided run would. The seed reveals the
                initial noise and, with it, the prompt of the steps that were run: for a run of your own only.

        Raises:
            UserError: If the run cannot be handed over before this step.
        """
        # a packet for the air has none, whose bits count
        settings = model_settings(self.pipe) if number_format is None else None
        return packing.pack(
            self.state, self.plan, handoff, number_format, settings=settings, noise_stream=noise_stream
        )


def start(
    pipe: Pipeline, plan: DenoisingPlan, *, seed: int = 0, conditioning: Mapping[str, Any] | None = None
) -> Denoising:
    """Return a run before its first step, with the initial noise of `pipe(..., generator=seed)`.

    Example:
        >>> import fedaigc as fa
        >>> pipe = fa.load_pipeline()
        >>> plan = fa.plan(pipe, num_inference_steps=4)
        >>> packet = fa.start(pipe, plan, seed=1).run("a fruit on a table", until=2).pack()
        >>> fa.unpack(pipe, plan, packet).finish("an apple on a table").size
        (64, 64)

    Args:
        pipe: The pipeline.
        plan: The plan of the run.
        seed: Seed of the noise.
        conditioning: As in `plan`.
    """
    _check_own(pipe)
    return Denoising(pipe, plan, initial_state(pipe, plan, seed, conditioning=conditioning))


def unpack(
    pipe: Pipeline,
    plan: DenoisingPlan,
    packet: bytes,
    *,
    delivery: packing.Delivery = "strict",
    repair: Repair = "clip",
    noise_seed: int | None = None,
    conditioning: Mapping[str, Any] | None = None,
) -> Denoising:
    """Return the run that a packet holds, before its next step.

    Example:
        >>> import fedaigc as fa
        >>> pipe = fa.load_pipeline()
        >>> plan = fa.plan(pipe, num_inference_steps=4)
        >>> packet = fa.start(pipe, plan, seed=1).run("a fruit on a table", until=2).pack()
        >>> fa.unpack(pipe, plan, packet).finish("an apple on a table").size
        (64, 64)

    Args:
        pipe: The pipeline of this machine.
        plan: The plan of the run, made on this machine.
        packet: Result of `Denoising.pack`.
        delivery: "strict", or "tolerant": the latents may carry bit errors.
        repair: What tolerant delivery does with implausible values: "clip" or "zero" them, or "nothing".
        noise_seed: Seed of a noise stream of one's own for the steps that are left, for a scheduler that draws noise
            in its steps. None: the stream of the packet, if it was packed with `noise_stream=True`.
        conditioning: As in `plan`.

    Raises:
        PacketError: If the packet is damaged, belongs to another plan or another model, or is of a machine whose model
            has other settings (configs, tokenizers, FreeU, a LoRA of the text encoder).
    """
    _check_own(pipe)
    state = packing.unpack(packet, plan, delivery, latents_shape(pipe, plan, conditioning))
    packing.check_settings(packet, model_settings(pipe))
    if delivery == "tolerant":
        state = packing.mended(state, plan, repair)
    if noise_seed is not None:
        state = state.with_noise_stream(noise_seed)
    return Denoising(pipe, plan, state)


def _check_own(pipe: Pipeline) -> None:
    foreign = [
        name for name in installed_adapters(pipe) if name not in (Stage.SHARED.value, Stage.PERSONAL.value)
    ]
    if foreign:
        raise UserError(
            f"the pipeline has the LoRA {', '.join(foreign)}, which the stages would switch off: merge it with "
            "`pipe.fuse_lora(); pipe.unload_lora_weights()`, or unload it"
        )


def remove(pipe: Pipeline) -> None:
    """Take the shared and the personal adapter out of a pipeline; its weights are then those that it came with.

    Example:
        >>> import fedaigc as fa
        >>> pipe = fa.load_pipeline()
        >>> fa.remove(pipe)  # nothing to do: no adapter was installed
    """
    make_bare(pipe)


def default_side(pipe: Pipeline) -> int:
    """Return the side of the images that a pipeline draws by default, in pixels."""
    network: Any = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    factor = int(getattr(pipe, "vae_scale_factor", 8))
    return int(getattr(pipe, "default_sample_size", None) or network.config.sample_size) * factor


def _conditioning(prompt: Prompt) -> Mapping[str, Any]:
    return {"prompt": prompt} if isinstance(prompt, str) else prompt
