"""Encode images and captions for the training of a denoiser.

What `encode_prompt` returns differs between pipelines. This module knows Stable Diffusion 1 and 2, SDXL, SD3 and FLUX,
and leaves other transformers to `fedaigc.diffusion.training_call`.
"""

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from fedaigc.data.pictures.buckets import bucket_sizes, nearest_bucket
from fedaigc.data.pictures.rgb import fitted, rgb
from fedaigc.diffusion.denoiser_call import predict as predict
from fedaigc.diffusion.sampling.pipeline_call import execution_device
from fedaigc.diffusion.training_call import joined_rows, latents_by_call, text_by_call, trains_by_call
from fedaigc.errors import NotFinite, UserError

if TYPE_CHECKING:
    from PIL.Image import Image

_ENCODING_BATCH = 16

# DiffusionPipeline declares none of the attributes that its subclasses share
Pipeline = Any


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """Latents and text embeddings of n captioned images, computed once and kept on the device.

    Attributes:
        latents: Latents of shape [n, c, h, w], scaled as the denoiser expects them. With `sizes`, an image has the
            first rows and columns of its latents, and zeros fill the rest.
        text: Maps "prompt_embeds", and "pooled_prompt_embeds" if the pipeline has them, to tensors of n rows.
        empty_text: The embedding of the empty prompt: the same names, with one row each.
        choices: Of images with several captions: shape [n, 2], the first row of each image in `text` and the number
            of its rows. None: row k belongs to image k.
        sizes: Of images in several aspect buckets: shape [n, 2], rows and columns of the latents of each image. None:
            all have the shape of `latents`.
    """

    latents: Float[Tensor, "n c h w"]
    text: Mapping[str, Tensor]
    empty_text: Mapping[str, Tensor]
    choices: Int[Tensor, "n 2"] | None = None
    sizes: Int[Tensor, "n 2"] | None = None

    def __len__(self) -> int:
        return self.latents.shape[0]

    def rows(self, chosen: Tensor) -> "EncodedImages":
        """Return the images with these indices, in this order."""
        latents, sizes = self.latents[chosen], None if self.sizes is None else self.sizes[chosen]
        if self.choices is not None:
            return EncodedImages(latents, self.text, self.empty_text, self.choices[chosen], sizes)
        text = {name: tensor[chosen] for name, tensor in self.text.items()}
        return EncodedImages(latents, text, self.empty_text, sizes=sizes)

    def drawn_batch(self, size: int, generator: torch.Generator) -> Int[Tensor, " size"]:
        """Return the rows of a batch, drawn with replacement; every image is as likely as any other.

        All images of a batch have one size: that of the first image drawn.
        """
        rows = torch.randint(len(self), (size,), generator=generator)
        if self.sizes is None:
            return rows
        alike = self._alike(self.sizes[rows[0]])
        return alike[torch.randint(len(alike), (size,), generator=generator)]

    def batches(self, size: int, times: int = 1) -> Iterator[Int[Tensor, " b"]]:
        """Yield the rows of all images, each `times` times, in batches of images of one size."""
        if self.sizes is None:
            yield from torch.arange(len(self)).repeat(times).split(size)
            return
        for bucket in self.sizes.unique(dim=0):
            yield from self._alike(bucket).repeat(times).split(size)

    def latents_of(self, rows: Int[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
        """Return the latents of images of one size, such as those of a batch."""
        if self.sizes is None:
            return self.latents[rows]
        height, width = self.sizes[rows[0]].tolist()
        return self.latents[rows, :, :height, :width]

    def _alike(self, size: Int[Tensor, " 2"]) -> Int[Tensor, " m"]:
        assert self.sizes is not None
        return (self.sizes == size).all(1).nonzero().flatten()

    def is_finite(self) -> bool:
        """Return whether all latents and embeddings are finite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.tensors().values())

    def check_finite(self, what: str) -> None:
        """Check that all latents and embeddings are finite.

        Args:
            what: The model that computed them, for the message.

        Raises:
            NotFinite: If one is not.
        """
        for name, tensor in self.tensors().items():
            if not bool(tensor.isfinite().all()):
                raise NotFinite(
                    f"{what}: {name} of the pictures' encoding holds values that are not finite; load the model in "
                    "float32 or bfloat16 (`dtype` under `[model]`)"
                )

    @classmethod
    def joined(cls, parts: "Sequence[EncodedImages]") -> "EncodedImages":
        """Return images of one caption each, which were encoded in parts, as one."""
        # rows of all parts and of the empty caption have one length
        text = joined_rows([*(part.text for part in parts), parts[0].empty_text])
        empty = {name: rows[-1:] for name, rows in text.items()}
        text = {name: rows[:-1] for name, rows in text.items()}
        return cls(torch.cat([part.latents for part in parts]), text, empty)

    def text_rows(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return a row of `text` for each of these images: one of its captions, drawn uniformly if it has several."""
        if self.choices is None:
            return rows
        first, count = self.choices[rows].unbind(1)
        drawn = torch.rand(len(rows), generator=generator, dtype=torch.float64)
        return first + (drawn * count).long().clamp(max=count - 1)

    def tensors(self) -> dict[str, Tensor]:
        """Return all tensors under one name each, e.g. for a safetensors file."""
        text = {f"text.{name}": tensor for name, tensor in self.text.items()}
        empty = {f"empty_text.{name}": tensor for name, tensor in self.empty_text.items()}
        choices = {} if self.choices is None else {"choices": self.choices}
        sizes = {} if self.sizes is None else {"sizes": self.sizes}
        return {"latents": self.latents, **text, **empty, **choices, **sizes}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "EncodedImages":
        """Build the object from the output of `tensors`."""

        def part(prefix: str) -> dict[str, Tensor]:
            return {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}

        return cls(
            tensors["latents"],
            part("text."),
            part("empty_text."),
            tensors.get("choices"),
            tensors.get("sizes"),
        )


@torch.no_grad()
def encode_images(
    pipe: Pipeline,
    images: Sequence["Image"],
    captions: Sequence[str | tuple[str, ...]],
    *,
    height: int,
    width: int,
    aspect_buckets: bool = False,
) -> EncodedImages:
    """Encode captioned images on the pipeline's device and return the results on the CPU.

    The latents are the mode of the autoencoder's distribution, so encoding draws no random numbers. An autoencoder in
    half precision encodes in float32 if its config says `force_upcast`, or if its latents would not be finite.

    Args:
        pipe: The pipeline whose autoencoder and text encoders are used.
        images: The images, of any size and mode. They are scaled until they cover the size, then cropped evenly.
        captions: One caption per image, or a tuple of several.
        height: Height in pixels at which the images are read.
        width: Width in pixels at which the images are read.
        aspect_buckets: Whether an image is read in the size nearest to its shape among several of at most height x
            width pixels.

    Returns:
        The encoded images, in the order of `images`.

    Raises:
        UserError: If there is no image, if the number of captions differs from the number of images, or if the
            pipeline ignores the scale of its autoencoder.
        NotFinite: If latents or embeddings are not finite.
    """
    if not images or len(images) != len(captions):
        raise UserError(
            f"expected at least one image and one caption per image, got {len(images)}, {len(captions)}"
        )
    device = execution_device(pipe)
    latents: list[Tensor] = []
    for part in ("vae", "image_processor"):
        if getattr(pipe, part, None) is None:
            raise UserError(
                f"{type(pipe).__name__} can sample but not train here: it has no `{part}` for pictures"
            )
    by_call = trains_by_call(pipe)
    shift, factor = (0.0, 1.0) if by_call else _latent_scale(pipe)
    buckets = [(height, width)]
    if aspect_buckets:
        more = bucket_sizes(height, width, _multiple(pipe, min(height, width)))
        buckets += [size for size in more if max(size) <= _longest_side(pipe) and size not in buckets]
    for start in range(0, len(images), _ENCODING_BATCH):
        chunk = [_in_bucket(rgb(image), buckets) for image in images[start : start + _ENCODING_BATCH]]
        found: dict[int, Tensor] = {}
        for wide, high in dict.fromkeys(image.size for image in chunk):
            places = [place for place, image in enumerate(chunk) if image.size == (wide, high)]
            alike = [chunk[place] for place in places]
            pixels = pipe.image_processor.preprocess(alike, height=high, width=wide)
            if by_call:
                encoded = latents_by_call(pipe, pixels)
            else:
                encoded = ((_encoded(pipe, pixels.to(device)) - shift) * factor).cpu()
            found |= zip(places, encoded, strict=True)
        latents += [found[place] for place in range(len(chunk))]
    padded, sizes = _padded(latents)
    groups = [(caption,) if isinstance(caption, str) else caption for caption in captions]
    flat = [caption for group in groups for caption in group]
    # the empty caption last, so that its row has the form of the others
    told = [*flat, ""]
    encode = text_by_call if by_call else encode_text
    joined = joined_rows(
        [
            encode(pipe, told[start : start + _ENCODING_BATCH])
            for start in range(0, len(told), _ENCODING_BATCH)
        ]
    )
    empty = {name: rows[-1:] for name, rows in joined.items()}
    joined = {name: rows[:-1] for name, rows in joined.items()}
    choices = None
    if len(flat) > len(groups):
        counts = torch.tensor([len(group) for group in groups])
        choices = torch.stack([counts.cumsum(0) - counts, counts], 1)
    images_and_text = EncodedImages(padded, joined, empty, choices, sizes)
    images_and_text.check_finite(f"{type(pipe).__name__} in {str(pipe.vae.dtype).removeprefix('torch.')}")
    return images_and_text


def _in_bucket(image: "Image", buckets: Sequence[tuple[int, int]]) -> "Image":
    height, width = nearest_bucket(image.size, buckets)
    return fitted(image, width, height)


def _multiple(pipe: Pipeline, side: int) -> int:
    """Return what the sides of images must be multiples of, such that the denoiser divides them evenly."""
    multiple, unet = 2 * pipe.vae_scale_factor, getattr(pipe, "unet", None)
    if unet is not None:
        multiple = pipe.vae_scale_factor * 2 ** (len(unet.config.block_out_channels) - 1)
    # a unet takes other sizes too, and a small model would have no bucket but its own
    while multiple > side // 4 and multiple > 2 * pipe.vae_scale_factor:
        multiple //= 2
    return int(multiple)


def _longest_side(pipe: Pipeline) -> float:
    """Return the longest side of images for which the denoiser has positions, in pixels."""
    config = getattr(getattr(pipe, "transformer", None), "config", {})
    positions = config.get("pos_embed_max_size")
    return math.inf if positions is None else positions * config["patch_size"] * pipe.vae_scale_factor


def _padded(latents: Sequence[Tensor]) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, "n 2"] | None]:
    """Return latents as one tensor, with zeros below and to the right, and their sizes if these differ."""
    sizes = torch.tensor([latent.shape[-2:] for latent in latents])
    if bool((sizes == sizes[0]).all()):
        return torch.stack(list(latents)), None
    height, width = sizes.amax(0).tolist()
    padded = latents[0].new_zeros(len(latents), latents[0].shape[0], height, width)
    for row, latent in zip(padded, latents, strict=True):
        row[:, : latent.shape[-2], : latent.shape[-1]] = latent
    return padded, sizes


