"""The content that leaves a device: laws of disclosure, and a schema that accepts nothing else."""

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS, Noun
from fedaigc.semantics.concepts.parser import ParsedPrompt, parse
from fedaigc.semantics.concepts.taxonomy import ROOT, Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation, Role, public_nouns, render_prompt
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import OpenSignature, Signature, disclose, says_all_of
from tests.semantics.conftest import concepts, law

CLOSED = [Policy.EXACT, Policy.KIND, Policy.GENERAL]
FRUIT = "n07721676"
TABLE, WATER, FURNITURE = "n04386330", "n09248053", "n03410635"
GOOD = Signature(FRUIT, Relation.ON, TABLE, Policy.KIND)


def said(prompt: str, policy: Policy = Policy.KIND, minimum: int = 3) -> str | None:
    taxonomy = Taxonomy.load()
    signature = disclose(parse(prompt, taxonomy), policy, taxonomy, minimum)
    return render_prompt(signature.object, signature.relation, signature.place) if signature else None


@pytest.mark.parametrize(
    ("prompt", "kind", "general"),
    [
        ("an apple on a table", "a fruit on a table", "a fruit on furniture"),
        ("a shiny hamster on a sofa", "a mammal on a sofa", "a mammal on furniture"),
        ("a bus near a river", "a vehicle near a river", "a vehicle near a place"),
        # Scenes has one bird and one man: alone, neither "an animal" nor "a person" would hide them
        ("a bird on a desk", "a thing on a desk", "a thing on furniture"),
        ("a man on a road", "a thing on a road", "a thing on a place"),
        # and two devices: an object is what says least of the rest
        ("a guitar on a bed", "a thing on a bed", "a thing on furniture"),
        # outside Scenes: a lake is water, a lawn is a field, a stool is a seat, a lizard is an animal
        ("a tulip near a lake", "a plant near water", "a plant near a place"),
        ("a sausage on a stool", "a thing on a seat", "a thing on furniture"),
        ("a cat on a lawn", "a mammal on a field", "a mammal on a place"),
        ("a lizard on a road", "a thing on a road", "a thing on a place"),
    ],
)
def test_what_the_policies_say(prompt: str, kind: str, general: str) -> None:
    assert said(prompt, Policy.KIND) == kind
    assert said(prompt, Policy.EXACT) == kind
    assert said(prompt, Policy.GENERAL) == general


def test_a_minimum_of_one_says_what_the_policy_says() -> None:
    assert said("a red apple on a table", Policy.EXACT, minimum=1) == "an apple on a table"
    assert said("a poodle on an armchair", Policy.EXACT, minimum=1) == "a dog on a chair"
    assert said("a lizard on a desk", Policy.EXACT, minimum=1) == "an animal on a desk"
    assert said("a bird on a sofa", Policy.KIND, minimum=1) == "an animal on a sofa"
    assert said("a bird on a sofa", Policy.GENERAL, minimum=1) == "an animal on a seat"


def test_words_are_merged_as_the_minimum_grows() -> None:
    # 5 fruits and 5 mammals; 4 plants; 3 vehicles
    for prompt, word, most in (
        ("an apple near a river", "a fruit", 5),
        ("a horse near a river", "a mammal", 5),
        ("a tulip near a river", "a plant", 4),
        ("a bus near a river", "a vehicle", 3),
        ("a clock near a river", "a device", 2),
    ):
        assert said(prompt, minimum=most) == f"{word} near a river"
        assert said(prompt, minimum=most + 1) == "a thing near a river"
    # Scenes has 24 objects and 10 places
    assert said("an apple near a river", minimum=24) == "a thing near a river"
    assert said("an apple near a river", minimum=25) is None
    assert said("an apple near a river", Policy.GENERAL, minimum=10) == "a thing near a place"
    assert said("an apple near a river", Policy.GENERAL, minimum=11) is None


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize(
    "prompt", ["an apple", "a zorblax on a table", "an apple on a zorblax", "an apple under a table"]
)
def test_what_is_not_understood_runs_alone(prompt: str, policy: Policy) -> None:
    taxonomy = Taxonomy.load()
    assert disclose(parse(prompt, taxonomy), policy, taxonomy) is None


