"""Devices that move, and what a generation of a topology is counted to take."""

from dataclasses import replace

import numpy as np
import pytest

from experiments.topologies.counted import CountedMachines, plan_of
from experiments.topologies.movement import Movement
from experiments.topologies.session import Setting, alone, generation
from fedaigc.collaboration.topology import Topology
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE


def test_devices_move_at_their_speed_and_stay_in_the_square() -> None:
    movement = Movement(3, 100.0, (1.0, 2.0), 5.0, 300.0, np.random.default_rng(0))
    times = np.arange(0, 300, 0.5)
    places = np.array([movement.at(time) for time in times])
    assert (places >= 0).all()
    assert (places <= 100).all()
    speeds = np.linalg.norm(np.diff(places, axis=0), axis=2) / 0.5
    assert speeds.max() <= 2.0 + 1e-9
    # pauses, and ways at a speed of their own
    assert (speeds < 1e-9).sum() > 20
    assert ((speeds > 1.0 - 1e-9) & (speeds < 2.0 + 1e-9)).sum() > 200
    again = Movement(3, 100.0, (1.0, 2.0), 5.0, 300.0, np.random.default_rng(0))
    assert np.array_equal(again.at(77.0), movement.at(77.0))
    with pytest.raises(ValueError, match="lowest one above 0"):
        Movement(1, 100.0, (0.0, 2.0), 5.0, 300.0, np.random.default_rng(0))


@pytest.fixture
def near(taxonomy: Taxonomy) -> Setting:
    """Three devices within a few metres, the first two with a prompt that can share, the third with another one."""
    prompts = {"a": "an apple on a table", "b": "a lemon on a table", "c": "a dog near a river"}
    return Setting(
        plan=plan_of(11),
        shared_steps=5,
        further=3,
        signatures={
            task: disclose(parse(text, taxonomy), Policy.KIND, taxonomy) for task, text in prompts.items()
        },
        owners={"a": 0, "b": 1, "c": 2},
        costs={0: 9, 1: 1, 2: 0},
        sites={"edge": np.array([[2.0, 2.0]]), "edges": np.array([[0.0, 0.0], [400.0, 400.0]])},
        movement=Movement(3, 4.0, (1.0, 2.0), 5.0, 60.0, np.random.default_rng(1)),
        at_s=0.0,
        seed=0,
    )


@pytest.mark.parametrize("topology", ["edge", "edges", "pair", "cluster"])
def test_a_generation_counts_what_its_machines_do(near: Setting, topology: Topology) -> None:
    machines = CountedMachines(near.plan, "fixed8-gray")
    found = generation(near, topology, machines, follows=True)
    by_edge = topology in ("edge", "edges")
    assert found.shared == pytest.approx(2 / 3)
    assert (found.lost, found.shared_steps) == (0.0, 5.0)
    assert found.steps_edges == pytest.approx(5 / 3 if by_edge else 0)
    assert found.steps_devices == pytest.approx((6 + 6 + 11 + (0 if by_edge else 5)) / 3)
    # an edge sends two packets of 16,384 bytes, a device one
    assert found.kbit * 3 > (2 if by_edge else 1) * 131.072
    # messages by which devices agree: 4 of a pair; 12 offers, 6 commits and one decision of three devices
    count = {"pair": 4, "cluster": 12 + 6 + 1}.get(topology, 0)
    assert found.kbit_messages * 3 == pytest.approx(count * 8 * (4 + (1 << 14)) / 1e3)
    work = 2 * PHONE.image_j(6) + PHONE.image_j(11) + (0 if by_edge else PHONE.shared_j(5))
    assert work < found.joules_devices * 3 < work + 1
    edges = EDGE_SERVER.shared_j(5) if by_edge else 0
    assert edges <= found.joules_edges * 3 < edges + 5
    # the device that computes is the first with its picture, and the other one waits for its packet
    shares = EDGE_SERVER.shared_s(5) if by_edge else PHONE.shared_s(5)
    pictures = 2 * (shares + PHONE.image_s(6)) + PHONE.image_s(11)
    assert pictures < found.seconds * 3 < pictures + 1
    assert alone(near).seconds == PHONE.image_s(11)


def test_an_executor_waits_for_a_member_that_is_out_of_reach_and_then_sends_in_vain(near: Setting) -> None:
    far = replace(near, movement=Movement(3, 9e4, (0.5, 1.0), 5.0, 60.0, np.random.default_rng(1)))
    machines = CountedMachines(near.plan, "fixed8-gray")
    fixed, follows = (generation(far, "pair", machines, follows=follows) for follows in (False, True))
    assert (fixed.shared_steps, follows.shared_steps) == (5.0, 8.0)
    for found, steps in ((fixed, 5), (follows, 8)):
        # the executor's own prompt has its steps; the other one is drawn alone
        assert found.lost == 1.0
        assert found.steps_devices == pytest.approx((steps + 11 - steps + 11 + 11) / 3)
