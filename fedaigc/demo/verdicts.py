"""The judge's verdicts on the demo's images, beside what was asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS
from fedaigc.federation.preloaded import taxonomy
from fedaigc.metrics.intervals import proportion
from fedaigc.metrics.judge import Verdict
from fedaigc.semantics.concepts.parser import parse


@dataclass(frozen=True)
class Wanted:
    """What an image should show.

    Attributes:
        object: The object that the prompt names; None if it names none of Scenes.
        place: The place that the prompt names; None if it names none of Scenes.
        style: The style of the device's private images.
    """

    object: str | None
    place: str | None
    style: str

    @classmethod
    def of(cls, prompt: str, style: str) -> "Wanted":
        """Parse a prompt."""
        parsed = parse(prompt, taxonomy())
        words = [{noun.concept: noun.word for noun in nouns} for nouns in (OBJECT_NOUNS, PLACE_NOUNS)]
        return cls(words[0].get(parsed.object or ""), words[1].get(parsed.place or ""), style)


def in_words(verdict: Verdict, wanted: Wanted) -> str:
    """Return a verdict for the page, such as `apple ✓, table ✗`; without a mark where the judge has no such word."""
    marks = ((verdict.object, wanted.object), (verdict.place, wanted.place))
    return ", ".join(
        word if asked is None else f"{word} {'✓' if word == asked else '✗'}" for word, asked in marks
    )


def accuracies(name: str, verdicts: Sequence[tuple[Verdict, Wanted]]) -> dict[str, Any]:
    """Return the shares of images with the right object, place and style, with 95 % intervals over images.

    An image whose prompt names no object of Scenes does not count for the object, and the same for the place.

    Args:
        name: Name of the row.
        verdicts: Verdict on each image, and what it should show.
    """

    def share(part: Callable[[Verdict | Wanted], str | None]) -> dict[str, Any]:
        found = [part(verdict) == part(wanted) for verdict, wanted in verdicts if part(wanted) is not None]
        return {"n": len(found)} | proportion(found).as_dict()

    return {
        "name": name,
        "n": len(verdicts),
        "object": share(lambda one: one.object),
        "place": share(lambda one: one.place),
        "style": share(lambda one: one.style),
    }
