"""The ledger of a device: what all prompts disclosed, its budget, and prompts that are repeated."""

import json
import math
import secrets
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fedaigc.cli.main import app
from fedaigc.device.device import Device
from fedaigc.device.disclosing import Discloser
from fedaigc.device.home.budget import Budget, note_agent_budget, set_home_budget
from fedaigc.device.home.home import Home
from fedaigc.device.home.ledger_report import ledger_report
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.device.limits import OwnerLimits
from fedaigc.errors import DamagedFile, UserError
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.local_privacy import RandomizedNode
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace
from fedaigc.semantics.policy import Policy
from tests.semantics.denoiser.test_atlas import atlas_of
from tests.semantics.denoiser.test_calibration import calibration

ATLAS = atlas_of(0)
APPLE, DOG = "an apple on a table", "a dog near a river"
NO_LIMITS = OwnerLimits(max_bits_a_day=math.inf)
# five general words for the object, three relations, 14 public places
KIND_BITS = math.log2(5 * 3 * 14)


class Space(DenoiserSpace):
    """The space of the atlas, which has no plan."""

    def __init__(self) -> None:
        pass

    @property
    def hash(self) -> str:
        return ATLAS.space


def queue_of(root: Path) -> PromptQueue:
    return PromptQueue(Home.open(root, 1))


def device_at(root: Path) -> Device:
    """A device that is only asked for concepts and needs no pipeline."""
    return Device(root, None, base_hash="", taxonomy=Taxonomy.load(), seed=1)  # type: ignore[arg-type]


def nodes(
    prompts: dict[str, int], epsilon: float | None = None, minimum: int = 4, **more: Any
) -> NodeDisclosure:
    """Nodes of an atlas for prompts whose vectors are those of captions, so that no model is asked."""
    vectors = {text: ATLAS.vectors[row] for text, row in prompts.items()}
    return NodeDisclosure(Space(), ATLAS, minimum, 3, epsilon=epsilon, _vectors=vectors, **more)


def said(
    queue: PromptQueue, task_id: str, disclosure: NodeDisclosure, limits: OwnerLimits | None = NO_LIMITS
) -> NodeSignature | None:
    return Discloser(queue, limits).node(task_id, disclosure, None)


