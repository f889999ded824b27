"""Groups of an informed server, the bank of hand-offs, and what a choice of hand-offs saves and loses."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from experiments.streams.bank import Member, bank
from experiments.streams.drawing import Studio
from experiments.streams.gap import LADDER, chosen, differences, members_of, saved_by_equal, saved_steps
from experiments.streams.informed import informed_groups
from experiments.streams.policies import Formed
from experiments.streams.popular import STREAM, stream, targets
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.metrics.judge import Judge
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace

OWN, OTHER = "a cat on a table", "a bus in a field"


def three_within(apart: Any) -> list[int]:
    return [3 if each <= 1 else 0 for each in apart]


def test_the_informed_server_groups_what_is_near_and_leaves_the_rest_alone() -> None:
    vectors = np.array([[0.0, 0], [9, 0], [0.5, 0], [0, 0.5], [9.5, 0], [50, 50]])
    assert sorted(informed_groups(vectors, vectors, three_within)) == [(0, 2, 3), (1, 4)]


def test_groups_that_would_save_less_together_stay_apart() -> None:
    # their common mean is beyond reach of both
    vectors = np.array([[0.0], [0], [4], [4]])
    assert sorted(informed_groups(vectors, vectors, three_within)) == [(0, 1), (2, 3)]


def test_two_run_on_a_public_caption() -> None:
    # the caption that is nearest to their middle is out of reach
    assert not informed_groups(np.array([[0.0], [1]]), np.array([[9.0]]), three_within)


def member(thing: str, group: int, k: int, copies: int = 1) -> Member:
    """A member that the judge finds alone, and up to hand-off k; it takes k."""
    return Member(thing, copies, group, 2, float(k), 1, tuple(int(each <= k) for each in LADDER), ())


def test_who_would_share_with_nobody_is_alone() -> None:
    members = [member("cat", 0, 3), member("dog", 0, 0), member("bus", 1, 4), member("car", 1, 2)]
    steps = chosen(members, lambda each: int(each.apart))
    assert steps == [0, 0, 4, 2]
    assert saved_steps(members, steps) == 2


def test_equal_prompts_of_a_window_save_all_steps_but_the_last() -> None:
    assert saved_by_equal(["a"] * 3 + [str(i) for i in range(29)] + ["a"]) == 20


def test_copies_weigh_and_those_alone_lose_nothing() -> None:
    texts = stream(0)
    thing, other = (
        targets()[texts[0]][0],
        next(targets()[text][0] for text in texts if targets()[text][0] != targets()[texts[0]][0]),
    )
    members = [member(thing, 0, 2, copies=2), member(other, 0, 4)]
    values, objects = differences(texts, members, [3, 4])
    assert len(values) == len(objects) == STREAM
    assert sum(values) == -2
    assert {object_ for value, object_ in zip(values, objects, strict=True) if value} == {thing}
    assert sorted(objects) == sorted(targets()[text][0] for text in texts)


def test_groups_of_different_windows_are_different() -> None:
    one = member("cat", 0, 2)
    columns = {name: [getattr(one, name)] * 3 for name in Member.__dataclass_fields__}
    assert [each.group for each in members_of({"window": [0, 0, 32], **columns})] == [0, 0, 1]


@pytest.fixture(scope="module")
def studio(pipe: Any, base_hash: str) -> Studio:
    plan = build_plan(
        pipe, num_inference_steps=2, guidance_scale=5.0, height=64, width=64, base_hash=base_hash
    )
    atlas: Any = SimpleNamespace(captions=(OWN, OTHER), vectors=np.array([[0.0], [2.0]]))
    words = {OWN: ("cat", "table"), OTHER: ("bus", "field")}
    calibration: Any = None
    return Studio(pipe, plan, Judge.load(), words, DenoiserSpace.of(plan), atlas, calibration)


def test_shared_steps_on_the_own_prompt_change_nothing(studio: Studio) -> None:
    conditioning = studio.embeddings([OWN])[0]
    groups = [Formed((0, 1, 2), conditioning, np.array([0.0]))]
    first, second, other = bank(studio, [OWN, OWN, OTHER], [1, 1, 4], groups, (1,), (0, 0))
    assert first == second
    assert first.damage == (0.0,)
    assert first.both == (first.alone,)
    assert first.apart == 0
    assert (other.object, other.copies, other.apart, other.members) == ("bus", 4, 2.0, 3)
    assert other.damage[0] > 0.1


def test_without_a_ladder_only_distances_are_told(studio: Studio) -> None:
    groups = [Formed((0, 1), studio.embeddings([OWN])[0], np.array([1.0]))]
    assert [each.apart for each in bank(studio, [OWN, OTHER], [1, 1], groups, (), (0, 0))] == [1.0, 1.0]
