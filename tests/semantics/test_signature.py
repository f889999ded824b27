"""What leaves a device: the laws of disclosure, and a schema that lets nothing else through."""

import json
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.data.concepts import OBJECT_NOUNS, PLACE_NOUNS
from fedaigc.semantics.parser import ParsedPrompt, parse
from fedaigc.semantics.public import Relation, Role, drawn_nouns, public_nouns, render_prompt
from fedaigc.semantics.signature import (
    OpenSignature,
    Policy,
    Signature,
    broader,
    consistent_prompts,
    disclose,
)
from fedaigc.semantics.taxonomy import ROOT, Taxonomy
from tests.semantics.conftest import concepts, law

CLOSED = [Policy.EXACT, Policy.KIND, Policy.GENERAL]
FRUIT, MAMMAL, ANIMAL, VEHICLE = "n07721676", "n01864419", "n00015568", "n03105141"
TABLE, DESK, SOFA, RIVER = "n04386330", "n03184367", "n04263630", "n09434308"
FURNITURE, SEAT, WATER = "n03410635", "n04169042", "n09248053"
GOOD = Signature(FRUIT, Relation.ON, TABLE, Policy.KIND)


def said(prompt, policy=Policy.KIND, minimum=3):
    taxonomy = Taxonomy.load()
    signature = disclose(parse(prompt, taxonomy), policy, taxonomy, minimum)
    return render_prompt(signature.object, signature.relation, signature.place) if signature else None


@pytest.mark.parametrize(
    ("prompt", "kind", "general"),
    [
        ("an apple on a table", "a fruit on a table", "a fruit on furniture"),
        ("a shiny hamster on a sofa", "a mammal on a sofa", "a mammal on a seat"),
        ("a bird on a desk", "an animal on a desk", "an animal on furniture"),
        ("a bus near a river", "a vehicle near a river", "a vehicle near water"),
        # outside Scenes: a lake is water, a lawn is a field, a stool is a seat
        ("a tulip near a lake", "a plant near water", "a plant near water"),
        ("a sausage on a stool", "food on a seat", "food on a seat"),
        ("a cat on a lawn", "a mammal on a field", "a mammal on a place"),
        # one man and ten places: in Scenes only a man is a person, so one place alone is too few
        ("a man on a road", "a thing on a road", "a person on a place"),
    ],
)
def test_what_the_policies_say(prompt, kind, general):
    assert said(prompt, Policy.KIND) == kind
    assert said(prompt, Policy.GENERAL) == general


def test_exact_needs_the_minimum_lowered():
    assert said("a red apple on a table", Policy.EXACT, minimum=1) == "an apple on a table"
    assert said("a poodle on an armchair", Policy.EXACT, minimum=1) == "a dog on a chair"
    # an apple on a table fits two public prompts, for Scenes' desk is a table, too
    assert said("an apple on a table", Policy.EXACT, minimum=2) == "an apple on a table"
    assert said("an apple on a table", Policy.EXACT, minimum=3) == "a fruit on a table"


def test_object_is_generalised_first_and_then_the_place():
    # near a river: 5 fruits, 5 kinds of food, 24 things; near water the same; near a place 10 times as many
    prompt = "an apple near a river"
    assert said(prompt, minimum=5) == "a fruit near a river"
    assert said(prompt, minimum=6) == "a thing near a river"
    assert said(prompt, minimum=24) == "a thing near a river"
    assert said(prompt, minimum=25) == "a thing near a place"
    assert said(prompt, minimum=240) == "a thing near a place"
    assert said(prompt, minimum=241) is None


@pytest.mark.parametrize("policy", list(Policy))
@pytest.mark.parametrize(
    "prompt", ["an apple", "a zorblax on a table", "an apple on a zorblax", "an apple under a table"]
)
def test_what_is_not_understood_runs_alone(prompt, policy):
    taxonomy = Taxonomy.load()
    assert disclose(parse(prompt, taxonomy), policy, taxonomy) is None


def test_silent_says_nothing(taxonomy):
    assert disclose(parse("an apple on a table", taxonomy), Policy.SILENT, taxonomy) is None


def test_open_carries_the_prompt_and_says_so(taxonomy):
    signature = disclose(parse("a shiny apple on a table", taxonomy), Policy.OPEN, taxonomy)
    assert isinstance(signature, OpenSignature)
    assert signature.prompt == "a shiny apple on a table"
    assert asdict(signature)["policy"] == "open"
    assert json.loads(signature.to_json())["policy"] == "open"
    assert Signature.from_json(signature.to_json()) == signature


def test_the_default_policy_of_nobody_is_open(taxonomy):
    for policy in CLOSED:
        signature = disclose(parse("a shiny apple on a table", taxonomy), policy, taxonomy)
        assert type(signature) is Signature
        assert "prompt" not in asdict(signature)


def test_minimum_must_be_positive(taxonomy):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        disclose(parse("an apple on a table", taxonomy), Policy.KIND, taxonomy, 0)


