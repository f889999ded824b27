"""The latents of a home's images, computed once for a base model and a size."""

from typing import TYPE_CHECKING

from safetensors.torch import save

from fedaigc.device.home.images import ImageStore
from fedaigc.diffusion.encoding import EncodedImages, encode_images
from fedaigc.storage.tensor_file import read_tensors

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


def encoded_images(
    images: ImageStore,
    pipe: "DiffusionPipeline",
    base_hash: str,
    height: int,
    width: int,
    buckets: bool = False,
) -> EncodedImages:
    """Return latents and text embeddings of a home's images from its cache, which holds one such set.

    They are as private as the images. The cache keeps only finite values; a set of an earlier version that has others
    is computed anew.

    Args:
        images: The home's images.
        pipe: Pipeline that encodes them if the cache has another set.
        base_hash: Fingerprint of the pipeline's base model.
        height: Height at which images are read, in pixels.
        width: Width at which images are read, in pixels.
        buckets: Whether images are read in aspect buckets; see `encode_images`.

    Raises:
        UserError: If images were made smaller than that when they were added.
        NotFinite: If the pipeline encodes them with values that are not finite.
    """
    kind = "buckets" if buckets else "cropped"
    home = images.home
    path = home.cache / f"{base_hash[:16]}-{images.digest()[:16]}-{height}x{width}-{kind}.safetensors"
    if path.exists():
        kept = EncodedImages.from_tensors(read_tensors(path)[1])
        if kept.is_finite():
            return kept
    images.check_size(height, width)
    encoded = encode_images(
        pipe, images.pictures(), images.captions(), height=height, width=width, aspect_buckets=buckets
    )
    for old in home.cache.glob("*.safetensors"):
        old.unlink()
    home.write(path, save({name: tensor.contiguous() for name, tensor in encoded.tensors().items()}))
    return EncodedImages.from_tensors(read_tensors(path)[1])
