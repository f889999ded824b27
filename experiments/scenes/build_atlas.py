"""Rebuild the sprite atlas from its icon packages.

    npm pack @iconify-json/noto@1.2.9 @iconify-json/noto-v1@1.2.5 @iconify-json/fluent-emoji-flat@1.2.6 \
        @iconify-json/fluent-emoji@1.2.7 @iconify-json/emojione@1.2.3 @iconify-json/twemoji@1.2.5 \
        @iconify-json/openmoji@1.2.29
    for f in *.tgz; do mkdir "${f%.tgz}" && tar xzf "$f" -C "${f%.tgz}"; done
    python experiments/scenes/build_atlas.py FOLDER_WITH_THE_UNPACKED_PACKAGES

Writes one strip of 96-pixel sprites per style, in the order of `OBJECTS`, into fedaigc/assets/sprites.
"""

import argparse
import io
import json
from pathlib import Path
from typing import Any

import resvg_py
from PIL import Image

from fedaigc.data.scene_words import OBJECTS
from fedaigc.data.sprites import SPRITE_PX, strip_file

PACKAGES = {
    "noto": "iconify-json-noto-1.2.9",
    "flat": "iconify-json-fluent-emoji-flat-1.2.6",
    "fluent": "iconify-json-fluent-emoji-1.2.7",
    "emojione": "iconify-json-emojione-1.2.3",
    "twemoji": "iconify-json-twemoji-1.2.5",
    "blob": "iconify-json-noto-v1-1.2.5",
    "openmoji": "iconify-json-openmoji-1.2.29",
}
# icon names to try in turn, where they differ from the object's word
ICONS = {
    "apple": ["red-apple"],
    "cup": ["hot-beverage"],
    "tree": ["deciduous-tree"],
    "car": ["automobile"],
    "train": ["locomotive"],
    "man": ["man-running", "person-running"],
    "ball": ["soccer-ball"],
    "clock": ["alarm-clock"],
}


def icon_body(icons: dict[str, Any], word: str) -> str:
    """Return the SVG body of the first icon that stands for `word`; KeyError if the set has none."""
    for name in [*ICONS.get(word, []), word]:
        if name in icons["icons"]:
            return str(icons["icons"][name]["body"])
        if name in icons.get("aliases", {}):
            return str(icons["icons"][icons["aliases"][name]["parent"]]["body"])
    raise KeyError(f"no icon for {word!r} in {icons['prefix']}")


def sprite(icons: dict[str, Any], word: str) -> Image.Image:
    """Return a square RGBA sprite of SPRITE_PX: the drawing, cropped to its ink, at the centre of the bottom line."""
    width, height = icons.get("width", 16), icons.get("height", 16)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">{icon_body(icons, word)}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=256, height=256))
    drawn = Image.open(io.BytesIO(png)).convert("RGBA")
    ink = drawn.crop(drawn.getchannel("A").point(lambda a: 255 * (a > 24)).getbbox())
    ink.thumbnail((SPRITE_PX, SPRITE_PX), Image.Resampling.LANCZOS)
    # fill the square, so that objects have the same size in every style
    scale = SPRITE_PX / max(ink.size)
    ink = ink.resize((round(ink.width * scale), round(ink.height * scale)), Image.Resampling.LANCZOS)
    square = Image.new("RGBA", (SPRITE_PX, SPRITE_PX))
    square.paste(ink, ((SPRITE_PX - ink.width) // 2, SPRITE_PX - ink.height))
    return square


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("packages", type=Path, help="folder of the unpacked icon packages")
    arguments = parser.parse_args()
    for style, package in PACKAGES.items():
        icons = json.loads((arguments.packages / package / "package" / "icons.json").read_text())
        strip = Image.new("RGBA", (SPRITE_PX * len(OBJECTS), SPRITE_PX))
        for i, word in enumerate(OBJECTS):
            strip.paste(sprite(icons, word), (i * SPRITE_PX, 0))
        target = strip_file(style)
        target.parent.mkdir(parents=True, exist_ok=True)
        strip.save(target, optimize=True)
        print(f"{target.name}: {target.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
