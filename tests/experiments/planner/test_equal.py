"""Planners at equal judged quality: what is chosen, the oracle, and what is told of fresh streams."""

from collections.abc import Iterable

import numpy as np
import pytest

from experiments.planner.equal.compare import chosen, summary, tuned
from experiments.planner.equal.draw import ALONE, ORACLE, Studio
from experiments.planner.equal.oracle import left_at, told_by_judge
from experiments.planner.equal.variants import Variant, families
from experiments.planner.instances import damage_curve
from experiments.planner.judged import LADDER
from experiments.planner.pictures import STEPS, Way
from experiments.streams.popular import WINDOW, stream, targets
from fedaigc.metrics.judge import Verdict
from fedaigc.planning.cost import plan_cost
from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.plan import Node, Plan
from fedaigc.planning.planners.alone import Alone
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.planners.registry import PLANNERS
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks

CUP, DOG = "a cup on a table", "a dog on a road"
VERY = Variant("very", "", 0.4, Alone())
LITTLE = Variant("little", "", 0.1, Alone())
MORE = Variant("more", "", 0.2, Alone())


def verdict(thing: str, place: str) -> Verdict:
    return Verdict(thing, place, "flat", {}, {}, {})


class Told:
    """A judge that finds what `seen` says of a way."""

    def __init__(self) -> None:
        self.asked: list[Way] = []

    def verdicts(self, ways: Iterable[Way]) -> dict[Way, Verdict]:
        self.asked = list(ways)
        return {way: self.seen(way) for way in self.asked}

    def seen(self, way: Way) -> Verdict:
        # the cup is lost after more than 3 shared steps; the dog is found after any number of them
        if way.runs_on[-1] == (DOG,):
            return verdict("dog", "road")
        shared = sum(each == (CUP, DOG) for each in way.runs_on)
        return verdict("cup" if shared <= 3 else "none", "table")


def row(variant: Variant, kept: int, *, seed: int = 0, saved: float = 0.0) -> dict[str, object]:
    return {
        "seed": seed,
        "window": 0,
        "variant": variant.key,
        "planner": variant.name,
        "saved": saved,
        "joules": 1.0,
        "seconds": 1.0,
        "kbit": 0.0,
        "object": [1] * kept + [0] * (WINDOW - kept),
        "place": [1] * WINDOW,
    }


def test_the_oracle_leaves_where_nothing_is_lost_that_was_there_alone() -> None:
    plan = Plan((Node(np.array([0, 1]), 0, 10, np.zeros(1), None),), np.array([10, 10]))
    ways = [Way(1, (*((CUP, DOG),) * 10, (text,))) for text in (CUP, DOG)]
    wanted = [("cup", "table"), ("dog", "road")]
    told, seen = told_by_judge(Told(), ways, plan, [CUP, DOG], wanted, [verdict(*each) for each in wanted])
    assert told.handoffs.tolist() == [3, 10]
    assert [(each.object, each.place) for each in seen] == wanted
    # 10 shared steps, and 8 and 1 of their own
    cost = plan_cost(told, Tasks.of(np.zeros((2, 1))), Setting(damage_curve(), 1.0))
    assert cost.evaluations == 19


def test_what_the_judge_misses_alone_is_no_reason_to_leave() -> None:
    plan = Plan((Node(np.array([0, 1]), 0, 10, np.zeros(1), None),), np.array([10, 10]))
    ways = [Way(1, (*((CUP, DOG),) * 10, (text,))) for text in (CUP, DOG)]
    wanted = [("cup", "table"), ("dog", "road")]
    alone = [verdict("none", "table"), verdict("dog", "road")]
    told, _ = told_by_judge(Told(), ways, plan, [CUP, DOG], wanted, alone)
    assert told.handoffs.tolist() == [10, 10]


def test_nodes_end_where_their_members_leave() -> None:
    nodes = (
        Node(np.array([0, 1, 2, 3]), 0, 4, np.array([1.0]), None),
        Node(np.array([1, 2]), 4, 8, np.array([2.0]), 0),
        Node(np.array([0, 3]), 4, 6, np.array([3.0]), 0),
    )
    found = left_at(Plan(nodes, np.array([6, 8, 8, 6])), np.array([2, 4, 7, 0]))
    told = [(n.members.tolist(), n.start, n.stop, n.conditioning.tolist(), n.parent) for n in found.nodes]
    assert told == [
        ([0, 1, 2], 0, 2, [1.0], None),
        ([1, 2], 2, 4, [1.0], 0),
        ([2], 4, 7, [2.0], 1),
    ]


