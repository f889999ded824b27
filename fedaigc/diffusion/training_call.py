"""Train the transformer of any pipeline through the pipeline's own call, without knowing how it calls it.

What differs between pipelines is observed in calls whose steps are skipped:

    text        what the pipeline's own `encode_prompt` returns for a caption; it is returned again in training
    latents     which value of the running latents is which value of the autoencoder's, and its shift and scale, from
                the autoencoder's input for latents of zeros, of ones and of digits of their index
    a step      one step of the call, at any noise level and with gradients, up to what the scheduler receives

So packing, ids, signs and scales of the timestep are the pipeline's own. Guidance is off. The images of a batch run one
after the other, since a call has one timestep.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from fedaigc.diffusion.call_forms import (
    Enough,
    LatentsForm,
    call_size,
    encode_picture,
    form_of_encoded,
    latents_form,
    observed_text,
    refused,
    run_until_enough,
    scales,
    some_text,
    texts,
    told_text,
)
from fedaigc.diffusion.sampling.count import DenoiserCount
from fedaigc.diffusion.sampling.loop import Loop, in_loop
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.rng import noise_generator

# transformers whose calls `fedaigc.diffusion.denoiser_call` makes itself, all images of a batch at once
_CALLED_DIRECTLY = ("SD3Transformer2DModel", "FluxTransformer2DModel")
_TEXT = "call."


def trains_by_call(pipe: Pipeline) -> bool:
    """Return whether a pipeline has a transformer that is trained through the pipeline's call."""
    network = getattr(pipe, "transformer", None)
    own = isinstance(network, nn.Module) and type(network).__name__ not in _CALLED_DIRECTLY
    return own and getattr(pipe, "unet", None) is None


@torch.no_grad()
def latents_by_call(pipe: Pipeline, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c i j"]:
    """Return the latents of pixels, of unit scale, in the layout of the autoencoder.

    Raises:
        UserError: If the pipeline cannot be trained through its call.
    """
    found = []
    for each in pixels:
        raw = encode_picture(pipe, each)
        form = form_of_encoded(pipe, raw, each.shape[-2], each.shape[-1])
        whole = (raw.float().cpu().view(form.decoded) - form.shift) / form.scale
        found.append(whole.squeeze(0).squeeze(1))
    return torch.stack(found)


@torch.no_grad()
def text_by_call(pipe: Pipeline, captions: Sequence[str | Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return what stands for captions in the call, on the CPU: one row each, with zeros where a row is shorter.

    Args:
        pipe: The pipeline.
        captions: Captions, or the arguments of the call that stand for them.

    Raises:
        UserError: If the pipeline needs more than a prompt.
    """
    rows = []
    for caption in captions:
        told = observed_text(pipe, {"prompt": caption} if isinstance(caption, str) else caption)
        texts[pipe] = told
        row: dict[str, Tensor] = {}
        for place, leaf in enumerate(told.leaves):
            if isinstance(leaf, Tensor):
                row[f"{_TEXT}{place}"] = leaf.detach().cpu()[None]
                row[f"{_TEXT}{place}.shape"] = torch.tensor([leaf.shape])
        rows.append(row)
    return joined_rows(rows)


def joined_rows(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Return the rows of several parts under the same names, with zeros where those of one part are shorter."""
    found = {}
    for name in parts[0]:
        tensors = [part[name] for part in parts]
        sides = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
        found[name] = torch.cat([_padded(tensor, sides) for tensor in tensors])
    return found


def _padded(tensor: Tensor, sides: Sequence[int]) -> Tensor:
    if list(tensor.shape[1:]) == list(sides):
        return tensor
    whole = tensor.new_zeros(len(tensor), *sides)
    whole[tuple(slice(0, side) for side in tensor.shape)] = tensor
    return whole


def predict_by_call(
    pipe: Pipeline,
    noisy: Float[Tensor, "b c h w"],
    timesteps: Float[Tensor, " b"],
    text: Mapping[str, Tensor],
) -> Float[Tensor, "b c h w"]:
    """Return what the scheduler receives for noisy latents, with gradients where they are enabled.

    Args:
        pipe: The pipeline.
        noisy: Noisy latents in the layout of the autoencoder.
        timesteps: Training timesteps.
        text: Rows of `text_by_call`.

    Raises:
        UserError: If the pipeline cannot be trained through its call.
    """
    form, answers = latents_form(pipe, noisy.shape[-2], noisy.shape[-1]), []
    for row in range(len(noisy)):
        leaves = list(some_text(pipe).leaves)
        for name in text:
            if not name.endswith(".shape"):
                sides = text[f"{name}.shape"][row].long().tolist()
                leaves[int(name.removeprefix(_TEXT))] = text[name][row][tuple(map(slice, sides))]
        answer = _answered(pipe, form, noisy[row], float(timesteps[row]), leaves)
        answers.append(form.image(answer))
    return torch.stack(answers)


def _answered(
    pipe: Pipeline, form: LatentsForm, noisy: Tensor, timestep: float, leaves: Sequence[Any]
) -> Tensor:
    """Return what the scheduler receives in one step of the call."""
    told, wanted = texts[pipe], torch.is_grad_enabled()
    height, width = call_size(pipe, noisy.shape[-2], noisy.shape[-1])
    answers: list[Tensor] = []

    def at(scheduler: Any, *_: Any) -> None:
        scheduler.timesteps = torch.full_like(scheduler.timesteps, timestep)

    def begin(*_: Any) -> None:
        # the steps before are skipped, and the text is encoded already
        count.calls = count.samples = 0
        torch.set_grad_enabled(wanted)

    loop = Loop(1, 2, form.running(noisy), noise_generator(0), on_timesteps=at, on_start=begin)
    scheduler = in_loop(type(pipe.scheduler).from_config(pipe.scheduler.config), loop)
    skipped = scheduler.step

    def step(model_output: Any, *arguments: Any, **options: Any) -> Any:
        if not loop.computes:
            return skipped(model_output, *arguments, **options)
        answers.append(model_output)
        loop.interruption = Enough()
        raise loop.interruption

    scheduler.__dict__["step"] = step
    if hasattr(scheduler, "scale_model_input"):
        # noisy latents are what the denoiser is trained on
        scheduler.__dict__["scale_model_input"] = lambda sample, *_, **__: sample
    with DenoiserCount(pipe) as count, told_text(pipe, told, leaves) as conditioning:
        run_until_enough(pipe, conditioning, height, width, scheduler, loop, gradients=True)
    if (count.calls, count.samples) != (1, 1):
        if scales.setdefault(pipe, 1.0):
            scales[pipe] = 0.0
            return _answered(pipe, form, noisy, timestep, leaves)
        raise refused(pipe, f"a step without guidance evaluates its denoiser {count.samples} times")
    (answer,) = answers
    if tuple(answer.shape) != form.shape:
        raise refused(pipe, f"its scheduler receives {tuple(answer.shape)} for latents {form.shape}")
    return answer
