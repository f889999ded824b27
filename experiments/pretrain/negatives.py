"""Pictures that the judge must reject: they show no object of Scenes, but the colours or the outline of one.

The judge is trained on nine kinds. Two more, `quarters` and `halves`, are used only in its test.
"""

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from fedaigc.data.scene_words import OBJECTS, PLACES, RELATIONS
from fedaigc.data.scenes import compose
from fedaigc.data.sprites import SPRITE_PX, STYLES, sprites
from fedaigc.rng import numpy_rng

Maker = Callable[[str, np.random.Generator], Image.Image]


def _sprite(style: str, random: np.random.Generator) -> Image.Image:
    return sprites(style)[OBJECTS[int(random.integers(len(OBJECTS)))]]


def _two(style: str, random: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    first, second = random.choice(len(OBJECTS), size=2, replace=False)
    return sprites(style)[OBJECTS[int(first)]], sprites(style)[OBJECTS[int(second)]]


def blend(style: str, random: np.random.Generator) -> Image.Image:
    """Two objects blended half and half, one over the other."""
    first, second = _two(style, random)
    return Image.blend(first, second, random.uniform(0.4, 0.6))


def blob(style: str, random: np.random.Generator) -> Image.Image:
    """An object blurred until only its colours are left."""
    small, margin = SPRITE_PX * 5 // 8, SPRITE_PX * 3 // 16
    middle = Image.new("RGBA", (SPRITE_PX, SPRITE_PX))
    middle.paste(_sprite(style, random).resize((small, small)), (margin, margin))
    return middle.filter(ImageFilter.GaussianBlur(random.uniform(7, 12)))


def smear(style: str, random: np.random.Generator) -> Image.Image:
    """An object with shifted rows: its colours, its height, no outline."""
    pixels = np.array(_sprite(style, random))
    shifts = np.cumsum(random.normal(0, 10, size=len(pixels))).astype(int)
    return Image.fromarray(
        np.stack([np.roll(row, shift, axis=0) for row, shift in zip(pixels, shifts, strict=True)])
    )


def noise(style: str, random: np.random.Generator) -> Image.Image:
    """Coarse noise in an object's colours inside a rounded patch."""
    source = np.array(_sprite(style, random)).reshape(-1, 4)
    inked = source[source[:, 3] > 128][:, :3]
    cells = int(random.integers(5, 14))
    field = Image.fromarray(inked[random.integers(len(inked), size=(cells, cells))].astype(np.uint8))
    patch = field.resize((SPRITE_PX, SPRITE_PX), Image.Resampling.BICUBIC).convert("RGBA")
    mask = Image.new("L", patch.size)
    width, height = (int(SPRITE_PX * random.uniform(0.5, 0.95)) for _ in range(2))
    left = (SPRITE_PX - width) // 2
    ImageDraw.Draw(mask).ellipse((left, SPRITE_PX - height, left + width, SPRITE_PX - 1), fill=255)
    patch.putalpha(mask)
    return patch


def wrong_shape(style: str, random: np.random.Generator) -> Image.Image:
    """The colours of one object, mirrored and stretched into a random polygon or oval."""
    paint = _sprite(style, random).convert("RGBA")
    box = paint.getchannel("A").getbbox()
    core = paint.crop(box).resize((SPRITE_PX // 3, SPRITE_PX // 3)).filter(ImageFilter.GaussianBlur(4))
    fill = (
        core.resize((SPRITE_PX, SPRITE_PX))
        .rotate(int(random.integers(4)) * 90)
        .convert("RGB")
        .convert("RGBA")
    )
    mask = Image.new("L", fill.size)
    corners = int(random.integers(3, 9))
    angles = np.sort(random.uniform(0, 2 * np.pi, corners))
    radii = random.uniform(0.3, 0.5, corners) * SPRITE_PX
    points = [
        (SPRITE_PX / 2 + r * np.cos(a), SPRITE_PX / 2 + r * np.sin(a))
        for a, r in zip(angles, radii, strict=True)
    ]
    ImageDraw.Draw(mask).polygon(points, fill=255)
    fill.putalpha(mask)
    return fill


def stack(style: str, random: np.random.Generator) -> Image.Image:
    """The upper half of one object on the lower half of another, both stretched to the full square."""
    whole, half = Image.new("RGBA", (SPRITE_PX, SPRITE_PX)), SPRITE_PX // 2
    for number, source in enumerate(_two(style, random)):
        ink = source.crop(source.getchannel("A").getbbox()).resize((SPRITE_PX, SPRITE_PX))
        whole.paste(ink.crop((0, number * half, SPRITE_PX, (number + 1) * half)), (0, number * half))
    return whole


def slices(style: str, random: np.random.Generator) -> Image.Image:
    """An object that is rotated, cut into four to seven slices that change places, and rotated back."""
    angle = int(random.integers(0, 180))
    pixels = np.array(_sprite(style, random).rotate(angle, Image.Resampling.BILINEAR))
    parts = np.array_split(pixels, int(random.integers(4, 8)))
    order = random.permutation(len(parts))
    # no slice may stay in place or next to its neighbour: the object would still be visible
    while (order == np.arange(len(parts))).any() or (np.diff(order) == 1).any():
        order = random.permutation(len(parts))
    mixed = Image.fromarray(np.concatenate([parts[int(i)] for i in order]))
    return mixed.rotate(-angle, Image.Resampling.BILINEAR)


def swirl(style: str, random: np.random.Generator) -> Image.Image:
    """An object swirled around its centre."""
    pixels = np.array(_sprite(style, random))
    down, across = np.mgrid[0:SPRITE_PX, 0:SPRITE_PX] - SPRITE_PX / 2
    radius = np.hypot(down, across)
    turn = random.choice([-1, 1]) * random.uniform(3, 6) * np.clip(1 - radius / (0.6 * SPRITE_PX), 0, 1)
    y = np.cos(turn) * down - np.sin(turn) * across + SPRITE_PX / 2
    x = np.sin(turn) * down + np.cos(turn) * across + SPRITE_PX / 2
    inside = [np.clip(np.rint(axis), 0, SPRITE_PX - 1).astype(int) for axis in (y, x)]
    return Image.fromarray(pixels[inside[0], inside[1]])


def nothing(style: str, random: np.random.Generator) -> Image.Image:
    """No object at all."""
    return Image.new("RGBA", (SPRITE_PX, SPRITE_PX))


def quarters(style: str, random: np.random.Generator) -> Image.Image:
    """An object cut into a 3x3 board whose tiles have changed places (test only)."""
    source, step = _sprite(style, random), SPRITE_PX // 3
    tiles = [
        source.crop((x, y, x + step, y + step))
        for y in range(0, 3 * step, step)
        for x in range(0, 3 * step, step)
    ]
    order = np.roll(random.permutation(9), 1)
    board = Image.new("RGBA", source.size)
    for slot, tile in enumerate(order):
        board.paste(tiles[int(tile)], (slot % 3 * step, slot // 3 * step))
    return board


def halves(style: str, random: np.random.Generator) -> Image.Image:
    """The left half of one object next to the right half of another (test only)."""
    first, second = _two(style, random)
    whole, half = second.copy(), SPRITE_PX // 2
    whole.paste(first.crop((0, 0, half, SPRITE_PX)), (0, 0))
    return whole


TRAINED: dict[str, Maker] = {
    "blend": blend,
    "blob": blob,
    "smear": smear,
    "noise": noise,
    "wrong shape": wrong_shape,
    "nothing": nothing,
    "stack": stack,
    "slices": slices,
    "swirl": swirl,
}
TEST_ONLY: dict[str, Maker] = {"quarters": quarters, "halves": halves}


def draw_negative(kind: str, seed: int, index: int) -> tuple[str, Image.Image]:
    """Return negative picture `index` of a kind: the place that it shows, and its pixels, RGB 64x64."""
    random = numpy_rng(seed, "negative", kind, index)
    style = STYLES[int(random.integers(len(STYLES)))]
    place = PLACES[int(random.integers(len(PLACES)))]
    relation = RELATIONS[int(random.integers(len(RELATIONS)))]
    figure = (TRAINED | TEST_ONLY)[kind](style, random)
    return place, compose(place, relation, style, figure, random)
