"""The texts of the device's page: sums of steps and energy, and what was disclosed, in plain words."""

from typing import Any

import pytest

from fedaigc.deployment.page.disclosure import disclosed_words
from fedaigc.deployment.page.sums import sums
from fedaigc.device.home.gallery import Finished
from fedaigc.device.home.prompts import Task, TaskStatus
from fedaigc.device.shared_work import SharedWork
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.vocabulary import Relation
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import Signature, disclose
from fedaigc.wireless.profiles import PHONE


def test_steps_and_energy_add_up() -> None:
    """Two pictures of 11 steps, one received before step 3, and 3 steps for a group.

    Run here: 8 + 11 + 3 = 22 of 22, so nothing is saved: the device ran the group's steps itself. Without
    them 3 are saved, 3 x 24.6 J = 73.8 J of 2 x (11 x 24.6 + 35) J = 611.2 J. Two pictures of the way are two
    decodings of 35 J.
    """
    entries = [
        Finished("0" * 16, "", 3, 11, 8, "", {}, (3, 7)),
        Finished("1" * 16, "", 0, 11, 8, "", {}),
    ]
    helper, member = sums(entries, [SharedWork("0" * 16, 3)], PHONE), sums(entries, [], PHONE)
    assert (helper.own_steps, helper.shared_steps, helper.solo_steps, helper.saved_steps) == (19, 3, 22, 0)
    assert member.saved_steps == 3
    assert member.saved_j == pytest.approx(73.8)
    assert member.solo_energy_j == pytest.approx(611.2)
    assert helper.energy_j == pytest.approx(611.2)
    assert member.strip_j == 70.0


@pytest.mark.parametrize(
    ("policy", "public", "expected"),
    [
        (Policy.EXACT, 1, "“an apple on a table”, by the policy “exact”: the object as the public word"),
        (
            Policy.KIND,
            3,
            "“a fruit on a table”, by the policy “kind”: the object as a general word “a fruit”",
        ),
        (Policy.GENERAL, 3, "“a fruit on furniture”, by the policy “general”"),
        (Policy.SILENT, 3, "Nothing: it ran alone."),
        (Policy.OPEN, 3, "The whole prompt, word for word"),
    ],
)
def test_what_was_disclosed_is_said_in_plain_words(
    taxonomy: Any, policy: Policy, public: int, expected: str
) -> None:
    signature = disclose(parse("a shiny apple on a table", taxonomy), policy, taxonomy, public)
    told = (signature.to_json(),) if signature is not None else ()
    task = Task("0" * 16, 0, "a shiny apple on a table", TaskStatus.FINISHED, told)
    alone = 0 if signature is None else 3
    assert disclosed_words(task, alone).startswith(expected)
    assert "shiny" not in disclosed_words(task, alone)
    if signature is not None:
        assert "ran alone" in disclosed_words(task, 0)
        assert "ran alone" not in disclosed_words(task, 3)


def test_a_signature_that_says_little_or_cannot_be_read_is_told_as_it_is() -> None:
    root = Signature("n00001930", Relation.ON, "n00001930", Policy.KIND).to_json()
    waiting = Task("0" * 16, 0, "x", TaskStatus.WAITING, (root,))
    assert "of the object only that there is one" in disclosed_words(waiting, None)
    for text in ("{", "[1]", '{"policy": "kind"}', "<script>1</script>"):
        damaged = Task("0" * 16, 0, "x", TaskStatus.WAITING, (text,))
        assert disclosed_words(damaged, None) == f"What was sent cannot be read here: {text}"


def test_an_equality_test_is_told_beside_what_else_was_disclosed() -> None:
    root = Signature("n00001930", Relation.ON, "n00001930", Policy.KIND).to_json()
    told = "Which other prompts that waited equal this one. Nothing else."
    for disclosed in ((), (root,)):
        words = disclosed_words(Task("0" * 16, 0, "x", TaskStatus.FINISHED, disclosed), 10, compared=True)
        assert words.endswith(told)
        assert words.count("Nothing") == 1
        assert words.startswith(told) == (not disclosed)


def test_two_signatures_of_which_none_says_all_are_both_told(taxonomy: Any) -> None:
    parsed = parse("an apple on a table", taxonomy)
    thing, general = disclose(parsed, Policy.KIND, taxonomy, 6), disclose(parsed, Policy.GENERAL, taxonomy)
    assert thing is not None
    assert general is not None
    task = Task("0" * 16, 0, "x", TaskStatus.WAITING, (thing.to_json(), general.to_json()))
    words = disclosed_words(task, None)
    assert words.startswith("“a thing on a table”, by the policy “kind”")
    assert "; and at another time “a fruit on furniture”, by the policy “general”" in words
    assert words.endswith("Nothing else.")
    # what cannot be read may have said more
    assert "Nothing else" not in disclosed_words(
        Task("0" * 16, 0, "x", TaskStatus.WAITING, (thing.to_json(), "{")), None
    )
