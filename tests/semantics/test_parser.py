"""From prompts to concepts; experiments/knowledge/measure_parser.py measures the accuracy on 200 captions."""

import importlib.util
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.data.scene_words import GENERAL_OBJECT_NOUNS, GENERAL_PLACE_NOUNS, OBJECT_NOUNS, PLACE_NOUNS
from fedaigc.data.scenes import combinations
from fedaigc.errors import UserError
from fedaigc.semantics.concepts.parser import parse, singulars
from fedaigc.semantics.concepts.senses import ALIASES, CURATED_SENSES, resolve
from fedaigc.semantics.concepts.taxonomy import ROOT, Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation, Role, render_prompt
from tests.semantics.conftest import law

OBJECTS = {noun.word: noun for noun in OBJECT_NOUNS}
PLACES = {noun.word: noun for noun in PLACE_NOUNS}
APPLE, TABLE, DOG, BEACH = (
    noun.concept for noun in (OBJECTS["apple"], PLACES["table"], OBJECTS["dog"], PLACES["beach"])
)
KNOWLEDGE = Path(__file__).parents[2] / "experiments" / "knowledge"


def read(prompt: str) -> tuple[str | None, Relation | None, str | None]:
    parsed = parse(prompt, Taxonomy.load())
    return parsed.object, parsed.relation, parsed.place


def is_a(word: str, role: Role, kind: str) -> bool:
    taxonomy = Taxonomy.load()
    concept = resolve(word, role, taxonomy)
    return concept is not None and taxonomy.is_a(concept, kind)


def test_every_caption_of_scenes_is_read_exactly() -> None:
    for thing, relation, place in combinations(include_held_out=True):
        prompt = f"{OBJECTS[thing].phrase} {relation} {PLACES[place].phrase}"
        assert read(prompt) == (OBJECTS[thing].concept, Relation(relation), PLACES[place].concept), prompt


def test_every_group_prompt_is_read_as_what_it_renders() -> None:
    for thing in GENERAL_OBJECT_NOUNS:
        for place in GENERAL_PLACE_NOUNS:
            if ROOT in (thing.concept, place.concept):
                continue  # "a thing" and "a place" have narrower meanings in WordNet
            prompt = render_prompt(thing.concept, Relation.NEAR, place.concept)
            assert read(prompt) == (thing.concept, Relation.NEAR, place.concept), prompt


@pytest.mark.parametrize(
    "prompt",
    [
        "apple on table",
        "An Apple on THE table.",
        "a big, shiny red apple on an old wooden table",
        "an apple, red and shiny, on a table",
        "two apples upon a table",
        "a photo of an apple on top of a table",
        "please draw an apple lying on the edge of a table, studio lighting, 4k",
        "there is an apple on my table",
        "on a table, an apple",
        "on the table there is an apple",
        "an apple with a green leaf on a table at night",
        "an apple covered with dew on a table in noto style",
        "a heart-shaped apple atop a table",
        "a slice of apple on a table",
        "\u201can apple\u201d on a table",
    ],
)
def test_ways_to_say_an_apple_on_a_table(prompt: str) -> None:
    assert read(prompt) == (APPLE, Relation.ON, TABLE)


@pytest.mark.parametrize(
    ("preposition", "relation"),
    [
        ("on", Relation.ON),
        ("upon", Relation.ON),
        ("in", Relation.ON),
        ("along", Relation.ON),
        ("near", Relation.NEAR),
        ("beside", Relation.NEAR),
        ("by", Relation.NEAR),
        ("next to", Relation.NEAR),
        ("close to", Relation.NEAR),
        ("above", Relation.ABOVE),
        ("over", Relation.ABOVE),
        ("hovering over", Relation.ABOVE),
    ],
)
def test_relations_and_their_synonyms(preposition: str, relation: Relation) -> None:
    assert read(f"a dog {preposition} a field") == (DOG, relation, PLACES["field"].concept)


@pytest.mark.parametrize(
    "prompt",
    [
        "a dog under a table",
        "a dog behind a table",
        "a dog in front of a table",
        "a dog in a box",  # inside is a relation that the closed list lacks
    ],
)
def test_unknown_relation_gives_neither_relation_nor_place(prompt: str) -> None:
    assert read(prompt) == (DOG, None, None)


def test_bare_object_and_unknown_words() -> None:
    assert read("a small dog") == (DOG, None, None)
    assert read("a zorblax on a beach") == (None, Relation.ON, BEACH)
    assert read("a dog on a zorblax") == (DOG, Relation.ON, None)
    assert read("a zorbly dog on a fnurgish beach") == (DOG, Relation.ON, BEACH)


@pytest.mark.parametrize(
    "prompt", ["ein Hund auf einem Tisch", "桌子上的苹果", "تفاحة على طاولة", "!?", "🍎", "42", "the of on"]
)
def test_other_languages_and_no_language_survive(prompt: str) -> None:
    thing, _, place = read(prompt)
    assert thing is None or place is None


