"""Waiting prompts are planned by name, with deadlines, machines and a link, from one import."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedaigc as fa
from fedaigc.collaboration.link import LinkReport
from tests.diffusion.tiny_pipelines import SIZE, tiny_pipeline

CURVE = fa.DamageCurve(
    11,
    (3, 5, 7),
    np.array([0.0, 20.0, 40.0]),
    np.array([[0.0, 0.1, 0.2], [0.0, 0.2, 0.4], [0.0, 0.35, 0.7]]),
)


def waiting(number: int = 60) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(0, 4, (12, 8))[rng.integers(0, 12, number)] + rng.normal(0, 1, (number, 8))


def test_planners_are_compared_by_name() -> None:
    trees = {
        name: fa.sharing_tree(waiting(), CURVE, tolerance=0.1, planner=name)
        for name in ("none", "kmeans", "ward", "greedy_tree")
    }
    saved = {name: tree.cost.saved for name, tree in trees.items()}
    assert saved["none"] == 0
    assert saved["greedy_tree"] > saved["kmeans"] > 0
    assert saved["ward"] > saved["kmeans"]


def test_the_text_and_the_table_are_the_tree() -> None:
    names = [f"prompt {number}" for number in range(60)]
    tree = fa.sharing_tree(waiting(), CURVE, tolerance=0.1, ids=names)
    table, text = tree.to_pandas(), str(tree)
    *nodes, last = text.splitlines()
    assert len(nodes) == len(table) > 10
    assert sorted(line.strip().split(":")[0] for line in nodes) == sorted(
        f"steps {start} to {stop}" for start, stop in zip(table["start"], table["stop"], strict=True)
    )
    # a child is indented below its parent and has some of its tasks
    assert any(line.startswith("  steps") for line in nodes)
    inner = table[table["parent"] >= 0]
    for row in inner.itertuples():
        assert set(row.ids) < set(table["ids"][row.parent]) or row.ids == table["ids"][row.parent]
    alone, steps = re.fullmatch(r"(\d+) of 60 tasks alone; (\d+) of 660 steps saved", last).groups()  # type: ignore[union-attr]
    assert int(steps) == tree.cost.alone - tree.cost.evaluations
    in_nodes = {name for ids in table["ids"] for name in ids}
    assert int(alone) == 60 - len(in_nodes)


def test_who_would_be_late_by_sharing_runs_alone_and_who_is_late_anyway_is_named() -> None:
    slow = fa.Machine("edge", step_s=3.0, step_j=1.0)
    vectors = np.zeros((4, 2))
    loose = fa.sharing_tree(vectors, CURVE, tolerance=0.1, edge=slow)
    assert (loose.plan.handoffs > 0).all()
    tree = fa.sharing_tree(
        vectors,
        CURVE,
        tolerance=0.1,
        edge=slow,
        ids=["hurried", "patient", "calm", "late"],
        deadlines=[111.0, 1000.0, 1000.0, 105.0],
        now=100.0,
    )
    assert tree.plan.handoffs[0] == 0
    assert (tree.plan.handoffs[1:3] > 0).all()
    assert tree.late == ["late"]


def test_no_device_helps_beyond_its_battery() -> None:
    # 7 steps for the others and 4 of its own, of 4 J each
    settings: dict[str, Any] = {
        "device": fa.Machine("phone", 1.0, 4.0),
        "executor": "member",
        "users": [5, 6, 7],
    }
    vectors = np.zeros((3, 2))
    tree = fa.sharing_tree(vectors, CURVE, tolerance=0.1, batteries=[40.0, 16.0, 44.0], **settings)
    assert [node.executor for node in tree.plan.nodes] == [7]
    tree = fa.sharing_tree(vectors, CURVE, tolerance=0.1, batteries=[40.0, 16.0, 43.0], **settings)
    assert tree.plan.nodes == ()


def test_energy_counts_machines_and_packets() -> None:
    report = LinkReport("mcs-8", 12.0, 500, 600, 1000, 0, 0, 1, latency_s=0.5, send_j=2.0, receive_j=1.0)
    machines: dict[str, Any] = {
        "edge": fa.Machine("edge", 1.0, 10.0),
        "device": fa.Machine("phone", 1.0, 4.0),
        "packet": report,
    }
    vectors = np.zeros((3, 2))
    tree = fa.sharing_tree(vectors, CURVE, tolerance=0.1, **machines)
    # 7 steps of the edge for all, 4 of each phone, 3 packets
    assert tree.cost.joules == pytest.approx(7 * 10 + 3 * 4 * 4 + 3 * 3)
    assert tree.cost.bits == 3000
    # sharing costs more joules than it saves between two
    two = fa.sharing_tree(vectors[:2], CURVE, tolerance=0.1, minimise="joules", **machines)
    assert (two.plan.handoffs == 0).all()


def test_vectors_of_prompts_have_their_sharing_distances(tmp_path: Path) -> None:
    pipe = tiny_pipeline("sd1")
    plan = fa.plan(pipe, num_inference_steps=4, height=SIZE, width=SIZE)
    prompts = ["a dog on a beach", "a cup", "a dog on a beach"]
    vectors = fa.sharing_vectors(pipe, plan, prompts, dimensions=0)
    distance = float(np.linalg.norm(vectors[0] - vectors[1]))
    assert distance == pytest.approx(fa.sharing_distance(pipe, plan, *prompts[:2]), rel=1e-4)
    captions = [f"{one} {place}" for one in ("a dog", "a cup") for place in ("there", "on a beach")]
    curve = fa.calibrate(pipe, plan, captions, pairs=2, handoffs=[1, 2])
    curve.write(tmp_path / "curve.json")
    vectors = fa.sharing_vectors(pipe, plan, prompts)
    kept = [
        fa.sharing_tree(vectors, damage, tolerance=float("inf"), planner="exact_match").plan.handoffs.tolist()
        for damage in (curve, tmp_path / "curve.json")
    ]
    assert kept == [[2, 0, 2]] * 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"planner": "best"}, "no planner is called 'best': expected one of none"),
        ({"minimise": "seconds"}, 'minimise is \'seconds\': expected "evaluations" or "joules"'),
        ({"executor": "phone"}, 'executor is \'phone\': expected "edge" or "member"'),
        ({"tolerance": -1.0}, "the tolerance is -1.0"),
        ({"deadlines": [1.0]}, "deadlines of shape (1,) for 3 tasks: expected one number a task"),
        ({"deadlines": ["soon"] * 3}, "deadlines: expected numbers"),
        ({"batteries": [-1.0] * 3}, "the joules of a battery must be at least 0"),
        ({"ids": ["same"] * 3}, "a task id occurs twice"),
        ({"vectors": ["a cup"]}, "vectors: expected numbers"),
        ({"vectors": [1.0, 2.0]}, "expected a row a task, as of fa.sharing_vectors"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, Any], message: str) -> None:
    given: dict[str, Any] = {"vectors": np.zeros((3, 2)), "damage": CURVE, "tolerance": 0.1} | wrong
    with pytest.raises(fa.Error, match=re.escape(message)):
        fa.sharing_tree(given.pop("vectors"), given.pop("damage"), **given)
