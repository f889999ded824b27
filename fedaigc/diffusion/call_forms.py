"""What is observed of a pipeline's call for training: the form of its text, and the layout of its latents."""

import inspect
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils import _pytree as pytree

from fedaigc.diffusion.sampling.loop import Loop, in_loop
from fedaigc.diffusion.sampling.observed_call import run_call
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, call_arguments, execution_device
from fedaigc.diffusion.schedule.noise_level import is_flow
from fedaigc.errors import UserError
from fedaigc.rng import noise_generator

_STEPS = 4
_DIGITS = 16
_PROBED_SIDES = (64, 128, 256)


class Enough(Exception):
    """What was to be observed of a call has happened."""


@dataclass(frozen=True, eq=False)
class LatentsForm:
    """How the running latents of a size lie in the autoencoder's.

    Attributes:
        shape: Shape of the running latents of one image.
        decoded: Shape of the autoencoder's latents of one image.
        places: For each value of the autoencoder's latents, its place in the running ones.
        shift: Shift of the autoencoder's latents, in their shape.
        scale: Scale of the autoencoder's latents, in their shape.
    """

    shape: tuple[int, ...]
    decoded: tuple[int, ...]
    places: Tensor
    shift: Tensor
    scale: Tensor

    def running(self, latents: Tensor) -> Tensor:
        """Return latents [c, h, w] of one image as the pipeline has them in its loop."""
        found = latents.new_empty(latents.numel())
        found[self.places.to(latents.device)] = latents.flatten()
        return found.view(self.shape)

    def image(self, running: Tensor) -> Tensor:
        """Return what the pipeline has in its loop as latents [c, h, w]."""
        return running.flatten()[self.places.to(running.device)].view(self.decoded).squeeze(0).squeeze(1)


@dataclass(frozen=True, eq=False)
class TextForm:
    """What stands for a caption: a result of `encode_prompt`, or arguments of the call.

    Attributes:
        leaves: Its tensors and other values; those of a caption replace the tensors.
        structure: What they are parts of.
        encoded: Whether `encode_prompt` returned it.
    """

    leaves: tuple[Any, ...]
    structure: Any
    encoded: bool


_forms: "WeakKeyDictionary[Pipeline, dict[tuple[int, int], LatentsForm]]" = WeakKeyDictionary()
_ratios: "WeakKeyDictionary[Pipeline, int]" = WeakKeyDictionary()
# by pipeline: what stood for the prompt that was observed last
texts: "WeakKeyDictionary[Pipeline, TextForm]" = WeakKeyDictionary()
# by pipeline: the guidance scale that stands for none, 0 where pipelines guide above it (Z-Image)
scales: "WeakKeyDictionary[Pipeline, float]" = WeakKeyDictionary()


def observed_text(pipe: Pipeline, conditioning: Mapping[str, Any]) -> TextForm:
    """Return what stands for a prompt in a call, which ends before its steps.

    Args:
        pipe: The pipeline.
        conditioning: The arguments of the call that stand for a prompt.

    Raises:
        UserError: If the pipeline refuses the call, or has no `encode_prompt`.
    """
    if not hasattr(pipe, "encode_prompt"):
        raise refused(pipe, "it has no encode_prompt")
    results: list[Any] = []
    stock = pipe.encode_prompt

    def encode(*arguments: Any, **options: Any) -> Any:
        results.append(stock(*arguments, **options))
        return results[-1]

    def end(*_: Any) -> None:
        loop.interruption = Enough()
        raise loop.interruption

    # prompts are encoded before the timesteps are set, by some pipelines in several calls (HunyuanDiT)
    loop, side = Loop(0, 0, generator=noise_generator(0), on_timesteps=end), _PROBED_SIDES[0]
    with _replaced(pipe, "encode_prompt", encode):
        run_until_enough(pipe, conditioning, side, side, _looped(pipe, loop), loop)
    leaves, structure = pytree.tree_flatten(results or dict(conditioning))
    return TextForm(tuple(leaves), structure, bool(results))