def test_silent_says_nothing(taxonomy: Taxonomy) -> None:
    assert disclose(parse("an apple on a table", taxonomy), Policy.SILENT, taxonomy) is None


def test_open_carries_the_prompt_and_says_so(taxonomy: Taxonomy) -> None:
    signature = disclose(parse("a shiny apple on a table", taxonomy), Policy.OPEN, taxonomy)
    assert isinstance(signature, OpenSignature)
    assert signature.prompt == "a shiny apple on a table"
    assert asdict(signature)["policy"] == "open"
    assert json.loads(signature.to_json())["policy"] == "open"
    assert Signature.from_json(signature.to_json()) == signature


def test_the_default_policy_of_nobody_is_open(taxonomy: Taxonomy) -> None:
    for policy in CLOSED:
        signature = disclose(parse("a shiny apple on a table", taxonomy), policy, taxonomy)
        assert type(signature) is Signature
        assert "prompt" not in asdict(signature)


def test_minimum_must_be_positive(taxonomy: Taxonomy) -> None:
    with pytest.raises(ValueError, match="at least 1, got 0"):
        disclose(parse("an apple on a table", taxonomy), Policy.KIND, taxonomy, 0)


@law
@given(concepts, concepts, st.sampled_from(Relation), st.sampled_from(CLOSED), st.integers(1, 10))
def test_what_is_disclosed_is_true_and_public_and_nothing_else(
    thing: str, place: str, relation: Relation, policy: Policy, minimum: int
) -> None:
    taxonomy = Taxonomy.load()
    parsed = ParsedPrompt("sesquipedalian wombat", thing, relation, place, ("sesquipedalian",))
    signature = disclose(parsed, policy, taxonomy, minimum)
    assert signature is not None
    # true: each concept is, or stands above, the one that was meant
    assert taxonomy.is_a(thing, signature.object)
    assert taxonomy.is_a(place, signature.place)
    assert signature.object in public_nouns(Role.OBJECT)
    assert signature.place in public_nouns(Role.PLACE)
    assert set(json.loads(signature.to_json())) == {"object", "relation", "place", "policy"}
    assert Signature.from_json(signature.to_json()) == signature
    # a higher minimum never says more
    assert says_all_of(signature, disclose(parsed, policy, taxonomy, minimum + 1) or signature, taxonomy)


def test_which_signature_says_more_of_a_prompt(taxonomy: Taxonomy) -> None:
    def of(policy: Policy, minimum: int = 3) -> Any:
        return disclose(parse("an apple on a table", taxonomy), policy, taxonomy, minimum)

    ordered = [of(Policy.OPEN), of(Policy.EXACT, 1), of(Policy.EXACT), of(Policy.KIND), of(Policy.GENERAL)]
    ordered.append(Signature(ROOT, Relation.ON, ROOT, Policy.GENERAL))
    for i, more in enumerate(ordered):
        for j, less in enumerate(ordered):
            assert says_all_of(more, less, taxonomy) == (i <= j)
    # by the concepts first: a broader policy with a vaguer word does not say all
    vague, general = of(Policy.KIND, 10), of(Policy.GENERAL)
    assert not says_all_of(vague, general, taxonomy)
    assert not says_all_of(general, vague, taxonomy)
    near = Signature(FRUIT, Relation.NEAR, TABLE, Policy.KIND)
    assert not says_all_of(near, of(Policy.KIND), taxonomy)


MODIFIERS = ("shiny", "enormous", "grandmother's", "humongous", "secret", "purple")
LEAVES = [noun.word for noun in (*OBJECT_NOUNS, *PLACE_NOUNS)]


