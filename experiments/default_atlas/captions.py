"""The public captions of the default atlas: Scenes and beyond, generated from lists of words.

All captions are ours. They are the same on every machine: what is drawn is drawn from a fixed seed.
"""

from collections.abc import Callable, Sequence

from fedaigc.data.scene_words import (
    GENERAL_OBJECT_NOUNS,
    GENERAL_PLACE_NOUNS,
    OBJECT_NOUNS,
    PLACE_NOUNS,
    RELATIONS,
)
from fedaigc.rng import numpy_rng

SEED = 0


def words(text: str) -> tuple[str, ...]:
    """Return the words of a text."""
    return tuple(text.split())


STYLES = (
    "noto style",
    "flat style",
    "fluent style",
    "emojione style",
    "twemoji style",
    "a flat drawing",
    "an oil painting",
    "a watercolour",
    "a pencil sketch",
    "pixel art",
    "a photo",
)
TIMES = (
    "at sunrise",
    "in the morning",
    "at noon",
    "at sunset",
    "at night",
    "in the rain",
    "in the snow",
    "in the fog",
    "in summer",
    "in winter",
)
QUALITIES = (
    "small",
    "big",
    "little",
    "old",
    "new",
    "nice",
    "round",
    "shiny",
    "simple",
    "lovely",
    "quiet",
    "clean",
)
COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "brown", "pink", "purple", "grey")
COUNTS = ("two", "three", "four", "five", "many")
# words of the knowledge graph that Scenes does not have
NOUNS = words(
    "banana cherry grape peach orange tomato carrot potato mushroom bread cake cookie cheese egg pizza sandwich "
    "bottle glass bowl plate spoon knife lamp candle mirror vase basket box bag hat shoe shirt coat ring key "
    "cow sheep goat pig lion tiger bear wolf fox deer monkey zebra giraffe mouse duck chicken owl eagle penguin "
    "fish shark whale turtle frog snake spider bee butterfly bicycle motorcycle truck tractor boat ship airplane "
    "helicopter rocket balloon kite drum piano violin trumpet camera telephone computer television radio robot "
    "woman child girl boy king queen soldier doctor farmer dancer rose grass leaf palm"
)
SITES = words(
    "street bridge house castle church tower garden park forest mountain hill lake sea island desert "
    "farm city village kitchen bedroom bathroom library museum school shop station harbor airport stadium "
    "window door wall fence roof bench shelf carpet"
)


def phrase(word: str) -> str:
    """Return a noun with its article.

    Example:
        >>> phrase("owl")
        'an owl'
    """
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def plural(word: str) -> str:
    """Return the plural of a regular noun.

    Example:
        >>> plural("bus"), plural("strawberry")
        ('buses', 'strawberries')
    """
    if word == "man":
        return "men"
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}es" if word.endswith(("s", "ch", "x")) else f"{word}s"


def scenes_captions() -> list[str]:
    """Return the plain captions of Scenes: every object in every relation to every place."""
    return [f"{o.phrase} {r} {p.phrase}" for o in OBJECT_NOUNS for r in RELATIONS for p in PLACE_NOUNS]


def general_captions() -> list[str]:
    """Return captions in which object, place or both are general words."""
    things, places = (*OBJECT_NOUNS, *GENERAL_OBJECT_NOUNS), (*PLACE_NOUNS, *GENERAL_PLACE_NOUNS)
    return [
        f"{o.phrase} {r} {p.phrase}"
        for o in things
        for r in RELATIONS
        for p in places
        if o in GENERAL_OBJECT_NOUNS or p in GENERAL_PLACE_NOUNS
    ]


def default_captions() -> list[str]:
    """Return all captions of the default atlas, sorted."""
    random = numpy_rng(SEED, "captions of the default atlas")

    def one(words: Sequence[str]) -> str:
        return words[int(random.integers(len(words)))]

    objects, places = [n.word for n in OBJECT_NOUNS], [n.word for n in PLACE_NOUNS]

    def where() -> str:
        return f"{one(RELATIONS)} {phrase(one(places))}"

    def scene() -> str:
        return f"{phrase(one(objects))} {where()}"

    kinds: list[tuple[int, Callable[[], str]]] = [
        (150, lambda: f"{scene()}, {one(STYLES)}"),
        (150, lambda: f"{phrase(f'{one(QUALITIES)} {one(objects)}')} {where()}"),
        (150, lambda: f"{phrase(f'{one(COLOURS)} {one(objects)}')} {where()}"),
        (120, lambda: f"{scene()} {one(TIMES)}"),
        (120, lambda: f"{one(COUNTS)} {plural(one(objects))} {where()}"),
        (150, lambda: f"{phrase(one(objects))} and {phrase(one(objects))} {where()}"),
        (100, lambda: f"{one(objects)}, {one(places)}"),
        (100, lambda: f"{phrase(one(NOUNS))} {where()}"),
        (100, lambda: f"{phrase(one(objects))} {one(RELATIONS)} {phrase(one(SITES))}"),
        (100, lambda: f"{phrase(one(NOUNS))} {one(RELATIONS)} {phrase(one(SITES))}"),
    ]
    found = {*scenes_captions(), *general_captions()}
    found |= {
        noun.phrase for noun in (*OBJECT_NOUNS, *GENERAL_OBJECT_NOUNS, *PLACE_NOUNS, *GENERAL_PLACE_NOUNS)
    }
    for count, draw in kinds:
        more: set[str] = set()
        while len(more) < count:
            more.add(draw())
        found |= more
    return sorted(found)
