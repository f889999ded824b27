"""Scenes: images of "an apple on a table" and the like, drawn in seven styles at 64x64 pixels.

A scene is an object, a relation and a place in one style. A seed fixes where things stand. The style is the
natural id for partitions: one client, one style. Some (object, place) pairs are held out of all training
(`scene_words.held_out`), and two styles are held out of pre-training.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from fedaigc.data.places import SCALE, SIZE, paint
from fedaigc.data.scene_words import LABELS, OBJECT_NOUNS, OBJECTS, PLACE_NOUNS, PLACES, RELATIONS, held_out
from fedaigc.data.sprites import SPRITE_PX, STYLES, sprites
from fedaigc.errors import UserError
from fedaigc.rng import numpy_rng

if TYPE_CHECKING:
    import datasets


@dataclass(frozen=True)
class Scene:
    """The content of an image of Scenes.

    Attributes:
        object: One of OBJECTS.
        relation: One of RELATIONS.
        place: One of PLACES.
        style: One of STYLES.
    """

    object: str
    relation: str
    place: str
    style: str

    @property
    def caption(self) -> str:
        """The plain caption, e.g. "an apple on a table". It never names the style."""
        thing = OBJECT_NOUNS[OBJECTS.index(self.object)].phrase
        place = PLACE_NOUNS[PLACES.index(self.place)].phrase
        return f"{thing} {self.relation} {place}"


def compose(
    place: str, relation: str, style: str, figure: Image.Image, random: np.random.Generator
) -> Image.Image:
    """Draw `place` in `style` and paste `figure` into it.

    Args:
        place: One of PLACES.
        relation: How the figure stands to the place.
        style: One of STYLES.
        figure: A square RGBA image that stands on its bottom edge.
        random: Draws the tints and positions.

    Returns:
        The RGB image, 64x64.
    """
    canvas, stand = paint(place, relation, style, random)
    height = round(stand.height * SCALE)
    figure = figure.resize((height, height), Image.Resampling.BILINEAR, reducing_gap=1.5)
    left, top = round(stand.x * SCALE - height / 2), round(stand.bottom * SCALE - height)
    if relation != "above":  # a soft shadow makes the object stand on the ground
        patch = (left, top + height - height // 10, left + height, top + height + height // 14)
        shadow = Image.new("L", canvas.size)
        ImageDraw.Draw(shadow).ellipse(patch, fill=70)
        canvas.paste((20, 20, 30), (0, 0), shadow)
    canvas.paste(figure, (left, top), figure)
    return canvas.reduce(SCALE)


def render(scene: Scene, random: np.random.Generator) -> Image.Image:
    """Draw a scene as a 64x64 RGB image. The same generator state gives the same pixels.

    Raises:
        UserError: If Scenes does not know a word of the scene.
    """
    for word, known in (
        (scene.object, OBJECTS),
        (scene.relation, RELATIONS),
        (scene.place, PLACES),
        (scene.style, STYLES),
    ):
        if word not in known:
            raise UserError(f"Scenes cannot draw {word!r}: expected one of {', '.join(known)}")
    return compose(scene.place, scene.relation, scene.style, sprites(scene.style)[scene.object], random)


def combinations(*, include_held_out: bool) -> list[tuple[str, str, str]]:
    """Return all (object, relation, place) triples, with or without the held-out pairs."""
    return [
        (thing, relation, place)
        for thing in OBJECTS
        for relation in RELATIONS
        for place in PLACES
        if include_held_out or not held_out(thing, place)
    ]


def held_out_combinations() -> list[tuple[str, str, str]]:
    """Return the (object, relation, place) triples whose object and place are never trained together."""
    return [triple for triple in combinations(include_held_out=True) if held_out(triple[0], triple[2])]


def draw_scenes(
    n: int, seed: int, *, styles: tuple[str, ...] = STYLES, triples: list[tuple[str, str, str]] | None = None
) -> Iterator[tuple[Scene, Image.Image]]:
    """Yield `n` random scenes and their images. Scene i depends only on (seed, i), `styles` and `triples`.

    Args:
        n: Number of scenes.
        seed: Seed of the scenes.
        styles: The styles to draw from.
        triples: The (object, relation, place) triples to draw from. None draws from all that are not held
            out.
    """
    triples = combinations(include_held_out=False) if triples is None else triples
    for i in range(n):
        random = numpy_rng(seed, "scene", i)
        thing, relation, place = triples[int(random.integers(len(triples)))]
        scene = Scene(thing, relation, place, styles[int(random.integers(len(styles)))])
        yield scene, render(scene, random)


def scenes_dataset(
    n: int, seed: int, *, styles: tuple[str, ...] = STYLES, triples: list[tuple[str, str, str]] | None = None
) -> "datasets.Dataset":
    """Return `n` scenes as a `datasets.Dataset` with image, caption, object, relation, place and style.

    The arguments are those of `draw_scenes`.
    """
    import datasets

    columns: dict[str, list[object]] = {key: [] for key in ("image", "caption", *LABELS)}
    for scene, image in draw_scenes(n, seed, styles=styles, triples=triples):
        columns["image"].append(image)
        columns["caption"].append(scene.caption)
        for key in LABELS:
            columns[key].append(getattr(scene, key))
    features = datasets.Features(
        {"image": datasets.Image(), **{key: datasets.Value("string") for key in list(columns)[1:]}}
    )
    return datasets.Dataset.from_dict(columns, features=features)


__all__ = [
    "SIZE",
    "SPRITE_PX",
    "Scene",
    "combinations",
    "compose",
    "draw_scenes",
    "held_out_combinations",
    "render",
    "scenes_dataset",
]