@law
@given(
    st.sampled_from(OBJECT_NOUNS),
    st.sampled_from(PLACE_NOUNS),
    st.lists(st.sampled_from(MODIFIERS), max_size=3),
    st.sampled_from(CLOSED),
)
def test_no_word_of_the_prompt_is_in_the_signature(
    thing: Noun, place: Noun, modifiers: list[str], policy: Policy
) -> None:
    taxonomy = Taxonomy.load()
    prompt = f"a {' '.join(modifiers)} {thing.word} near my {' '.join(modifiers)} {place.word}"
    parsed = parse(prompt, taxonomy)
    assert parsed.modifiers == (*modifiers, *modifiers)
    signature = disclose(parsed, policy, taxonomy)
    assert signature is not None
    text = signature.to_json()
    words = set(json.loads(text).values())
    assert not words & {*MODIFIERS, *LEAVES}
    # the object's own concept neither: one object alone produces it
    assert thing.concept not in text


FIELDS = asdict(GOOD)


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "an apple on a table"},
        {"note": "x"},
        {"object": "apple"},
        {"object": "n02086723x"},
        {"object": "n02345537"},  # a hamster: in the graph, but not public
        {"object": TABLE},  # public, but as a place
        {"place": FRUIT},
        {"place": None},
        {"object": 7},
        {"relation": "under"},
        {"policy": "secret"},
        {"policy": "silent"},
        {"policy": "open"},  # without a prompt
        {"object": ["n07721676"]},
        {"object": "n07721676" + " " * 200},
    ],
)
def test_from_json_refuses(change: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (enums, JSON and the schema each have their own message)
        Signature.from_json(json.dumps(FIELDS | change))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        '"open"',
        "{}",
        "{",
        "[" * 5000,
        " " * 300 + GOOD.to_json(),
        GOOD.to_json()[:-1] + ',"object":"n07721676"}',
        json.dumps({key: value for key, value in FIELDS.items() if key != "place"}),
        "x" * 20_000,
    ],
)
def test_from_json_refuses_other_text(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Signature.from_json(text)


def test_refusals_do_not_repeat_what_was_refused() -> None:
    for fields in (FIELDS | {"object": "secretword"}, FIELDS | {"secretword": "n07721676"}):
        with pytest.raises(ValueError) as caught:  # noqa: PT011
            Signature.from_json(json.dumps(fields))
        assert "secretword" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"policy": "kind"},
        {"prompt": ""},
        {"prompt": "a" * 1001},
        {"object": "n99999999"},
    ],
)
def test_open_signatures_are_checked_too(fields: Any) -> None:
    good = {**FIELDS, "policy": "open", "prompt": "an apple on a table"}
    assert isinstance(Signature.from_json(json.dumps(good)), OpenSignature)
    with pytest.raises(ValueError):  # noqa: PT011
        Signature.from_json(json.dumps(good | fields))


def test_a_long_open_prompt_of_any_script_comes_through(taxonomy: Taxonomy) -> None:
    prompt = ("an apple on a table, " + "🍎" * 979)[:1000]
    signature = disclose(parse(prompt, taxonomy), Policy.OPEN, taxonomy)
    assert signature is not None
    assert Signature.from_json(signature.to_json()) == signature


def test_concepts_cannot_be_constructed_past_the_schema() -> None:
    with pytest.raises(ValueError, match="public concept"):
        Signature("an apple on a table", Relation.ON, TABLE, Policy.KIND)
    with pytest.raises(ValueError, match="cannot have the policy 'open'"):
        Signature(FRUIT, Relation.ON, TABLE, Policy.OPEN)
    with pytest.raises(ValueError, match="must have the policy 'open'"):
        OpenSignature(FRUIT, Relation.ON, TABLE, Policy.KIND, "an apple on a table")


def test_render_prompt() -> None:
    assert render_prompt(FRUIT, Relation.ON, TABLE) == "a fruit on a table"
    assert render_prompt("n07571428", Relation.NEAR, WATER) == "food near water"
    assert render_prompt(ROOT, Relation.ABOVE, ROOT) == "a thing above a place"
    with pytest.raises(ValueError, match="not a public object"):
        render_prompt(TABLE, Relation.ON, TABLE)
