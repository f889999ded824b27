"""Any picture as 8-bit sRGB, by what its values mean, and at the size of a model."""

import io
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms, ImageOps

from fedaigc.data.pictures.reading import (
    BACKGROUND,
    BAD_PROFILE,
    DEEP,
    PROFILE,
    TRANSPARENT,
    BrokenPicture,
    Reading,
)

_BITS_PER_SAMPLE = 258  # of TIFF
# formats whose mode "I" holds 16 bits
_SIXTEEN_BITS = ("PNG", "PPM")
# what profiles call the colours of a mode
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK", "LAB": "Lab"}


def rgb(image: Image.Image, background: str = BACKGROUND) -> Image.Image:
    """Return a picture in RGB; one that is in RGB already is returned as it is.

    Transparent parts are put on the background, 16-bit and floating-point values are scaled by the range of their
    type, and colour profiles are converted to sRGB.

    Raises:
        BrokenPicture: If the values have no known range.
    """
    return converted(image, Reading(background=background, size=0))[0]


def converted(
    image: Image.Image, reading: Reading, name: str = "the picture"
) -> tuple[Image.Image, list[str]]:
    """Return a picture in RGB, with its short side reduced to `reading.size`, and what was done to it.

    Args:
        image: The picture.
        reading: Background and size.
        name: What to call it in an error message.

    Raises:
        BrokenPicture: If the values have no known range.
    """
    done: list[str] = []
    profile = image.info.get("icc_profile")
    found = _eight_bits(image, name, done)
    if found.mode in ("CMYK", "LAB"):
        # these have no alpha
        found, profile = _to_srgb(found, profile, done), None
    if found.mode == "L" and profile and not found.has_transparency_data:
        found, profile = _to_srgb(found, profile, done), None
    if found.has_transparency_data:
        found = found.convert("RGBA")
    elif found.mode != "RGB":
        found = found.convert("RGB")
    if found.mode == "RGBA" and found.getchannel("A").getextrema()[0] == 255:
        found = found.convert("RGB")
    found = reduced(found, reading.size)
    if profile:
        found = _to_srgb(found, profile, done)
    if found.mode == "RGBA":
        done.append(TRANSPARENT)
        below = Image.new("RGBA", found.size, (*reading.colour, 255))
        found = Image.alpha_composite(below, found).convert("RGB")
    return found, done


def reduced(image: Image.Image, size: int) -> Image.Image:
    """Return a picture with its short side reduced to `size`; a smaller one, and with 0 any, as it is."""
    short = min(image.size)
    if not size or short <= size:
        return image
    width, height = (max(size, round(side * size / short)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def fitted(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return a picture at a size: scaled until it covers the size, then cropped evenly on both sides.

    One of the same aspect ratio is only scaled, and one of the same size is returned as it is.
    """
    if image.size == (width, height):
        return image
    return ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS)


def _eight_bits(image: Image.Image, name: str, done: list[str]) -> Image.Image:
    """Scale the values of deeper modes by the range of their type."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _SIXTEEN_BITS):
        bits = getattr(image, "tag_v2", {}).get(_BITS_PER_SAMPLE, (16,))[0]
        values = np.asarray(image).astype(np.float64)
        scaled = values / (2**bits - 1)
        clear = values == image.info["transparency"] if "transparency" in image.info else None
    elif image.mode == "I":
        raise BrokenPicture(
            f"{name} holds whole numbers of 32 bits, whose range is not known: convert it to 8 or 16 bits"
        )
    elif image.mode == "F":
        scaled, clear = np.asarray(image).astype(np.float64), None
        low, high = float(scaled.min()), float(scaled.max())
        if not (low >= 0 and high <= 1):
            raise BrokenPicture(
                f"{name} holds floating-point numbers from {low:g} to {high:g}: expected 0 (black) to 1 (white)"
            )
    else:
        return image
    done.append(DEEP)
    grey = Image.fromarray(np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8))
    if clear is not None and clear.any():
        grey.putalpha(Image.fromarray(np.where(clear, 0, 255).astype(np.uint8)))
    return grey


def _to_srgb(image: Image.Image, profile: bytes | None, done: list[str]) -> Image.Image:
    """Convert colours by a profile; without one, or with a damaged one, as the mode says."""
    alpha = image.getchannel("A") if image.mode == "RGBA" else None
    colours = image.convert("RGB") if alpha is not None else image
    try:
        transform = _transform(profile, colours.mode)
        found = colours if transform is None else transform.apply(colours)
        if transform is not None and profile and transform is not _transform(None, colours.mode):
            done.append(PROFILE)
    except (ImageCms.PyCMSError, OSError, ValueError):
        done.append(BAD_PROFILE)
        transform = _transform(None, colours.mode)
        found = colours if transform is None else transform.apply(colours)
    found = found.convert("RGB")
    if alpha is not None:
        found.putalpha(alpha)
    return found


@lru_cache(maxsize=8)
def _transform(profile: bytes | None, mode: str) -> Any:
    """Return the transformation to sRGB; None where Pillow's own conversion, or none at all, does it."""
    srgb: Any = ImageCms.createProfile("sRGB")
    if profile is None:
        return (
            ImageCms.buildTransform(ImageCms.createProfile("LAB"), srgb, "LAB", "RGB")
            if mode == "LAB"
            else None
        )
    found = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    foreign = found.profile.xcolor_space.strip() != _SPACES[mode]
    if foreign or "srgb" in (found.profile.profile_description or "").lower():
        return _transform(None, mode)
    return ImageCms.buildTransform(found, srgb, mode, "RGB")