def some_text(pipe: Pipeline) -> TextForm:
    """Return what stood for the last prompt that was observed, or for the empty one."""
    if pipe not in texts:
        texts[pipe] = observed_text(pipe, {"prompt": ""})
    return texts[pipe]


def form_of_encoded(pipe: Pipeline, raw: Tensor, height: int, width: int) -> LatentsForm:
    """Return how the latents of an image of this size lie in the autoencoder's."""
    found, size = _forms.setdefault(pipe, {}), (raw.shape[-2], raw.shape[-1])
    if size not in found:
        form = observed_latents(pipe, height, width)
        if form.decoded[-2:] != size:
            # its call takes sizes in another unit than its autoencoder
            form = observed_latents(pipe, *call_size(pipe, *size))
        if form.shift.numel() != raw.numel():
            raise refused(pipe, f"it draws no pictures of {height} x {width} pixels")
        found[size] = form
    return found[size]


def latents_form(pipe: Pipeline, rows: int, columns: int) -> LatentsForm:
    """Return how latents of this size lie in the autoencoder's, observed once."""
    found = _forms.setdefault(pipe, {})
    if (rows, columns) not in found:
        with torch.no_grad():
            found[rows, columns] = observed_latents(pipe, *call_size(pipe, rows, columns))
    return found[rows, columns]


