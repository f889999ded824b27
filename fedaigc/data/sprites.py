"""The sprite atlas: the same objects in seven styles (see NOTICE for the artists)."""

from functools import cache
from pathlib import Path

from PIL import Image

from fedaigc import assets
from fedaigc.data.scene_words import OBJECTS

SPRITE_PX = 96

# the shipped model was trained on these styles. The held-out styles belong to new clients
TRAINED_STYLES = ("noto", "flat", "fluent", "emojione", "twemoji")
HELD_OUT_STYLES = ("blob", "openmoji")
STYLES = TRAINED_STYLES + HELD_OUT_STYLES

# OpenMoji's licence is share-alike, so its strip stays in a separate folder
_FOLDERS = {"openmoji": "sprites/openmoji-cc-by-sa"}


def strip_file(style: str) -> Path:
    """Return the PNG strip of a style: SPRITE_PX-square sprites side by side, in the order of OBJECTS."""
    return assets.path("sprites").parent / _FOLDERS.get(style, "sprites") / f"{style}.png"


@cache
def sprites(style: str) -> dict[str, Image.Image]:
    """Return the RGBA sprites of one style by object, each SPRITE_PX square, standing on its bottom edge."""
    strip = Image.open(strip_file(style)).convert("RGBA")
    return {
        word: strip.crop((i * SPRITE_PX, 0, (i + 1) * SPRITE_PX, SPRITE_PX)) for i, word in enumerate(OBJECTS)
    }
