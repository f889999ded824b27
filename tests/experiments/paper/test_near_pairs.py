"""The results of two draws of near pairs, as predicted from their objects alone."""

from collections.abc import Sequence
from typing import Any

import pytest

from experiments.paper.near_pairs import ALL, FIGURE, PROMPTS, add_expected, every_pair, object_pairs
from experiments.paper.pairs import draw_pairs
from experiments.paper.record import columns


def test_every_ordered_pair_of_one_kind_is_there_as_often() -> None:
    """Kinds of Scenes with 5, 5, 4, 3, 3 and 2 objects: 20 + 20 + 12 + 6 + 6 + 2 ordered pairs."""
    names = object_pairs(columns(every_pair(3, 0)))
    assert len(set(names)) == 66
    assert {names.count(name) for name in names} == {3}
    # every near pair that is drawn is one of them
    assert set(object_pairs(columns(draw_pairs(40, 1)))) <= set(names)


def test_a_draw_is_expected_to_show_the_rates_of_its_objects() -> None:
    """A cat before a dog is seen in 1 of 2, a dog before a cat in 2 of 2: one of each gives 3 / 4."""

    def pairs(*names: tuple[str, str]) -> dict[str, Sequence[str]]:
        return {
            "own": [f"a {own} on a bed" for own, _ in names],
            "other": [f"a {other} on a bed" for _, other in names],
        }

    cat, dog = ("cat", "dog"), ("dog", "cat")
    record: dict[str, Any] = {
        "prompt pairs": {ALL: pairs(cat, cat, dog, dog), FIGURE: pairs(cat, dog), PROMPTS: pairs(dog)},
        "rows": [
            {"pairs": ALL, "each": {"judge": {"object": [1, 0, 1, 1]}}},
            {"pairs": FIGURE},
            {"pairs": PROMPTS},
        ],
    }
    add_expected(record)
    found = {row["pairs"]: row["expected of these objects"] for row in record["rows"]}
    assert found == {ALL: pytest.approx(0.75), FIGURE: pytest.approx(0.75), PROMPTS: pytest.approx(1.0)}
    assert record["share by target object, of all pairs"] == {"cat": 0.5, "dog": 1.0}
