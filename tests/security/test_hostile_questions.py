"""A server that chooses its questions learns at most the bits that the ledger states.

The secret is one of many equally likely prompts. What a device says follows from its prompt, so what a server learns,
in bits on average over the prompts, is exactly the entropy of the transcripts. The ledgers' mean must not be below it.
The server may ask anything that a configuration can hold: other tolerances, risks, hand-offs and minima, offers of one
rung at a time, vectors where it likes, each question chosen by the answers so far. What it may not choose are the files
of the device's owner.
"""

import math
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaigc.device import node_answers
from fedaigc.device.device import Device
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError, UnknownTask
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.atlas import LEAF, Atlas
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.node_groups import node_groups
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.offer import NO_NODE, Offer
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace
from tests.semantics.denoiser.test_atlas import atlas_of

NUMBER = 80
STEPS = 10
MINIMUM = 4
NO_LIMITS = OwnerLimits(max_bits_a_day=math.inf)
NONE = np.zeros(0, np.float32)


class Space(DenoiserSpace):
    """The space of the atlas, which has no plan."""

    def __init__(self) -> None:
        pass

    @property
    def hash(self) -> str:
        return "s"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device whose prompts' vectors are given, so that no model is asked."""
    monkeypatch.setattr(node_answers, "put_adapters", lambda *_: None)
    return Device(tmp_path, None, base_hash="", taxonomy=Taxonomy.load(), seed=1)  # type: ignore[arg-type]


def vectors() -> dict[str, np.ndarray]:
    """The prompts, drawn as the captions of the atlas are."""
    random = np.random.default_rng(7)
    drawn = random.normal(size=(NUMBER, 3)) + 5 * random.integers(0, 3, (NUMBER, 1))
    return {f"prompt {number}": drawn[number] for number in range(NUMBER)}


def calibration() -> Calibration:
    """Damage that grows with distance and hand-off, of so many pairs that a tolerance divides prompts finely."""
    random = np.random.default_rng(3)
    distances = np.linspace(0, 12, 400)
    damages = {
        str(k): tuple((distances * k / 30 + random.uniform(0, 0.05, 400)).tolist()) for k in (2, 4, 6, 8)
    }
    return Calibration("s", "p", "DDIMScheduler", STEPS, 5.0, "c", 0, tuple(distances.tolist()), damages)


ATLAS, CURVE, VECTORS = atlas_of(0), calibration(), vectors()


@cache
def disclosure(atlas: Atlas = ATLAS, **asked: Any) -> NodeDisclosure:
    """How a device discloses under a server's configuration."""
    given = {"minimum": MINIMUM, "shared_steps": 2, "calibration": CURVE, "tolerance": 0.5, **asked}
    return NodeDisclosure(Space(), atlas, _vectors=VECTORS, **given)


class Asked:
    """One prompt as a server sees it: it asks, and all that it is told is the transcript."""

    def __init__(self, machine: Device, prompt: str) -> None:
        self._machine = machine
        self.task = machine.add_prompt(prompt)
        self.transcript: list[Any] = []

    def node(self, told: NodeDisclosure) -> NodeSignature | None:
        found = node_answers.node_signature(self._machine, self.task, told, NO_LIMITS)
        self.transcript.append(found)
        return found

    def offer(
        self, told: NodeDisclosure, ladder: tuple[int, ...], node: int, vector: Any = NONE
    ) -> int | None:
        offer = Offer(self.task, node, ladder, np.asarray(vector, np.float32))
        try:
            found = node_answers.taken_step(self._machine, offer, told, NO_LIMITS)
        except (DeviceError, UnknownTask):
            found = None
        self.transcript.append(found)
        return found


def learned_and_stated(machine: Device, attack: Callable[[Asked], object]) -> tuple[float, float]:
    """Return what a server learns of a prompt by an attack, and what the ledger states, in bits on average."""
    transcripts: Counter[str] = Counter()
    for prompt in VECTORS:
        asked = Asked(machine, prompt)
        attack(asked)
        transcripts[repr(asked.transcript)] += 1
    shares = np.array(list(transcripts.values())) / NUMBER
    stated = sum(entry.bits for entry in machine.prompts.ledger.entries()) / NUMBER
    return float(-(shares * np.log2(shares)).sum()), stated


def falling_tolerances(asked: Asked) -> None:
    """Ask with less and less tolerance, until the device says nothing: where it ends says how far the prompt is."""
    for tolerance in np.linspace(0.5, 0.02, 12):
        if asked.node(disclosure(tolerance=float(tolerance))) is None:
            return


def rising_tolerances(asked: Asked) -> None:
    """Ask with little tolerance first, so that most answers are that nothing is disclosed."""
    for tolerance in np.linspace(0.02, 0.3, 12):
        if asked.node(disclosure(tolerance=float(tolerance))) is not None:
            return


def bisected_tolerance(asked: Asked) -> None:
    low, high = 0.0, 0.5
    for _ in range(6):
        middle = (low + high) / 2
        if asked.node(disclosure(tolerance=middle)) is None:
            low = middle
        else:
            high = middle


