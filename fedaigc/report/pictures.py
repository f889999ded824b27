"""Pictures for a page that needs no other file."""

import base64
import io
from collections.abc import Sequence

from PIL import Image


def data_uri(image: Image.Image) -> str:
    """The picture as a PNG data URI."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def curve(values: Sequence[float], width: int = 280, height: int = 90) -> str:
    """The points of an SVG polyline through `values`, left to right, the largest at the top."""
    if not values:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    step = width / max(1, len(values) - 1)
    return " ".join(
        f"{i * step:.1f},{height - (value - low) / span * height:.1f}" for i, value in enumerate(values)
    )
