"""Tags of an equality test agree exactly where prompts are equal, and cannot be searched through a list."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.collaboration.equality.blinded_keys import TAG_BYTES, BlindedKey, EqualityTest, twins
from fedaigc.collaboration.equality.generator import generator, on_curve
from fedaigc.errors import UserError

RUN, NUMBER = "run", "ab" * 16


def digest(prompt: str) -> bytes:
    return prompt.encode().ljust(32, b".")


def keys_of(*prompts: str) -> list[BlindedKey]:
    return [BlindedKey(digest(prompt), RUN, NUMBER) for prompt in prompts]


def test_of(keys: list[BlindedKey]) -> EqualityTest:
    return EqualityTest(RUN, NUMBER, tuple(key.public for key in keys))


test_of.__test__ = False  # type: ignore[attr-defined]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=9), st.randoms(use_true_random=False))
def test_tags_agree_where_prompts_are_equal_and_nowhere_else(prompts: list[str], random: object) -> None:
    keys = keys_of(*prompts)
    tags = {}
    for key in keys:
        # each is shown the list in another order, and keeps nothing but its secret number
        shown = test_of(random.sample(keys, len(keys)))  # type: ignore[attr-defined]
        shown.check(key.public)
        again = BlindedKey(digest(prompts[keys.index(key)]), RUN, NUMBER, key.private)
        tags[key.public] = again.tags(shown)
    test = test_of(keys)
    found = {frozenset(same) for same in twins(test, tags)}
    expected = {
        frozenset(key.public for key, prompt in zip(keys, prompts, strict=True) if prompt == each)
        for each in set(prompts)
        if prompts.count(each) > 1
    }
    assert found == expected
    # all tags of members with different prompts are different, so nothing but equality shows
    said = {
        (key.public, other): tag
        for key in keys
        for other, tag in zip(test.others(key.public), tags[key.public], strict=True)
    }
    for i, one in enumerate(keys):
        for j, other in enumerate(keys[:i]):
            same = said[one.public, other.public] == said[other.public, one.public]
            assert same == (prompts[i] == prompts[j])
    assert {len(tag) for tag in said.values()} == {TAG_BYTES}
    assert len(set(said.values())) >= len(said) // 2


def test_a_member_that_says_nothing_is_in_no_class() -> None:
    keys = keys_of("a", "a", "a")
    test = test_of(keys)
    tags = {key.public: key.tags(test) for key in keys[:2]}
    assert twins(test, tags) == [(keys[0].public, keys[1].public)]
    assert twins(test, {}) == []


def test_a_server_tests_one_guess_a_key_and_not_a_list() -> None:
    """What a server that makes up a member learns is whether its one guess was right."""
    guesses = [f"prompt {i}" for i in range(50)]
    victim = BlindedKey(digest(guesses[17]), RUN, NUMBER)
    for guess in (guesses[3], guesses[17]):
        made_up = BlindedKey(digest(guess), RUN, NUMBER)
        test = test_of([victim, made_up])
        (tag,) = victim.tags(test)
        matches = [made_up.tags(test) == (tag,)]
        # with the same secret number, no other guess gives the tag: it is fixed by the key that was announced
        for other in guesses:
            if other != guess:
                forged = BlindedKey(digest(other), RUN, NUMBER, made_up.private)
                secret = replace(test, keys=(victim.public, forged.public))
                matches.append(forged.tags(secret) == (tag,))
        assert matches[0] == (guess == guesses[17])
        assert not any(matches[1:])


@pytest.mark.parametrize("changes", [{"number": "cd" * 16}, {"run": "other"}])
def test_members_that_were_told_different_things_do_not_match(changes: dict[str, Any]) -> None:
    keys = keys_of("a", "a")
    test = test_of(keys)
    told = replace(test, **changes)
    assert keys[0].tags(test) != keys[1].tags(told)
    more = replace(test, keys=(*test.keys, BlindedKey(digest("b"), RUN, NUMBER).public))
    assert keys[0].tags(test)[0] not in keys[1].tags(more)


def test_a_key_of_another_test_or_run_has_another_point() -> None:
    private = BlindedKey(digest("a"), RUN, NUMBER).private
    publics = {
        BlindedKey(digest("a"), run, number, private).public
        for run, number in ((RUN, NUMBER), (RUN, "cd" * 16), ("other", NUMBER))
    }
    assert len(publics) == 3


def test_wrong_keys_and_lists_are_refused() -> None:
    keys = keys_of("a", "b")
    own, other = (key.public for key in keys)
    for wrong, expected in (
        ((own,), "1 members: expected 2 to 64"),
        (tuple(bytes([i]) * 32 for i in range(65)), "65 members: expected 2 to 64"),
        ((own, other[:31]), "a key of an equality test is invalid"),
        ((own, b"\xff" * 32), "a key of an equality test is invalid"),
        ((own, own), "repeat"),
        ((other, bytes([3]) * 32), "this device's key is not in the list"),
    ):
        with pytest.raises(UserError, match=expected):
            EqualityTest(RUN, NUMBER, wrong).check(own)
    low = EqualityTest(RUN, NUMBER, (own, bytes(32)))
    low.check(own)
    with pytest.raises(UserError, match="low order"):
        keys[0].tags(low)
    with pytest.raises(UserError, match="no member"):
        keys[0].common(test_of(keys), bytes([5]) * 32)


@pytest.mark.parametrize(("members", "bits"), [(2, 1.0), (8, 3.0), (64, 6.0)])
def test_tags_tell_which_member_is_equal_or_none(members: int, bits: float) -> None:
    assert EqualityTest(RUN, NUMBER, tuple(bytes([i]) * 32 for i in range(members))).bits == bits


@settings(max_examples=40, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=40))
def test_all_points_lie_on_the_curve_and_none_on_its_twist(prompt: bytes, number: bytes) -> None:
    """Otherwise the side on which a key lies would tell about the prompt."""
    point = generator(prompt, number)
    assert on_curve(int.from_bytes(point, "little"))
    assert point == generator(prompt, number)
    assert point != generator(prompt, number + b"x")


def test_the_curve_is_told_from_its_twist() -> None:
    assert on_curve(9)  # the base point
    assert not on_curve(2)
    assert sum(on_curve(u) for u in range(3, 203)) in range(60, 140)
