"""Images for a self-contained page."""

import base64
import io
from collections.abc import Sequence

from PIL import Image, ImageDraw


def data_uri(image: Image.Image) -> str:
    """Return an image as a PNG data URI."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def curve(values: Sequence[float], width: int = 280, height: int = 90) -> str:
    """Return the points of an SVG polyline through values, from left to right, with the largest at the top.

    Args:
        values: Values of the curve.
        width: Width in SVG units.
        height: Height in SVG units.
    """
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    step = width / max(1, len(values) - 1)
    return " ".join(
        f"{i * step:.1f},{height - (value - low) / span * height:.1f}" for i, value in enumerate(values)
    )


def contact_sheet(rows: Sequence[tuple[str, Sequence[Image.Image]]], captions: Sequence[str]) -> Image.Image:
    """Return a sheet of images, each 112 pixels wide.

    Args:
        rows: Title and images of each row.
        captions: Caption under each column.
    """
    cell, margin, line = 112, 96, 30
    sheet = Image.new("RGB", (margin + len(captions) * (cell + 6), len(rows) * (cell + 6) + line), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, images) in enumerate(rows):
        top = number * (cell + 6)
        pen.text((4, top + cell // 2 - 6), title, fill="black")
        for column, image in enumerate(images):
            shown = image.convert("RGB").resize((cell, cell), Image.Resampling.NEAREST)
            sheet.paste(shown, (margin + column * (cell + 6), top))
    for column, caption in enumerate(captions):
        words = caption.split()
        half = (len(words) + 1) // 2
        text = " ".join(words[:half]) + "\n" + " ".join(words[half:])
        pen.multiline_text((margin + column * (cell + 6), len(rows) * (cell + 6)), text, fill="black")
    return sheet
