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
    """Return a verdict for the page, such as `apple ✓, table ✗`."""
    marks = (
        (verdict.object, verdict.object == wanted.object),
        (verdict.place, verdict.place == wanted.place),
    )
    return ", ".join(f"{word} {'✓' if right else '✗'}" for word, right in marks)


def accuracies(name: str, verdicts: Sequence[tuple[Verdict, Wanted]]) -> dict[str, Any]:
    """Return the shares of images with the right object, place and style, with 95 % intervals over images.

    Args:
        name: Name of the row.
        verdicts: Verdict on each image, and what it should show.
    """

    def share(right: Callable[[Verdict, Wanted], bool]) -> dict[str, Any]:
        return proportion([right(verdict, wanted) for verdict, wanted in verdicts]).as_dict()

    return {
        "name": name,
        "n": len(verdicts),
        "object": share(lambda verdict, wanted: verdict.object == wanted.object),
        "place": share(lambda verdict, wanted: verdict.place == wanted.place),
        "style": share(lambda verdict, wanted: verdict.style == wanted.style),
    }
