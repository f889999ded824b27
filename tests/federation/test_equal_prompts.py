"""Devices with equal prompts share all steps that can be shared, and nobody is told what the prompt is."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import RecordDict
from typer.testing import CliRunner

from fedaigc.cli.main import app
from fedaigc.collaboration.results import GroupRecord, Outcome
from fedaigc.device.device import Device
from fedaigc.device.home.budget import Budget, set_home_budget
from fedaigc.device.home.equality import EqualityLog
from fedaigc.device.home.home import Home
from fedaigc.device.replies import DeviceError, Failure
from fedaigc.diffusion.conditioning import prompt_digest
from fedaigc.errors import UserError
from fedaigc.federation.client import equality, handlers
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import read_record
from fedaigc.federation.output.run_summary import generation_lines
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.launcher import run_in_process
from fedaigc.federation.server.generation import plan_generation
from fedaigc.federation.server.initial_state import initial_shared_state
from fedaigc.federation.wire.messages import Ask
from fedaigc.flower_private import recorddict_to_proto
from tests.small_atlas import CAPTIONS, small_atlas
from tests.small_run import MakeRun, generation_of, images

# the model reads the first and the last as the same tokens
PROMPTS = ("1girl, solo, zorblax", "ein Hund am Strand", "1girl,  Solo, zorblax")
N = 4

Answers = list[tuple[Ask, int, RecordDict]]


@pytest.fixture
def atlas(tmp_path: Path, small_model: Path) -> Path:
    """An atlas of the small model. With the minimum of all its captions, each prompt discloses the root."""
    return small_atlas(tmp_path, small_model)


@pytest.fixture
def run_of(make_run: MakeRun, atlas: Path) -> Callable[..., FederationConfig]:
    def make(folder: str, *, generation: Any = None, **section: Any) -> FederationConfig:
        denoiser = {"atlas": atlas, "min_captions": len(CAPTIONS), "equal_prompts": True, **section}
        return make_run(
            folder,
            num_clients=len(PROMPTS),
            prompts=PROMPTS,
            adapter={"rank": 2, "boundary_timestep": None},
            rounds={"count": 0},
            generation={
                "num_inference_steps": N,
                "num_shared_steps": 2,
                "scorer": "none",
                "denoiser": denoiser,
                **(generation or {}),
            },
        )

    return make


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """All replies, with their kind and client."""
    found: Answers = []
    stock = handlers.answer

    def recorded(kind: Ask, content: RecordDict, host: handlers.Host, config: FederationConfig) -> RecordDict:
        reply = stock(kind, content, host, config)
        found.append((kind, host.client, reply))
        return reply

    monkeypatch.setattr(handlers, "answer", recorded)
    return found


def groups_of(config: FederationConfig) -> dict[tuple[int, ...], GroupRecord]:
    """Run, and return the groups by their clients. Every prompt is drawn once."""
    run_in_process(config)
    groups = generation_of(read_record(config.output)).groups
    assert sorted(task.client for group in groups for task in group.tasks) == [0, 1, 2]
    return {tuple(sorted(task.client for task in group.tasks)): group for group in groups}


def outcomes(group: GroupRecord) -> dict[int, Outcome]:
    return {task.client: task.outcome for task in group.tasks}


def drawn_alone(config: FederationConfig, group: GroupRecord) -> dict[str, bytes]:
    """Draw each task of a group in an untouched home alone, from the group's noise."""
    pipe, base_hash = base_model(config.model)
    shared = initial_shared_state(config)
    plan = plan_generation(shared, config)
    for task in group.tasks:
        device = Device(config.home(task.client), pipe, base_hash=base_hash)
        device.receive(shared)
        device.alone(task.task_id, group.noise_seed, plan)
    return images(config)


def size(record: RecordDict) -> int:
    return len(recorddict_to_proto(record).SerializeToString())