def observed_latents(pipe: Pipeline, height: int, width: int) -> LatentsForm:
    first, loop = _decoded(pipe, height, width)
    running, steps = loop.first, loop.position
    assert running is not None

    def decoded(latents: Tensor) -> Tensor:
        return _decoded(pipe, height, width, latents, steps)[0]

    zero = decoded(torch.zeros_like(running))
    scale = decoded(torch.ones_like(running)) - zero
    if scale.numel() != running.numel() or (scale.dim() == 5 and scale.shape[2] != 1):
        raise refused(pipe, f"its latents {tuple(running.shape)} are no image of its autoencoder's")
    places, index = torch.zeros(scale.numel(), dtype=torch.long), torch.arange(running.numel())
    for power in range(max(1, math.ceil(math.log(running.numel(), _DIGITS)))):
        digits = (index // _DIGITS**power % _DIGITS).view(running.shape).to(running)
        values = (decoded(digits) - zero) / scale
        places += values.round().nan_to_num().long().flatten() * _DIGITS**power
    if not torch.equal(places.sort().values, index):
        raise refused(pipe, "its latents are no rearrangement of its autoencoder's")
    return LatentsForm(tuple(running.shape), tuple(first.shape), places, zero, scale)


def _decoded(
    pipe: Pipeline, height: int, width: int, latents: Tensor | None = None, steps: int = 0
) -> tuple[Tensor, Loop]:
    """Return what the autoencoder decodes after a call whose steps end with these latents, and the call's loop."""
    if getattr(pipe, "vae", None) is None:
        raise refused(pipe, "it has no `vae`")
    told = some_text(pipe)
    loop = Loop(
        steps, steps, latents, noise_generator(0), on_timesteps=lambda each, *_: _check_times(pipe, each)
    )
    inputs: list[Tensor] = []

    def decode(latents: Tensor, *_: Any, **__: Any) -> Any:
        inputs.append(latents)
        loop.interruption = Enough()
        raise loop.interruption

    with _replaced(pipe.vae, "decode", decode), told_text(pipe, told, told.leaves) as conditioning:
        run_until_enough(pipe, conditioning, height, width, _looped(pipe, loop), loop, output_type="pil")
    if not inputs:
        raise refused(pipe, "it does not decode its latents by `vae.decode`")
    return inputs[0].float().cpu(), loop


def _check_times(pipe: Pipeline, scheduler: Any) -> None:
    """Refuse a flow whose denoiser is told other times than the noise levels of its latents (CogView4)."""
    if not is_flow(scheduler):
        return
    times, sigmas = scheduler.timesteps.double().cpu(), torch.as_tensor(scheduler.sigmas).double().cpu()
    whole = scheduler.config.get("num_train_timesteps", 1000)
    if float((times - whole * sigmas[: len(times)]).abs().max()) > 1:
        raise refused(pipe, "its denoiser is told other times than the noise levels of its latents")


def call_size(pipe: Pipeline, rows: int, columns: int) -> tuple[int, int]:
    """Return height and width in pixels of the call for latents of this size."""
    if pipe not in _ratios:
        refusal = None
        for side in _PROBED_SIDES:
            try:
                _ratios[pipe] = side // _decoded(pipe, side, side)[0].shape[-1]
                break
            except UserError as error:  # perhaps too small for the pipeline
                refusal = refusal or error
        else:
            assert refusal is not None
            raise refusal
    return rows * _ratios[pipe], columns * _ratios[pipe]


@torch.no_grad()
def encode_picture(pipe: Pipeline, pixels: Float[Tensor, "3 h w"]) -> Tensor:
    """Return the autoencoder's own latents of an image; one for videos encodes it as a single frame."""
    placed = pixels.to(execution_device(pipe), pipe.vae.dtype)[None]
    try:
        encoded = pipe.vae.encode(placed)
    except (ValueError, RuntimeError, IndexError):
        try:
            encoded = pipe.vae.encode(placed[:, :, None])
        except (ValueError, RuntimeError, IndexError) as error:
            raise refused(pipe, f"its autoencoder refuses pictures: {error}") from error
    for name in ("latents", "latent"):
        if hasattr(encoded, name):
            return getattr(encoded, name)
    return encoded.latent_dist.mode()


def _looped(pipe: Pipeline, loop: Loop) -> Any:
    return in_loop(type(pipe.scheduler).from_config(pipe.scheduler.config), loop)


def run_until_enough(
    pipe: Pipeline,
    conditioning: Mapping[str, Any],
    height: int,
    width: int,
    scheduler: Any,
    loop: Loop,
    output_type: str = "latent",
    gradients: bool = False,
) -> None:
    """Make a call without guidance, up to its end or until enough was observed.

    Args:
        pipe: The pipeline.
        conditioning: The arguments of the call that stand for a prompt.
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        scheduler: The scheduler (see `in_loop`).
        loop: Its loop.
        output_type: "latent", or "pil" for a call that decodes.
        gradients: As of `run_call`.

    Raises:
        UserError: If the pipeline refuses the call.
    """
    options: Any = {"negative_prompt": "", "height": height, "width": width}
    scale = scales.get(pipe, 1.0)
    call = call_arguments(pipe, conditioning, num_inference_steps=_STEPS, guidance_scale=scale, **options)
    known = inspect.signature(type(pipe).__call__).parameters
    if "use_resolution_binning" in known:
        call["use_resolution_binning"] = False
    if "pag_scale" in known:
        call["pag_scale"] = 0.0
    call |= {"generator": loop.generator, "output_type": output_type}
    try:
        run_call(pipe, call, scheduler, loop, gradients=gradients)
    except Enough:
        pass
    except UserError as error:
        if error is loop.interruption:
            raise
        raise refused(pipe, str(error)) from error


@contextmanager
def told_text(pipe: Pipeline, told: TextForm, leaves: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """Within the context, the pipeline finds this text for a prompt. Yields the arguments of its call."""
    text = pytree.tree_unflatten(list(leaves), told.structure)
    if not told.encoded:
        yield text
        return
    results = iter(text)
    with _replaced(pipe, "encode_prompt", lambda *_, **__: next(results)):
        yield {"prompt": ""}


@contextmanager
def _replaced(owner: Any, name: str, method: Callable[..., Any]) -> Iterator[None]:
    own = owner.__dict__
    before = own.get(name)
    own[name] = method
    try:
        yield
    finally:
        del own[name]
        if before is not None:
            own[name] = before


def refused(pipe: Pipeline, reason: str) -> UserError:
    head = f"{type(pipe).__name__} can sample but not train here: "
    return UserError(reason if reason.startswith(head) else head + reason)
