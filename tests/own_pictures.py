"""A researcher's own pictures: sixty of three labels, drawn with Pillow."""

import json
from pathlib import Path

from PIL import Image, ImageDraw

LABELS = ("circle", "square", "bar")


def draw(number: int) -> Image.Image:
    """Draw a shape of its own place and colour."""
    image = Image.new("RGB", (32, 32), (250 - number, 240, 200 + number // 2))
    brush, at = ImageDraw.Draw(image), number % 7
    colour = (20 + 3 * number, 90, 220 - 3 * number)
    match LABELS[number % 3]:
        case "circle":
            brush.ellipse((4 + at, 6, 20 + at, 22), fill=colour)
        case "square":
            brush.rectangle((5 + at, 5, 19 + at, 19), fill=colour)
        case _:
            brush.rectangle((2 + at, 14, 24 + at, 18), fill=colour)
    return image


def write_pictures(folder: Path, count: int = 60, *, label: str | None = "label") -> Path:
    """Write pictures with captions, and with labels under the key `label`."""
    folder.mkdir(parents=True)
    lines = []
    for number in range(count):
        name = LABELS[number % 3]
        draw(number).save(folder / f"{number:03d}.png")
        line = {"file": f"{number:03d}.png", "caption": f"a {name} in colour {number % 5}"}
        lines.append(json.dumps(line | ({label: name} if label else {})))
    (folder / "captions.jsonl").write_text("\n".join(lines))
    return folder