@law
@given(concepts, concepts, st.sampled_from(Relation), st.sampled_from(CLOSED), st.integers(1, 240))
def test_laws_of_disclosure(thing, place, relation, policy, minimum):
    taxonomy = Taxonomy.load()
    parsed = ParsedPrompt("sesquipedalian wombat", thing, relation, place, ("sesquipedalian",))
    signature = disclose(parsed, policy, taxonomy, minimum)
    assert signature is not None
    # true: each concept is, or stands above, the one that was meant
    assert taxonomy.is_a(thing, signature.object)
    assert taxonomy.is_a(place, signature.place)
    # public, plausible, and nothing else
    assert signature.object in public_nouns(Role.OBJECT)
    assert signature.place in public_nouns(Role.PLACE)
    fitting = [
        (a, b)
        for a in drawn_nouns(Role.OBJECT)
        for b in drawn_nouns(Role.PLACE)
        if taxonomy.is_a(a, signature.object) and taxonomy.is_a(b, signature.place)
    ]
    assert len(fitting) == consistent_prompts(signature.object, signature.place, taxonomy) >= minimum
    assert set(json.loads(signature.to_json())) == {"object", "relation", "place", "policy"}
    assert Signature.from_json(signature.to_json()) == signature
    # a higher minimum never says more
    further = disclose(parsed, policy, taxonomy, 240)
    assert taxonomy.is_a(signature.object, further.object)
    assert taxonomy.is_a(signature.place, further.place)


MODIFIERS = ("shiny", "enormous", "grandmother's", "humongous", "secret", "purple")
LEAVES = [noun.word for noun in (*OBJECT_NOUNS, *PLACE_NOUNS)]


@law
@given(
    st.sampled_from(OBJECT_NOUNS),
    st.sampled_from(PLACE_NOUNS),
    st.lists(st.sampled_from(MODIFIERS), max_size=3),
    st.sampled_from(CLOSED),
)
def test_no_word_of_the_prompt_is_in_the_signature(thing, place, modifiers, policy):
    taxonomy = Taxonomy.load()
    prompt = f"a {' '.join(modifiers)} {thing.word} near my {' '.join(modifiers)} {place.word}"
    parsed = parse(prompt, taxonomy)
    assert parsed.modifiers == (*modifiers, *modifiers)
    text = disclose(parsed, policy, taxonomy).to_json()
    words = set(json.loads(text).values())
    assert not words & {*MODIFIERS, *LEAVES}
    # the object's own concept neither: the least number of public prompts forbids it
    assert thing.concept not in text


def test_broader_climbs_to_the_root(taxonomy):
    apple = OBJECT_NOUNS[0].concept
    assert broader(apple, Role.OBJECT, taxonomy) == FRUIT
    assert broader(SOFA, Role.PLACE, taxonomy) == SEAT
    assert broader(SEAT, Role.PLACE, taxonomy) == FURNITURE
    assert broader(FURNITURE, Role.PLACE, taxonomy) == ROOT
    with pytest.raises(ValueError, match="nothing public"):
        broader(ROOT, Role.PLACE, taxonomy)


def test_consistent_prompts_by_hand(taxonomy):
    # 5 fruits, 5 mammals and a bird; table and desk are tables; five pieces of furniture, two of them seats
    assert consistent_prompts(FRUIT, RIVER, taxonomy) == 5
    assert consistent_prompts(ANIMAL, DESK, taxonomy) == 6
    assert consistent_prompts(MAMMAL, TABLE, taxonomy) == 5 * 2
    assert consistent_prompts(VEHICLE, FURNITURE, taxonomy) == 3 * 5
    assert consistent_prompts(FRUIT, SEAT, taxonomy) == 5 * 2
    assert consistent_prompts(ROOT, ROOT, taxonomy) == 24 * 10


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
def test_from_json_refuses(change):
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
def test_from_json_refuses_other_text(text):
    with pytest.raises(ValueError):  # noqa: PT011
        Signature.from_json(text)


def test_refusals_do_not_repeat_what_was_refused():
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
def test_open_signatures_are_checked_too(fields):
    good = {**FIELDS, "policy": "open", "prompt": "an apple on a table"}
    assert isinstance(Signature.from_json(json.dumps(good)), OpenSignature)
    with pytest.raises(ValueError):  # noqa: PT011
        Signature.from_json(json.dumps(good | fields))


def test_a_long_open_prompt_of_any_script_comes_through(taxonomy):
    prompt = ("an apple on a table, " + "🍎" * 979)[:1000]
    signature = disclose(parse(prompt, taxonomy), Policy.OPEN, taxonomy)
    assert Signature.from_json(signature.to_json()) == signature


def test_concepts_cannot_be_constructed_past_the_schema():
    with pytest.raises(ValueError, match="public concept"):
        Signature("an apple on a table", Relation.ON, TABLE, Policy.KIND)
    with pytest.raises(ValueError, match="cannot have the policy 'open'"):
        Signature(FRUIT, Relation.ON, TABLE, Policy.OPEN)
    with pytest.raises(ValueError, match="only the policy 'open'"):
        OpenSignature(FRUIT, Relation.ON, TABLE, Policy.KIND, "an apple on a table")


def test_render_prompt():
    assert render_prompt(FRUIT, Relation.ON, TABLE) == "a fruit on a table"
    assert render_prompt("n07571428", Relation.NEAR, WATER) == "food near water"
    assert render_prompt(ROOT, Relation.ABOVE, ROOT) == "a thing above a place"
    with pytest.raises(ValueError, match="no public object"):
        render_prompt(TABLE, Relation.ON, TABLE)
