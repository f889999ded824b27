"""Anonymity counts prompts: at least m objects of Scenes produce what a device discloses.

At b8a6c4d this failed: all mammals produced "a mammal", so "an animal" was certainly the bird and "a thing" the man.
Under `general`, "a person" passed because of its ten places. Answers under two minima or policies could be
intersected.
"""

import os
import subprocess
import sys
from collections import Counter, defaultdict
from itertools import product
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.semantics.concepts.parser import ParsedPrompt, parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation, Role, drawn_nouns, render_prompt
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import Signature, disclose

OBJECTS, PLACES = list(drawn_nouns(Role.OBJECT)), list(drawn_nouns(Role.PLACE))
CLOSED = (Policy.EXACT, Policy.KIND, Policy.GENERAL)
CONCEPTS = sorted(Taxonomy.load().graph)


def told(thing: str, place: str, policy: Policy, minimum: int, relation: Relation = Relation.ON) -> Any:
    """Return what a device discloses of a prompt with these concepts."""
    return disclose(ParsedPrompt("", thing, relation, place, ()), policy, Taxonomy.load(), minimum)


@pytest.mark.parametrize("policy", CLOSED)
@pytest.mark.parametrize("minimum", [2, 3, 4, 5, 6, 10, 24])
def test_at_least_m_objects_produce_every_signature_of_a_public_prompt(policy: Policy, minimum: int) -> None:
    """The 240 public prompts of a relation: m objects produce the same at one place, or nothing is disclosed."""
    producers: defaultdict[Signature | None, Counter[str]] = defaultdict(Counter)
    for thing, place in product(OBJECTS, PLACES):
        signature = told(thing, place, policy, minimum)
        # under `exact` and `kind` the place is disclosed by design: only objects at the same place count
        producers[signature][place] += 1
    for signature, at_place in producers.items():
        assert min(at_place.values()) >= minimum or signature is None
        if policy is Policy.GENERAL and signature is not None:
            assert len(at_place) >= minimum


@settings(deadline=None)
@given(st.sampled_from(CONCEPTS), st.sampled_from(CONCEPTS), st.sampled_from(CLOSED), st.integers(2, 10))
def test_nor_has_any_other_prompt_a_signature_of_its_own(
    thing: str, place: str, policy: Policy, minimum: int
) -> None:
    """A lizard is not in a public prompt. The word for it is one that at least m public objects produce, too."""
    signature = told(thing, place, policy, minimum)
    assert sum(told(other, place, policy, minimum) == signature for other in OBJECTS) >= minimum
    if policy is Policy.GENERAL:
        assert sum(told(thing, other, policy, minimum) == signature for other in PLACES) >= minimum


@settings(deadline=None)
@given(
    st.sampled_from(CONCEPTS),
    st.sampled_from(CONCEPTS),
    st.sampled_from(CLOSED),
    st.integers(2, 10),
    st.sampled_from(CLOSED),
    st.integers(0, 10),
)
def test_answers_to_several_questions_cannot_be_intersected(
    thing: str, place: str, policy: Policy, minimum: int, asked: Policy, more: int
) -> None:
    """A server may ask under a more restrictive policy and with a larger m, which reveals nothing more."""
    quieter = max(policy, asked, key=CLOSED.index)
    own, other = told(thing, place, policy, minimum), told(thing, place, quieter, minimum + more)
    for public in OBJECTS:
        if told(public, place, policy, minimum) == own:
            assert told(public, place, quieter, minimum + more) == other


@pytest.mark.parametrize("policy", CLOSED)
@pytest.mark.parametrize("prompt", ["a bird on a table", "a man on a road", "a guitar near a river"])
def test_the_only_one_of_its_kind_is_not_named_by_its_kind(prompt: str, policy: Policy) -> None:
    taxonomy = Taxonomy.load()
    signature = disclose(parse(prompt, taxonomy), policy, taxonomy)
    assert signature is not None
    assert render_prompt(signature.object, signature.relation, signature.place).startswith("a thing ")


def test_every_machine_has_the_same_table() -> None:
    """The order of sets and dicts, which depends on the hash seed, has no effect."""
    program = (
        "from fedaigc.semantics.anonymity import *\n"
        "graph = Taxonomy.load()\n"
        "print([sorted(general_words(role, m, graph).items()) for role in Role for m in range(1, 11)])"
    )
    shown = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=os.environ | {"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(shown) == 1