def failing(on: Ask, clients: tuple[int, ...], patch: pytest.MonkeyPatch) -> None:
    """Let the devices of some clients fail at an order."""
    stock = handlers._HANDLERS[on]

    def answer(content: RecordDict, host: handlers.Host, config: FederationConfig) -> RecordDict:
        if host.client in clients:
            raise DeviceError(Failure.STORAGE, "gone")
        return stock(content, host, config)

    patch.setitem(handlers._HANDLERS, on, answer)


def test_twins_draw_what_each_draws_alone_in_half_the_steps(
    run_of: Callable[..., FederationConfig], sent: Answers
) -> None:
    config = run_of("twins")
    groups = groups_of(config)
    assert set(groups) == {(0, 2), (1,)}
    twins = groups[0, 2]
    assert (twins.conditioning, twins.executor, twins.num_shared_steps) == ("own", 0, N - 1)
    assert outcomes(twins) == {0: Outcome.SHARED, 2: Outcome.SHARED}
    assert twins.evaluations == twins.planned_evaluations == (N - 1) + 2 * 1
    assert (twins.solo_evaluations, twins.samples) == (2 * N, 2 * ((N - 1) + 2))
    assert outcomes(groups[1,]) == {1: Outcome.ALONE}
    # bit for bit what each draws alone from the same noise
    alone = drawn_alone(run_of("alone"), twins)
    assert len(alone) == 2
    assert {name: picture for name, picture in images(config).items() if name in alone} == alone
    # the server is sent the same sizes, whatever is said: keys, tags, and one sealed packet
    by_kind = {kind: {size(reply) for k, _, reply in sent if k is kind} for kind in (Ask.BLIND, Ask.EQUAL)}
    assert by_kind == {Ask.BLIND: {1024}, Ask.EQUAL: {1024}}
    assert [client for kind, client, _ in sent if kind is Ask.TWINS] == [0]
    _nothing_of_the_prompts_is_outside(config, sent)
    _each_device_counted_what_its_tags_tell(config)
    _the_owner_reads_it_in_words(config)


def _nothing_of_the_prompts_is_outside(config: FederationConfig, sent: Answers) -> None:
    pipe, _ = base_model(config.model)
    kept = b"".join(path.read_bytes() for path in config.output.rglob("*") if path.is_file())
    kept += b"".join(recorddict_to_proto(reply).SerializeToString() for _, _, reply in sent)
    for prompt in PROMPTS:
        digest = prompt_digest(pipe, prompt)
        for secret in (prompt.encode(), digest, digest.hex().encode()):
            assert secret not in kept
    for client in range(len(PROMPTS)):
        for entry in EqualityLog(Home.open(config.home(client))).entries():
            assert entry.private == ""
            assert entry.tests == 1


def _the_owner_reads_it_in_words(config: FederationConfig) -> None:
    lines = generation_lines(read_record(config.output), config.home)
    assert lines[0] == "group 1: equal prompts, clients 0, 2: 3 shared steps by client 0; 5 steps, alone 8"
    assert " and that it equals others, group 1" in lines[1]
    assert "equals others" not in lines[2]
    assert lines[-1] == "2 of 3 prompts shared their first steps; 3 of 12 steps saved"


def _each_device_counted_what_its_tags_tell(config: FederationConfig) -> None:
    pipe, base_hash = base_model(config.model)
    for client in range(len(PROMPTS)):
        ledger = Device(config.home(client), pipe, base_hash=base_hash).prompts.ledger
        (entry,) = [entry for entry in ledger.entries() if entry.kind == "equality"]
        assert entry.bits == pytest.approx(1.585, abs=1e-3)  # log2 of the three members
        assert entry.epsilon is None
    told = CliRunner().invoke(app, ["device", "disclosures", str(config.home(0))]).output
    assert "equal?   tags for 2 others, at most 1.6 bits" in told
    assert "Equality tests answered so far: 1." in told
    assert (
        "Equality tests answered"
        in CliRunner().invoke(app, ["disclose", "a dog", "--home", str(config.home(2))]).output
    )