def other_questions(asked: Asked) -> None:
    """Ask for the same with other minima, hand-offs and risks."""
    for minimum in (4, 15):
        for steps in (2, 6):
            for risk in (0.1, 0.3):
                asked.node(disclosure(minimum=minimum, shared_steps=steps, risk=risk))


def one_rung_at_a_time(asked: Asked) -> None:
    """Bisect over rungs, each offer a ladder of one, adapted to the answers so far."""
    told = disclosure(ladder=(4, 6, 8))
    found = asked.node(told)
    node = NO_NODE if found is None else found.node
    low, high = 0, 4
    while high - low > 1:
        middle = (low + high) // 2
        rung = (2, 4, 6, 8)[middle - 1]
        if node == NO_NODE:
            taken = asked.offer(told, (rung,), NO_NODE, np.zeros(3))
        else:
            taken = asked.offer(told, (rung,), node)
        low, high = (middle, high) if taken else (low, middle)


def all_rungs_of_all_nodes(asked: Asked) -> None:
    """Offer the whole ladder at each node that the device may be grouped at, and at others."""
    told = disclosure(ladder=(4, 6, 8))
    found = asked.node(told)
    nodes = range(4) if found is None else told.atlas.lifted(found.node, found.highest)
    for node in nodes:
        asked.offer(told, (2, 4, 6, 8), node)


def vectors_where_it_likes(asked: Asked) -> None:
    """Place the vector of a conditioning, which no group has, wherever the distance to it says most."""
    told = disclosure(ladder=(4, 6, 8))
    found = asked.node(told)
    if found is None:
        asked.offer(told, (2, 4, 6, 8), NO_NODE, np.full(3, 5.0))
        return
    rows = told.atlas.vectors[told.atlas.members[found.node]]
    for away in (rows.std(0), -rows.std(0), 0 * rows[0]):
        asked.offer(told, (2, 4, 6, 8), NO_NODE, rows.mean(0) + away)


ATTACKS = (
    falling_tolerances,
    rising_tolerances,
    bisected_tolerance,
    other_questions,
    one_rung_at_a_time,
    all_rungs_of_all_nodes,
    vectors_where_it_likes,
)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda each: each.__name__)
def test_a_server_learns_no_more_than_the_ledger_states(
    machine: Device, attack: Callable[[Asked], object]
) -> None:
    learned, stated = learned_and_stated(machine, attack)
    # an attack that learns nothing would show nothing
    assert learned > 1
    assert learned <= stated


def poisoned(copies: int) -> tuple[Atlas, str]:
    """Return an atlas whose hyperplane leaves one prompt and captions made up for it on one side, and the prompt."""
    for direction in np.random.default_rng(5).normal(size=(20, 3)):
        target = max(VECTORS, key=lambda prompt: float(VECTORS[prompt] @ direction))
        threshold = max(
            float((ATLAS.vectors @ direction).max()),
            *(float(vector @ direction) for prompt, vector in VECTORS.items() if prompt != target),
        )
        if float(VECTORS[target] @ direction) > threshold:
            break
    captions = (*ATLAS.captions, *(f"made up {number}" for number in range(copies)))
    around = VECTORS[target] + 1e-6 * np.arange(copies)[:, None] * direction
    whole = Atlas(
        "s",
        {"note": "poisoned"},
        captions,
        np.concatenate([ATLAS.vectors, around]),
        np.array([[1, 2], [LEAF, LEAF], [LEAF, LEAF]]),
        np.stack([direction, 0 * direction, 0 * direction]),
        np.array([threshold, 0, 0]),
    )
    return whole, target


def test_an_atlas_that_isolates_a_prompt_is_refused_by_m_and_by_k(machine: Device) -> None:
    """With fewer than m captions nothing is disclosed there; with m, nobody is grouped there without k devices."""
    for copies in (MINIMUM - 1, MINIMUM):
        atlas, target = poisoned(copies)
        made_up = set(range(len(ATLAS.captions), len(atlas.captions)))
        told = disclosure(atlas, calibration=None)
        signature = told.disclose(None, target)
        assert signature is not None
        alone = set(atlas.members[signature.node].tolist()) <= made_up
        assert alone is (copies == MINIMUM)
        # counted from the vectors: a file that claims more captions there has to hold them
        said = [atlas.disclosed(vector, MINIMUM) for vector in atlas.vectors]
        assert min(Counter(said).values()) >= MINIMUM
    others = {prompt: told.disclose(None, prompt) for prompt in VECTORS if prompt != target}
    waiting = {target: signature, **others}
    owners = {prompt: number for number, prompt in enumerate(waiting)}
    assert signature is not None
    assert signature.node not in {other.node for other in others.values() if other is not None}
    for group in node_groups(waiting, owners, atlas, 2):
        if target in group.members:
            assert group.members == (target,)
            assert group.node is None
    # what its nodes tell of all prompts is counted
    learned, stated = learned_and_stated(machine, lambda asked: asked.node(told))
    assert 0 < learned <= stated