def at(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(time, "time", lambda: seconds)


def shown(root: Path, *command: str) -> str:
    done = CliRunner().invoke(app, ["device", *(command or ("disclosures",)), str(root)])
    assert done.exit_code == 0, done.output
    return done.output


def test_one_prompt_a_hundred_times_is_one_draw_and_counts_once(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    texts = ["1girl, solo", "1GIRL,  solo"]
    asked = nodes(dict.fromkeys(texts, 7), epsilon=2.0)
    answers = {said(queue, queue.add(texts[number % 2]), asked) for number in range(100)}
    # noise that is drawn again would be averaged away
    assert len(answers) == 1
    report = ledger_report(queue_of(tmp_path))
    assert (report.total.disclosures, report.total.new, report.total.nodes) == (100, 1, 100)
    assert report.total.epsilon == 2.0
    drawing = RandomizedNode.of(ATLAS, 4, 2.0)
    assert drawing is not None
    assert report.total.bits == pytest.approx(drawing.bits)
    assert report.total.exact == 0
    # a server that polls every few seconds adds no line
    before = queue.ledger.path.read_bytes()
    assert {said(queue, task_id, asked) for task_id in [task.task_id for task in queue.all()]} == answers
    assert queue.ledger.path.read_bytes() == before


def test_asked_in_a_hundred_ways_it_reports_the_sum_and_stops_at_its_budget(tmp_path: Path) -> None:
    """A server that changes the question gets new draws of one prompt, and each costs."""
    queue = queue_of(tmp_path)
    task_id = queue.add("1girl, solo")
    limits = replace(NO_LIMITS, max_epsilon_a_day=10.0)
    forms = [nodes({"1girl, solo": 7}, epsilon=0.5, minimum=minimum) for minimum in range(1, 41)]
    forms += [nodes({"1girl, solo": 7}, epsilon=0.5 + number / 1000) for number in range(1, 61)]
    answers = [said(queue, task_id, form, limits) for form in forms]
    assert [answer is not None for answer in answers] == [True] * 20 + [False] * 80
    assert ledger_report(queue).total.epsilon == pytest.approx(10.0)
    # what was said already is said again, at no cost
    assert said(queue, task_id, forms[0], limits) == answers[0]
    assert ledger_report(queue_of(tmp_path)).total.epsilon == pytest.approx(10.0)


def test_a_hundred_wordings_stop_at_the_budget_until_it_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = queue_of(tmp_path)
    texts = [f"a dog, take {number}" for number in range(100)]
    asked = nodes(dict.fromkeys(texts, 7), epsilon=4.0)
    set_home_budget(queue.home, Budget(epsilon_a_day=30.0))
    at(monkeypatch, 1_000_000.0)
    tasks = [queue.add(text) for text in texts]
    answers = [said(queue, task_id, asked) for task_id in tasks]
    assert sum(answer is not None for answer in answers) == 7
    told = shown(tmp_path)
    assert "epsilon 28 of 30" in told
    assert "run alone until 1970-01-13 13:46 UTC" in told
    assert "budget of disclosures is used up" in (tmp_path / "errors.log").read_text()
    # said once a day, not at every poll
    assert [said(queue, task_id, asked) for task_id in tasks] == answers
    assert (tmp_path / "errors.log").read_text().count("used up") == 1
    at(monkeypatch, 1_000_000.0 + 24 * 3600 - 1)
    assert said(queue, tasks[50], asked) is None
    at(monkeypatch, 1_000_000.0 + 24 * 3600 + 1)
    assert said(queue, tasks[50], asked) is not None
    report = ledger_report(queue_of(tmp_path))
    assert report.alone_since is None
    assert [sums.epsilon for sums in report.days.values()] == [28.0, 4.0]
    assert report.total.epsilon == 32.0
    # a clock that was set back gives nothing back
    at(monkeypatch, 1000.0)
    assert sum(said(queue, task_id, asked) is not None for task_id in tasks[60:70]) == 0


def test_an_epsilon_a_day_lets_nothing_out_without_noise(tmp_path: Path) -> None:
    device = device_at(tmp_path)
    set_home_budget(device.prompts.home, Budget(epsilon_a_day=8.0))
    task_id = device.add_prompt(APPLE)
    assert device.signature(task_id) is None
    assert said(device.prompts, task_id, nodes({APPLE: 3})) is None
    assert said(device.prompts, task_id, nodes({APPLE: 3}, epsilon=4.0)) is not None
    (entry,) = device.prompts.disclosures.entries()
    assert entry.policy == "node"


def test_the_owner_adds_noise_that_no_server_asked_for(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    texts = {f"prompt {number}": number % 60 for number in range(40)}
    tasks = [queue.add(text) for text in texts]
    limits = replace(NO_LIMITS, max_node_epsilon=1.0)
    drawing = RandomizedNode.of(ATLAS, 4, 1.0)
    assert drawing is not None
    for asked in (nodes(texts), nodes(texts, epsilon=5.0)):
        answers = [said(queue, task_id, asked, limits) for task_id in tasks]
        assert {answer.node for answer in answers if answer is not None} == set(drawing.nodes)
    own = [drawing.own(ATLAS.vectors[row]) for row in texts.values()]
    assert [answer.node for answer in answers if answer is not None] != own
    assert ledger_report(queue).total.epsilon == 40.0
    # of a limit beyond all noise, the largest epsilon counts
    loud = replace(NO_LIMITS, max_node_epsilon=1000.0)
    assert said(queue, tasks[0], nodes(texts), loud) is not None
    assert ledger_report(queue).total.epsilon == 60.0


def test_with_a_calibration_noise_needs_a_ladder(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    task_id, curve = queue.add("x"), calibration()
    assert said(queue, task_id, nodes({"x": 3}, epsilon=2.0, calibration=curve)) is None
    assert ledger_report(queue).total.disclosures == 0
    assert said(queue, task_id, nodes({"x": 3}, epsilon=2.0, calibration=curve, ladder=(5,))) is not None


def test_noise_is_the_systems_in_a_deployment_and_the_homes_in_a_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[int] = []

    def below(bound: int) -> int:
        drawn.append(bound)
        return bound - 1

    monkeypatch.setattr(secrets, "randbelow", below)
    texts = {f"prompt {number}": number for number in range(30)}
    found = []
    for name, limits in (("a", None), ("b", None), ("c", NO_LIMITS)):
        queue = PromptQueue(Home.open(tmp_path / name, 5))
        found.append([said(queue, queue.add(text), nodes(texts, epsilon=1.0), limits) for text in texts])
        assert len(drawn) == (30 if limits is not None else 0)
    assert found[0] == found[1]
    assert len(set(found[0])) > 1


def test_concepts_count_the_signatures_that_could_have_been_sent(tmp_path: Path) -> None:
    device = device_at(tmp_path)
    task_id = device.add_prompt(APPLE)
    device.signature(task_id)
    spent = device.prompts.ledger.spent()
    assert spent.bits == pytest.approx(KIND_BITS)
    assert spent.epsilon == 0.0
    # less of the same prompt, the same again, and the same prompt in another task tell nothing new
    device.signature(task_id, Policy.GENERAL)
    device.signature(task_id)
    device.signature(device.add_prompt("An apple  on a table"))
    assert device.signature(device.add_prompt("a zorblax"), Policy.KIND) is None
    assert device.prompts.ledger.spent() == spent
    device.signature(device.add_prompt(DOG))
    assert device.prompts.ledger.spent().bits == pytest.approx(2 * KIND_BITS)
    device.signature(task_id, Policy.OPEN)
    assert device.prompts.ledger.spent().bits == pytest.approx(2 * KIND_BITS + 8 * len(APPLE))
    total = ledger_report(device.prompts).total
    assert (total.disclosures, total.new, total.exact, total.nodes) == (4, 3, 3, 0)


def test_an_agents_prompts_run_alone_once_its_bits_are_used_up(tmp_path: Path) -> None:
    device = device_at(tmp_path)
    limits = replace(NO_LIMITS, max_bits_a_day=2.5 * KIND_BITS)
    prompts = [f"{thing} on a table" for thing in ("an apple", "a lemon", "a dog", "a cat", "a bus")]
    tasks = [device.add_prompt(text) for text in prompts]
    for _ in range(2):
        answers = [device.signature(task_id, limits=limits) for task_id in tasks]
        assert [answer is not None for answer in answers] == [True, True, False, False, False]
    assert [bool(task.disclosed) for task in device.prompts.all()] == [True, True, False, False, False]
    # the home's own budget holds in a simulation too, and the smaller one counts
    set_home_budget(device.prompts.home, Budget(bits_a_day=1.0))
    assert device.signature(tasks[2]) is None
    assert device.signature(tasks[0]) is not None


def test_a_node_without_noise_after_the_same_one_with_noise_is_new(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    task_id = queue.add("x")
    loud, exact = nodes({"x": 3}, epsilon=20.0), nodes({"x": 3})
    noisy = said(queue, task_id, loud)
    assert said(queue, task_id, exact) == noisy
    total = ledger_report(queue).total
    assert (total.new, total.exact) == (2, 1)
    assert total.bits == pytest.approx(2 * math.log2(len(ATLAS.ends(4))))


def test_a_home_of_an_earlier_version_goes_on(tmp_path: Path) -> None:
    device = device_at(tmp_path)
    task_id = device.add_prompt(APPLE)
    device.signature(task_id)
    device.prompts.ledger.path.unlink()
    device = device_at(tmp_path)
    report = ledger_report(device.prompts)
    assert (report.earlier, report.total.disclosures) == (1, 0)
    assert "1 by an earlier version" in shown(tmp_path)
    # it is asked again: nothing new is told, whatever the budget
    set_home_budget(device.prompts.home, Budget(bits_a_day=0.0))
    assert device.signature(task_id) is not None
    assert device.signature(device.add_prompt(DOG)) is None
    assert ledger_report(device.prompts).earlier == 1


def test_it_is_on_disk_before_the_log_and_a_damaged_one_counts_as_no_less(tmp_path: Path) -> None:
    device = device_at(tmp_path)
    path = device.prompts.ledger.path
    device.signature(device.add_prompt(APPLE))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert APPLE not in path.read_text()
    # a line that was broken off was not sent
    with path.open("ab") as file:
        file.write(b'{"bits": 1')
    device = device_at(tmp_path)
    device.signature(device.add_prompt(DOG))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["again"] for line in lines] == [False, False]
    path.write_text(path.read_text() + '{"bits": -50}\n')
    device = device_at(tmp_path)
    with pytest.raises(DamagedFile, match=r"ledger\.jsonl is damaged"):
        device.signature(device.add_prompt("a cat near a river"))
    assert len(device.prompts.disclosures.entries()) == 2
    assert "ledger.jsonl is damaged" in shown(tmp_path)
    assert "ledger.jsonl is damaged" in shown(tmp_path, "queue")
    (tmp_path / "budget.json").write_text('{"bits_a_day": -1}')
    with pytest.raises(DamagedFile, match=r"budget\.json is damaged"):
        device_at(tmp_path).signature(device.add_prompt("a bus on a road"))


def test_an_answer_to_an_offer_of_hand_offs_counts_and_is_kept(tmp_path: Path) -> None:
    queue = queue_of(tmp_path)
    ledger, budget = queue.ledger, Budget(bits_a_day=4.5)
    task_id = queue.add("x")
    assert ledger.answer_offer(task_id, "x", "a dog", (3, 5, 7), 5, budget) == 5
    assert ledger.spent().bits == 2.0
    # the same offer gets the same answer, another group's is a new question
    assert queue_of(tmp_path).ledger.answer_offer(task_id, "x", "a dog", (7, 5, 3), 3, budget) == 5
    assert ledger.answer_offer(task_id, "x", "a cat", (3, 5, 7), None, budget) is None
    assert ledger.spent().bits == 4.0
    assert ledger.answer_offer(task_id, "x", "a bus", (3, 5, 7), 7, budget) is None
    assert ledger.answer_offer(task_id, "x", "a bus", (3, 5, 7), 7, Budget(epsilon_a_day=9.0)) is None
    assert ledger_report(queue).total.disclosures == 2
    with pytest.raises(ValueError, match="was not offered"):
        ledger.answer_offer(task_id, "x", "a bus", (3, 5), 7, budget)


def test_the_budget_is_set_and_shown_before_anything_is_sent(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert "0.0 bits. There is no budget." in shown(home, "budget")
    assert "0.0 bits of 20, and epsilon 0 of 4." in shown(
        home, "budget", "--bits-a-day", "20", "--epsilon-a-day", "4"
    )
    told = shown(home, "budget", "--epsilon-a-day", "inf", "--node-epsilon", "2")
    assert "0.0 bits of 20. Nodes are drawn with an epsilon of at most 2." in told
    assert shown(home) == told
    run = CliRunner()
    command = ["disclose", APPLE, "--home", str(home)]
    said_of_it = run.invoke(app, command).output
    assert "this counts at most 7.7 bits" in said_of_it
    assert "0.0 bits of 20" in said_of_it
    device = Device(home, None, base_hash="", taxonomy=Taxonomy.load())  # type: ignore[arg-type]
    for text in (APPLE, DOG):
        device.signature(device.add_prompt(text))
    assert "it was disclosed of this prompt before" in run.invoke(app, command).output
    command[1] = "a bus on a road"
    assert "which the budget does not leave: nothing is sent" in run.invoke(app, command).output
    # anything else is refused, and nothing is changed
    for wrong in (("--bits-a-day", "-1"), ("--epsilon-a-day", "nan"), ("--node-epsilon", "0")):
        assert run.invoke(app, ["device", "budget", str(home), *wrong]).exit_code
    for limits in (OwnerLimits(max_bits_a_day=math.nan), OwnerLimits(max_node_epsilon=0.0)):
        with pytest.raises(UserError, match="at least 0"):
            note_agent_budget(Home.open(home), limits)
    assert "15.4 bits of 20" in shown(home, "budget")