def test_without_the_option_nothing_is_compared(
    run_of: Callable[..., FederationConfig], sent: Answers
) -> None:
    config = run_of("plain", equal_prompts=False)
    groups = groups_of(config)
    assert set(groups) == {(0, 1, 2)}
    assert not {kind for kind, _, _ in sent} & {Ask.BLIND, Ask.EQUAL, Ask.TWINS}


@pytest.mark.parametrize(
    ("ask", "client", "expected"),
    [
        # the executor vanishes, or its run fails: its twin draws alone, from the noise of the group
        (Ask.TWINS, 0, {0: Outcome.ALONE, 2: Outcome.ALONE}),
        # who vanishes at the end loses its own picture only
        (Ask.FINISH, 2, {0: Outcome.SHARED, 2: Outcome.FAILED}),
        (Ask.FINISH, 0, {0: Outcome.FAILED, 2: Outcome.SHARED}),
    ],
)
def test_who_vanishes_costs_the_others_no_picture(
    run_of: Callable[..., FederationConfig],
    monkeypatch: pytest.MonkeyPatch,
    ask: Ask,
    client: int,
    expected: dict[int, Outcome],
) -> None:
    failing(ask, (client,), monkeypatch)
    groups = groups_of(run_of("vanished"))
    assert outcomes(groups[0, 2]) == expected
    assert outcomes(groups[1,]) == {1: Outcome.ALONE}


@pytest.mark.parametrize("ask", [Ask.BLIND, Ask.EQUAL])
def test_who_says_nothing_goes_on_as_without_a_test(
    run_of: Callable[..., FederationConfig], monkeypatch: pytest.MonkeyPatch, ask: Ask
) -> None:
    failing(ask, (2,), monkeypatch)
    groups = groups_of(run_of("few"))
    assert set(groups) == {(0, 1, 2)}
    assert groups[0, 1, 2].conditioning == "public"


def test_a_run_that_fails_for_the_prompt_does_not_show(
    run_of: Callable[..., FederationConfig], sent: Answers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply has the size of any other, opens for nobody, and all are drawn alone."""
    groups_of(run_of("good"))
    good = [reply for kind, _, reply in sent if kind is Ask.TWINS]
    sent.clear()

    def fails(*arguments: Any) -> bytes:
        raise FloatingPointError("of this prompt")

    monkeypatch.setattr(equality, "_sealed", fails)
    config = run_of("bad")
    groups = groups_of(config)
    assert outcomes(groups[0, 2]) == {0: Outcome.ALONE, 2: Outcome.ALONE}
    bad = [reply for kind, _, reply in sent if kind is Ask.TWINS]
    assert [size(reply) for reply in bad] == [size(reply) for reply in good]
    assert "FloatingPointError" in (config.home(0) / "errors.log").read_text()


def test_a_budget_that_is_used_up_answers_no_test(run_of: Callable[..., FederationConfig]) -> None:
    config = run_of("poor")
    # a node of the root counts nothing, and three members 1.6 bits
    set_home_budget(Home.open(config.home(2)), Budget(bits_a_day=1.5))
    groups = groups_of(config)
    assert groups[0, 1, 2].conditioning == "public"


def test_equal_prompts_of_which_no_node_is_disclosed_are_found(
    run_of: Callable[..., FederationConfig], atlas: Path
) -> None:
    """No caption is near enough at a tolerance of 0, so all would run alone."""
    curve = atlas.with_name("small.json")
    found = {
        told: groups_of(
            run_of(str(told), equal_prompts=told, min_captions=1, tolerance=0.0, risk=0.0, calibration=curve)
        )
        for told in (False, True)
    }
    assert set(found[False]) == {(0,), (1,), (2,)}
    assert set(found[True]) == {(0, 2), (1,)}


def test_a_link_is_refused(run_of: Callable[..., FederationConfig]) -> None:
    with pytest.raises(UserError, match="equal_prompts and link exclude each other"):
        run_of("linked", generation={"link": {}})