def test_what_loses_less_by_chance_does_not_hide_what_less_sharing_lost() -> None:
    rows = [row(ALONE, 32), row(LITTLE, 28, saved=0.1), row(MORE, 32, saved=0.2), row(VERY, 16, saved=0.3)]
    found = tuned(rows, [(LITTLE, MORE, VERY)])
    assert [each["loss"] for each in found] == [0.125, 0.0, 0.5]
    # the mean of both in turn
    assert [each["fitted loss"] for each in found] == [0.0625, 0.0625, 0.5]
    # none fits: that which loses least
    assert chosen(found) == LITTLE.key


def test_of_variants_that_keep_their_pictures_the_one_that_saves_most_is_chosen() -> None:
    rows = [row(ALONE, 31), row(LITTLE, 31, saved=0.1), row(MORE, 32, saved=0.2), row(VERY, 29, saved=0.3)]
    found = tuned(rows, [(LITTLE,), (MORE, VERY)])
    assert found[1]["fitted loss"] == pytest.approx(-1 / 32)
    assert chosen(found) == MORE.key


def test_the_summary_compares_costs_by_stream_and_pictures_one_by_one() -> None:
    ours = Variant("greedy_tree", "", 0.2, GreedyTree())
    rows = [row(ALONE, 32, seed=seed) for seed in (0, 1)]
    rows += [row(ours, 30, seed=seed, saved=0.2 + 0.1 * seed) for seed in (0, 1)]
    found = summary(rows)
    assert found["seeds"] == 2
    told = found["planners"]["greedy_tree"]
    assert told["minus alone"]["mean"] == -2 / 32
    assert not told["not inferior"]
    assert told["saved"]["mean"] == pytest.approx(0.25)
    assert found["planners"]["none"]["ours saves more by"]["mean"] == pytest.approx(0.25)
    with pytest.raises(ValueError, match="different windows"):
        summary(rows[:-1])


def test_every_planner_has_families_that_share_more_and_more() -> None:
    tried = families()
    assert {*tried, "none", "optimal"} == set(PLANNERS)
    points = np.random.default_rng(0).normal(0, 2, (9, 2))
    tasks = Tasks.of(points[np.random.default_rng(1).integers(9, size=12)])
    knots = np.array([0.0, 12.0])
    curve = DamageCurve(STEPS, LADDER, knots, np.array([[0.0, 0.08 * k] for k in LADDER]))
    for of_planner in tried.values():
        for family in of_planner:
            ends = (family[0], family[-1])
            plans = [each.planner(tasks, Setting(curve, each.risk)) for each in ends]
            saved = [plan_cost(plan, tasks, Setting(curve, 1.0)).saved for plan in plans]
            assert saved[0] > 0
            assert saved[1] >= saved[0]
    keys = [each.key for of in tried.values() for family in of for each in family]
    assert len(keys) == len(set(keys))


def test_a_window_is_drawn_with_the_oracle_beside_it() -> None:
    class Finds:
        """A judge that finds all that is wanted."""

        def verdicts(self, ways: Iterable[Way]) -> dict[Way, Verdict]:
            return {way: verdict(*targets()[way.runs_on[-1][0]]) for way in ways}

    prompts = stream(7)[:WINDOW]
    places = np.random.default_rng(0).normal(0, 2, (len(prompts), 4))
    vectors = dict(zip(prompts, places, strict=True))
    curve = damage_curve()
    ours = Variant("greedy_tree", "", 0.1, GreedyTree())
    studio = Studio(Finds(), Setting(curve, 0.2), vectors)  # type: ignore[arg-type]
    rows = studio.draw(7, 0, [ALONE, ours], oracle=True)
    assert [each["planner"] for each in rows] == ["none", "greedy_tree", ORACLE]
    assert rows[0]["saved"] == 0.0
    # at a larger risk, and nothing is lost
    assert 0 < rows[1]["saved"] < rows[2]["saved"]
    assert all(all(each["object"]) and all(each["place"]) for each in rows)
