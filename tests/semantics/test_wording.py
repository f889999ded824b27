"""What prevents a prompt from sharing steps, and what to write instead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.semantics.concepts.parser import Obstacle, Part, obstacle, parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Role
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.wording import explain, nearest_nouns
from tests.semantics.conftest import law

WORDS = st.sampled_from(
    ("a", "the", "apple", "zorblax", "table", "box", "on", "under", "in", "front", "of", "near", "with", ",")
)


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("a shiny apple on a table", None),
        ("on a table, an apple", None),
        ("a shiny zorblax on a table", Obstacle(Part.OBJECT, "zorblax")),
        ("on a table", Obstacle(Part.OBJECT, "")),
        ("a shiny apple", Obstacle(Part.PLACE, "")),
        ("an apple on", Obstacle(Part.PLACE, "")),
        ("an apple on a small zorblat", Obstacle(Part.PLACE, "zorblat")),
        ("an apple in a zorblat", Obstacle(Part.PLACE, "zorblat")),
        ("an apple under a table", Obstacle(Part.RELATION, "under")),
        ("an apple in front of a table", Obstacle(Part.RELATION, "in front of")),
        ("an apple in a box", Obstacle(Part.RELATION, "in")),
    ],
)
def test_the_word_that_prevents_sharing_is_named(
    prompt: str, expected: Obstacle | None, taxonomy: Taxonomy
) -> None:
    assert obstacle(prompt, taxonomy) == expected


@law
@given(st.lists(WORDS, min_size=1, max_size=9))
def test_there_is_an_obstacle_exactly_where_a_part_is_missing(words: list[str]) -> None:
    prompt, taxonomy = " ".join(words), Taxonomy.load()
    parsed = parse(prompt, taxonomy)
    whole = None not in (parsed.object, parsed.relation, parsed.place)
    assert (obstacle(prompt, taxonomy) is None) == whole


def test_known_words_are_proposed_public_ones_first(taxonomy: Taxonomy) -> None:
    assert nearest_nouns("tabel", Role.PLACE, taxonomy)[0] == "table"
    assert nearest_nouns("aple", Role.OBJECT, taxonomy)[0] == "apple"
    assert nearest_nouns("qqqqqqqq", Role.OBJECT, taxonomy) == []
    # what is proposed shares
    for word in nearest_nouns("tabel", Role.PLACE, taxonomy):
        assert obstacle(f"an apple on a {word}", taxonomy) is None


@pytest.mark.parametrize(
    ("policy", "minimum", "told"),
    [(Policy.SILENT, 3, "discloses nothing"), (Policy.KIND, 99, "fewer than 99"), (Policy.KIND, 3, "")],
)
def test_settings_that_prevent_sharing_are_told(
    policy: Policy, minimum: int, told: str, taxonomy: Taxonomy
) -> None:
    found = explain("an apple on a table", policy, taxonomy, minimum)
    assert told in found.reason
    assert bool(found.reason) == bool(found.instead) == (found.signature is None)
