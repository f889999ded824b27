"""The ten places of Scenes, drawn with Pillow in the manner of each style.

Coordinates are in units of the finished image (0..64, y down). Places are drawn at twice that size, so that
the final reduction smooths the edges.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from fedaigc.data.scene_words import PLACES

SIZE = 64
SCALE = 2
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Look:
    """How one style draws a place.

    Attributes:
        walls: Tints of the wall.
        floors: Tints of the floor.
        skies: Tints of the sky.
        grass: Tint of the ground outdoors.
        saturation: Factor on the saturation of drawn shapes.
        outline: Width of outlines in image units, 0 for none.
        shaded: Whether the backdrop is shaded.
    """

    walls: tuple[Colour, ...]
    floors: tuple[Colour, ...]
    skies: tuple[Colour, ...]
    grass: Colour
    saturation: float
    outline: float = 0.0
    shaded: bool = False


LOOKS = {
    "noto": Look(
        ((255, 236, 200), (250, 224, 186)), ((214, 178, 140),), ((160, 214, 250),), (124, 186, 84), 1.0
    ),
    "flat": Look(
        ((220, 232, 255), (232, 224, 255)), ((190, 184, 214),), ((150, 206, 255),), (96, 204, 110), 1.15
    ),
    "fluent": Look(
        ((226, 206, 240), (240, 208, 226)),
        ((176, 150, 190),),
        ((140, 170, 240),),
        (88, 172, 110),
        1.1,
        shaded=True,
    ),
    "emojione": Look(
        ((206, 236, 232), (214, 240, 218)), ((168, 190, 180),), ((176, 226, 236),), (140, 198, 62), 0.95
    ),
    "twemoji": Look(
        ((236, 238, 240), (222, 230, 238)), ((190, 196, 204),), ((194, 226, 250),), (92, 160, 60), 0.85
    ),
    "blob": Look(
        ((255, 206, 170), (255, 190, 160)), ((160, 110, 84),), ((255, 224, 150),), (150, 150, 60), 0.9
    ),
    "openmoji": Look(
        ((255, 255, 255), (250, 250, 246)),
        ((236, 236, 236),),
        ((234, 246, 255),),
        (177, 204, 51),
        1.0,
        outline=0.9,
    ),
}


@dataclass(frozen=True)
class Stand:
    """Where an object stands, in image units.

    Attributes:
        x: Centre of the sprite.
        bottom: Bottom of the sprite.
        height: Height of the sprite.
    """

    x: float
    bottom: float
    height: float


class Brush:
    """Draws filled shapes in image units, with the outline and the saturation of a look."""

    def __init__(self, image: Image.Image, look: Look) -> None:
        self._draw = ImageDraw.Draw(image)
        self._look = look
        self._width = round(look.outline * SCALE)

    def tint(self, colour: Colour) -> Colour:
        """Return the colour at the look's saturation."""
        grey = sum(colour) / 3
        red, green, blue = (
            round(min(255, max(0, grey + (c - grey) * self._look.saturation))) for c in colour
        )
        return red, green, blue

    def _style(self, colour: Colour) -> dict[str, Any]:
        ink = (30, 30, 30) if self._width else None
        return {"fill": self.tint(colour), "outline": ink, "width": self._width}

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, radius: float = 0) -> None:
        """Draw a rectangle with rounded corners."""
        corners = [x0 * SCALE, y0 * SCALE, x1 * SCALE, y1 * SCALE]
        self._draw.rounded_rectangle(corners, radius * SCALE, **self._style(colour))

    def oval(self, x0: float, y0: float, x1: float, y1: float, colour: Colour) -> None:
        """Draw an ellipse inside the box."""
        self._draw.ellipse([x0 * SCALE, y0 * SCALE, x1 * SCALE, y1 * SCALE], **self._style(colour))

    def shape(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """Draw a polygon."""
        self._draw.polygon([(x * SCALE, y * SCALE) for x, y in points], **self._style(colour))

    def line(self, points: list[tuple[float, float]], colour: Colour, width: float) -> None:
        """Draw a polyline."""
        path = [(x * SCALE, y * SCALE) for x, y in points]
        self._draw.line(path, fill=self.tint(colour), width=round(width * SCALE), joint="curve")


def _pick(colours: tuple[Colour, ...], random: np.random.Generator) -> Colour:
    colour = colours[int(random.integers(len(colours)))]
    shift = random.integers(-8, 9, size=3)
    red, green, blue = (int(np.clip(c + s, 0, 255)) for c, s in zip(colour, shift, strict=True))
    return red, green, blue


def _backdrop(top: Colour, bottom: Colour, horizon: float, shaded: bool) -> Image.Image:
    """Return two flat halves. Shading lightens the upper and darkens the lower one, from top to bottom."""
    rows = np.empty((SIZE * SCALE, 1, 3), np.float32)
    edge = round(horizon * SCALE)
    rows[:edge] = top
    rows[edge:] = bottom
    if shaded:
        rows[:edge] += np.linspace(-18, 18, edge, dtype=np.float32)[:, None, None]
        rows[edge:] += np.linspace(12, -24, len(rows) - edge, dtype=np.float32)[:, None, None]
    image = np.broadcast_to(rows.clip(0, 255).astype(np.uint8), (SIZE * SCALE, SIZE * SCALE, 3))
    return Image.fromarray(np.ascontiguousarray(image))


# a painter draws a place around x (its centre) with its surface at y, about 2 * half wide
Painter = Callable[[Brush, float, float, float, np.random.Generator], None]


def _table(brush: Brush, x: float, y: float, half: float, random: np.random.Generator) -> None:
    wood, dark = (176, 116, 66), (136, 84, 44)
    for side in (-0.78, 0.78):
        brush.box(x + side * half - 2, y + 2, x + side * half + 2, y + 21, dark)
    brush.oval(x - half, y - 5, x + half, y + 6, wood)


def _desk(brush: Brush, x: float, y: float, half: float, random: np.random.Generator) -> None:
    wood, front = (226, 190, 130), (200, 160, 100)
    brush.box(x - half + 1, y + 1, x - half + 4, y + 21, front)
    brush.box(x + half * 0.2, y + 1, x + half - 1, y + 21, front)
    for k in range(3):
        brush.box(x + half * 0.2 + 1.5, y + 3.5 + 6 * k, x + half - 2.5, y + 8 + 6 * k, wood)
        brush.box(x + half * 0.6 - 1.5, y + 5 + 6 * k, x + half * 0.6 + 1.5, y + 6.4 + 6 * k, (90, 70, 50))
    brush.box(x - half, y - 2, x + half, y + 2.5, wood, 1)


def _bed(brush: Brush, x: float, y: float, half: float, random: np.random.Generator) -> None:
    wood = (128, 78, 44)
    brush.box(x - half, y - 17, x - half + 4, y + 19, wood, 1.5)
    brush.box(x + half - 3, y - 3, x + half, y + 19, wood, 1.5)
    brush.box(x - half + 3, y + 2, x + half - 2, y + 14, (244, 244, 250), 2)
    brush.box(x - half + 4, y - 4, x - half + 14, y + 3, (255, 255, 255), 2.5)
    brush.box(x - half + 13, y, x + half - 2, y + 14, (86, 120, 214), 2)


def _sofa(brush: Brush, x: float, y: float, half: float, random: np.random.Generator) -> None:
    cloth, dark = (206, 72, 66), (170, 48, 48)
    brush.box(x - half + 3, y - 17, x + half - 3, y + 6, cloth, 4)
    brush.box(x - half + 4, y - 1, x + half - 4, y + 13, dark, 2)
    brush.box(x - half, y - 8, x - half + 7, y + 15, cloth, 3)
    brush.box(x + half - 7, y - 8, x + half, y + 15, cloth, 3)
    for side in (-0.8, 0.8):
        brush.box(x + side * half - 1.5, y + 15, x + side * half + 1.5, y + 18, (80, 50, 30))


def _chair(brush: Brush, x: float, y: float, half: float, random: np.random.Generator) -> None:
    wood, half = (236, 150, 40), half * 0.7
    brush.box(x - half, y - 26, x - half + 3.4, y + 21, wood)
    for k in range(3):
        brush.box(x - half + 3, y - 25 + 7 * k, x - half + 7, y - 22 + 7 * k, wood)
    brush.box(x + half - 3.4, y, x + half, y + 21, wood)
    brush.box(x - half + 2, y + 10, x + half - 2, y + 12, wood)
    brush.box(x - half, y - 2, x + half + 1, y + 3.4, wood, 1)


def _book(brush: Brush, x: float, y: float, half: float, random: np.random.Generator) -> None:
    page, cover = (250, 246, 232), (40, 110, 90)
    brush.shape([(x - half, y - 3), (x + half, y - 3), (x + half + 2, y + 15), (x - half - 2, y + 15)], cover)
    brush.shape([(x, y - 4), (x - half + 2, y - 5), (x - half + 1, y + 11), (x, y + 13)], page)
    brush.shape([(x, y - 4), (x + half - 2, y - 5), (x + half - 1, y + 11), (x, y + 13)], page)
    for k in range(4):
        for left, right in ((x - half + 5, x - 4), (x + 4, x + half - 5)):
            brush.line([(left, y - 1 + 3.4 * k), (right, y - 0.4 + 3.4 * k)], (150, 146, 140), 1)


def _road(brush: Brush, x: float, y: float, half: float, random: np.random.Generator) -> None:
    top, bottom = y - 9, SIZE + 1
    brush.shape(
        [(x - half * 0.5, top), (x + half * 0.5, top), (x + half * 1.5, bottom), (x - half * 1.5, bottom)],
        (96, 98, 106),
    )
    for k, (start, end) in enumerate(((0.02, 0.2), (0.34, 0.6), (0.76, 1.0))):
        near, far = top + start * (bottom - top), top + end * (bottom - top)
        brush.shape(
            [
                (x - 0.8 - 0.4 * k, near),
                (x + 0.8 + 0.4 * k, near),
                (x + 1.2 + 0.6 * k, far),
                (x - 1.2 - 0.6 * k, far),
            ],
            (250, 250, 244),
        )


def _beach(brush: Brush, x: float, y: float, half: float, random: np.random.Generator) -> None:
    brush.box(x - half * 2, y - 20, x + half * 2, y - 5, (52, 140, 220))
    brush.line([(x - half * 2, y - 13), (x + half * 2, y - 13)], (120, 190, 240), 1)
    swing = random.uniform(-2, 2)
    sand = [
        (x - half * 2, y - 6 + swing),
        (x, y - 8),
        (x + half * 2, y - 6 - swing),
        (x + half * 2, SIZE + 1),
        (x - half * 2, SIZE + 1),
    ]
    brush.shape(sand, (244, 216, 140))
    for _ in range(9):
        px, py = random.uniform(x - half, x + half), random.uniform(y - 1, SIZE - 2)
        brush.oval(px, py, px + 1.4, py + 1, (214, 180, 104))


def _river(brush: Brush, x: float, y: float, half: float, random: np.random.Generator) -> None:
    bend = random.uniform(-3, 3)
    upper = [(x - half * 2, y - 9 + bend), (x, y - 8), (x + half * 2, y - 9 - bend)]
    lower = [(x + half * 2, y + 8 - bend), (x, y + 9), (x - half * 2, y + 8 + bend)]
    brush.shape(upper + lower, (60, 150, 232))
    for k in range(5):
        px, py = random.uniform(x - half, x + half - 8), y - 5 + 2.8 * k
        brush.line([(px, py), (px + 3, py - 1), (px + 6, py), (px + 9, py - 1)], (190, 226, 252), 1)


def _field(brush: Brush, x: float, y: float, half: float, random: np.random.Generator) -> None:
    for k in range(4):
        brush.line([(x - half * 2, y - 7 + 6.4 * k), (x + half * 2, y - 7 + 6.4 * k)], (216, 186, 70), 2.4)
    for _ in range(14):
        px, py = random.uniform(x - half, x + half), random.uniform(y - 6, SIZE - 3)
        brush.line([(px - 1.4, py - 2.4), (px, py), (px + 1.4, py - 2.4)], (60, 130, 50), 0.9)


_PAINTERS: dict[str, Painter] = dict(
    zip(PLACES, (_table, _desk, _bed, _sofa, _chair, _book, _road, _beach, _river, _field), strict=True)
)
OUTDOORS = ("road", "beach", "river", "field")
# distance of the object's feet below the drawn surface line: the middle of a bed, the lane of a road
_FEET = {
    "table": 1,
    "desk": -1,
    "bed": 4,
    "sofa": 5,
    "chair": -1,
    "book": 7,
    "road": 7,
    "beach": 8,
    "river": 3,
    "field": 8,
}


def paint(place: str, relation: str, style: str, random: np.random.Generator) -> tuple[Image.Image, Stand]:
    """Draw `place` in `style` and return where the object stands.

    Args:
        place: One of PLACES.
        relation: How the object stands to the place: "on", "near" or "above".
        style: A key of LOOKS.
        random: Draws the tints and positions.

    Returns:
        The RGB image at SCALE times the final size, and the object's stand in image units.
    """
    look = LOOKS[style]
    outdoors = place in OUTDOORS
    jitter = random.uniform(-2.0, 2.0, size=2)
    half = random.uniform(21.5, 25.5)
    height = random.uniform(27, 32)
    horizon = (30 if outdoors else 46) + random.uniform(-2, 2)
    x, y = SIZE / 2 + jitter[0], 41 + jitter[1]
    if relation == "near":
        side = -1 if random.random() < 0.5 else 1
        x = SIZE / 2 - side * (22 + jitter[0])
        stand = Stand(SIZE / 2 + side * (16 + jitter[0]), 59 + jitter[1] / 2, height)
        if outdoors:
            half *= 0.8
            if place in ("river", "beach", "field"):  # these run across the image: the object is in front
                x, y = SIZE / 2, 38 + jitter[1] / 2
                stand = Stand(stand.x, 61 + jitter[1] / 2, height)
    elif relation == "above":
        y += 8
        stand = Stand(SIZE / 2 + 2 * jitter[0], 33 + jitter[1], height * 0.92)
        horizon += 4
    else:
        stand = Stand(x + random.uniform(-3, 3), y + _FEET[place], height)
    if outdoors:
        image = _backdrop(_pick(look.skies, random), _pick((look.grass,), random), horizon, look.shaded)
    else:
        image = _backdrop(_pick(look.walls, random), _pick(look.floors, random), horizon, look.shaded)
    brush = Brush(image, look)
    _PAINTERS[place](brush, x, y, half, random)
    if relation == "near" and place in ("beach", "field"):
        bank = (142, 142, 148) if place == "field" else look.grass
        brush.box(-2, 52 + jitter[1], SIZE + 2, SIZE + 2, bank)
    return image, stand