def test_synonyms_of_the_words_of_scenes(taxonomy: Taxonomy) -> None:
    # wordnet's synsets, its hypernyms, and the aliases
    assert resolve("couch", Role.PLACE, taxonomy) == PLACES["sofa"].concept
    assert is_a("kitchen table", Role.PLACE, TABLE)
    assert resolve("automobile", Role.OBJECT, taxonomy) == OBJECTS["car"].concept
    for word in ("lawn", "meadow", "grass", "pasture"):
        assert is_a(word, Role.PLACE, PLACES["field"].concept), word


def test_senses_go_by_role(taxonomy: Taxonomy) -> None:
    # the first sense of bank is sloping land; no one puts it on a table
    assert is_a("bank", Role.OBJECT, "n03099154")  # a container
    assert is_a("bank", Role.PLACE, "n09310874")  # a geological formation
    # the first tiger is a fierce person, the first octopus and banana are dinner and a plant
    assert resolve("tiger", Role.OBJECT, taxonomy) == "n02132256"
    assert resolve("octopus", Role.OBJECT, taxonomy) == "n01972805"
    assert is_a("banana", Role.OBJECT, "n07721676")


def test_curated_senses_are_senses_and_aliases_are_concepts(taxonomy: Taxonomy) -> None:
    for word, concept in CURATED_SENSES.items():
        assert concept in taxonomy.senses(word), word
    for word, concept in ALIASES.items():
        assert concept in taxonomy, word


@pytest.mark.parametrize(
    ("plural", "singular"),
    [
        ("apples", "apple"),
        ("cherries", "cherry"),
        ("knives", "knife"),
        ("wolves", "wolf"),
        ("women", "woman"),
        ("benches", "bench"),
        ("glasses", "glass"),
        ("foxes", "fox"),
        ("potatoes", "potato"),
        ("mice", "mouse"),
        ("buses", "bus"),
    ],
)
def test_plurals(plural: str, singular: str) -> None:
    assert singular in singulars(plural)


def test_a_word_is_first_looked_up_as_it_is() -> None:
    assert singulars("bus")[0] == "bus"
    assert singulars("grass") == ["grass"]


@pytest.mark.parametrize("prompt", ["", "  \n", "a" * 1001, "an apple on a table " * 500])
def test_empty_and_endless_prompts_are_the_users_error(prompt: str) -> None:
    with pytest.raises(UserError, match=r"empty|at most 1,000"):
        parse(prompt, Taxonomy.load())


def test_error_does_not_repeat_the_prompt() -> None:
    with pytest.raises(UserError) as caught:
        parse("secretword " * 200, Taxonomy.load())
    assert "secretword" not in str(caught.value)


def test_printing_a_parse_shows_no_word_of_the_prompt() -> None:
    parsed = parse("a shiny apple on a wooden table", Taxonomy.load())
    assert parsed.modifiers == ("shiny", "wooden")
    for word in ("shiny", "apple", "wooden", "table"):
        assert word not in repr(parsed)


PIECES = st.sampled_from(
    [
        "a",
        "an",
        "the",
        "apple",
        "dogs",
        "table",
        "of",
        "on",
        "in",
        "front",
        "near",
        "by",
        "with",
        ",",
        ".",
        "and",
        "covered",
        "sitting",
        "photo",
        "pair",
        "edge",
        "zorb",
        "'s",
        "-",
    ]
)


@law
@given(st.text(min_size=1, max_size=1000) | st.lists(PIECES, min_size=1, max_size=40).map(" ".join))
def test_any_text_is_read_or_refused_as_empty(text: str) -> None:
    taxonomy = Taxonomy.load()
    if not text.strip():
        with pytest.raises(UserError):
            parse(text, taxonomy)
        return
    parsed = parse(text, taxonomy)
    assert parsed.object is None or parsed.object in taxonomy
    assert parsed.place is None or (parsed.place in taxonomy and parsed.relation is not None)


def test_captions_are_two_hundred_and_from_outside_scenes(taxonomy: Taxonomy) -> None:
    captions = [json.loads(line) for line in (KNOWLEDGE / "captions.jsonl").read_text().splitlines()]
    assert len({caption["caption"] for caption in captions}) == 200
    drawn = {noun.concept for noun in (*OBJECT_NOUNS, *PLACE_NOUNS)}
    outside = sum(not {caption["object"], caption["place"]} & drawn for caption in captions)
    assert outside >= 197  # a notebook is a book, a meadow and a pasture are fields


def test_measured_accuracy_stands(taxonomy: Taxonomy) -> None:
    # the floor under what measure_parser.py reports, so that a change that loses accuracy is seen
    spec = importlib.util.spec_from_file_location("measure_parser", KNOWLEDGE / "measure_parser.py")
    assert spec is not None
    assert spec.loader is not None
    measure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measure)
    lines = (KNOWLEDGE / "captions.jsonl").read_text().splitlines()
    right = [measure.outcomes(json.loads(line), taxonomy) for line in lines]
    assert sum(outcome["disclosed"] for outcome in right) >= 0.94 * len(right)
    assert sum(outcome["relation"] for outcome in right) >= 0.98 * len(right)