def _encoded(pipe: Pipeline, pixels: Tensor) -> Float[Tensor, "n c h w"]:
    """Return the autoencoder's latents of pixels, before they are scaled."""
    dtype = pipe.vae.dtype

    def encode() -> Tensor:
        encoded = pipe.vae.encode(pixels.to(pipe.vae.dtype))
        return encoded.latents if hasattr(encoded, "latents") else encoded.latent_dist.mode()

    if not (dtype == torch.float16 and getattr(pipe.vae.config, "force_upcast", False)):
        latents = encode()
        if dtype == torch.float32 or bool(latents.isfinite().all()):
            return latents
    pipe.vae.to(torch.float32)
    try:
        return encode()
    finally:
        pipe.vae.to(dtype)


def _latent_scale(pipe: Pipeline) -> tuple[float | Tensor, float | Tensor]:
    """Return a shift and a factor, so that (raw latents - shift) * factor is what the pipeline's denoiser expects."""
    config = pipe.vae.config
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is None or std is None:
        return getattr(config, "shift_factor", None) or 0.0, config.scaling_factor
    try:
        applied = "latents_mean" in inspect.getsource(type(pipe).__call__)
    except (OSError, TypeError):
        applied = True  # a class without its source, as in a shell
    if not applied:
        raise UserError(
            f"the autoencoder has latents_mean and latents_std, which {type(pipe).__name__} does not apply: its "
            "latents have another scale than its denoiser's; use the pipeline class that the model was made for"
        )
    device = execution_device(pipe)
    shift, scale = (torch.tensor(values, device=device).view(1, -1, 1, 1) for values in (mean, std))
    return shift, config.scaling_factor / scale


@torch.no_grad()
def encode_text(pipe: Pipeline, captions: Sequence[str]) -> dict[str, Tensor]:
    """Return the text embeddings of `captions` on the CPU, under the names that pipelines use for them."""
    known = inspect.signature(pipe.encode_prompt).parameters
    options: dict[str, Any] = {"device": execution_device(pipe), "num_images_per_prompt": 1}
    options |= {name: None for name in ("prompt_2", "prompt_3") if name in known}
    if "do_classifier_free_guidance" in known:
        options["do_classifier_free_guidance"] = False
    parts = pipe.encode_prompt(list(captions), **options)
    if len(parts) == 2:  # Stable Diffusion 1 and 2 return prompt and negative prompt
        return {"prompt_embeds": parts[0].cpu()}
    pooled = parts[2] if len(parts) == 4 else parts[1]  # SDXL and SD3; FLUX
    return {"prompt_embeds": parts[0].cpu(), "pooled_prompt_embeds": pooled.cpu()}
