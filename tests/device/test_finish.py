"""A reply to an order to finish reveals whether the prompt was drawn, at most twice, and nothing else.

At b8a6c4d, the kinds of failure ("internal", "plan_refused", "packet_refused", "unknown_task") and the sizes of
replies differed, a failed task waited forever, and a plan could name any scheduler.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.common.serde import recorddict_to_proto
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.bounds import MAX_DENOISING_STEPS, MAX_EVALUATIONS, MAX_IMAGE_SIDE
from fedaigc.collaboration.session import FinishOrder
from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.deployment.agent.reply_time import RATIO, held_back, rung
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import MAX_DEVICE_ATTEMPTS, PromptQueue, TaskStatus
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import FinishReport, UnknownTask
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.wire.generation_messages import (
    FINISH_REPLY_BYTES,
    PLAN,
    finish_record,
    of_one_size,
    read_report,
    report_record,
)
from fedaigc.federation.wire.messages import FAILURE, Ask, shared_state_record, values_of
from tests.small_run import MakeRun

FLOOR_S = 0.05


@pytest.fixture
def config(make_run: MakeRun) -> FederationConfig:
    return make_run(num_clients=1)


@pytest.fixture
def agent(config: FederationConfig) -> Agent:
    return start(config)


def start(config: FederationConfig) -> Agent:
    return Agent(
        config.home(0),
        AgentSettings(0, config.model, reply_floor_s=FLOOR_S, limits=OwnerLimits(max_learning_rate=1.0)),
    )


def ask(agent: Agent, kind: Ask, config: FederationConfig, content: RecordDict | None = None) -> RecordDict:
    return agent.answer(kind, config.to_run_config()[RUN_CONFIG_KEY], content or RecordDict())


def plan_of(config: FederationConfig, steps: int = 2, shared_hash: str = "") -> DenoisingPlan:
    pipe, base_hash = base_model(config.model)
    return build_plan(
        pipe,
        num_inference_steps=steps,
        guidance_scale=1.0,
        height=32,
        width=32,
        base_hash=base_hash,
        shared_hash=shared_hash,
    )


def in_bytes(reply: RecordDict) -> bytes:
    return recorddict_to_proto(reply).SerializeToString(deterministic=True)


def with_plan(order: RecordDict, **values: object) -> RecordDict:
    order[PLAN] = ConfigRecord({**values_of(order, PLAN), **values})  # type: ignore[dict-item]
    return order


def waiting(agent: Agent, config: FederationConfig) -> set[str]:
    told = values_of(ask(agent, Ask.SIGNATURES, config))
    return {*told["tasks"], *told["alone"]}


WRONG: dict[str, Callable[[FinishOrder], RecordDict]] = {
    "garbage for a packet": lambda order: finish_record(replace(order, packet=b"garbage")),
    "a task that is not there": lambda order: finish_record(replace(order, task_id="0" * 16)),
    "a path for a task": lambda order: finish_record(replace(order, task_id="../../device")),
    "no plan": lambda order: RecordDict({"body": finish_record(order)["body"]}),
    "a plan of another fingerprint": lambda order: with_plan(finish_record(order), fingerprint="0" * 64),
    "a scheduler that is none": lambda order: with_plan(
        finish_record(order), scheduler_class="KDPM2Scheduler"
    ),
    "a shared state that is not there": lambda order: with_plan(finish_record(order), shared_hash="0" * 64),
    "a plan of a million steps": lambda order: with_plan(finish_record(order), num_inference_steps=10**6),
    "another configuration": lambda order: with_plan(finish_record(order), scheduler_config="{}"),
    "nothing": lambda order: RecordDict(),
}


def test_every_failure_looks_the_same(agent: Agent, config: FederationConfig) -> None:
    (task_id, *_) = waiting(agent, config)
    order = FinishOrder(0, task_id, plan_of(config), noise_seed=1, packet=None)
    replies = {name: in_bytes(ask(agent, Ask.FINISH, config, wrong(order))) for name, wrong in WRONG.items()}
    # the configuration itself is refused before the message is looked at
    replies["a configuration that is none"] = in_bytes(agent.answer(Ask.FINISH, "{", finish_record(order)))
    assert len(set(replies.values())) == 1, {name: reply[:80] for name, reply in replies.items()}
    # none of these needed the prompt, and none cost an attempt
    assert task_id in waiting(agent, config)
    assert all(task.attempts == 0 for task in PromptQueue(agent.home).all())
    reply = ask(agent, Ask.FINISH, config, finish_record(order))
    assert FAILURE not in reply
    assert len(in_bytes(reply)) == FINISH_REPLY_BYTES == len(next(iter(replies.values())))


@given(st.tuples(*[st.integers(0, 2 * MAX_EVALUATIONS)] * 4), st.sampled_from([None, 0.0, 0.3, 1.0]))
def test_reports_have_one_size_and_come_back(counts: tuple[int, int, int, int], score: float | None) -> None:
    report = FinishReport(*counts, score, None)
    reply = of_one_size(report_record(report))
    assert len(in_bytes(reply)) == FINISH_REPLY_BYTES
    assert read_report(reply) == report


def test_a_task_has_two_attempts_whoever_asks_and_however_often_the_agent_starts(
    config: FederationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Drawing fails after the prompt was used. At b8a6c4d, the task then waited forever."""
    from fedaigc.device import device

    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("a private prompt may be in this text")

    monkeypatch.setattr(device, "finish_stages", broken)
    (task_id, *_) = waiting(start(config), config)
    order = finish_record(FinishOrder(0, task_id, plan_of(config), noise_seed=1, packet=None))
    for attempt in range(MAX_DEVICE_ATTEMPTS):
        again = start(config)
        assert task_id in waiting(again, config)
        run = config.model_copy(update={"name": f"another{attempt}"})
        assert values_of(ask(again, Ask.FINISH, run, order), FAILURE)["kind"] == "not_finished"
    last = start(config)
    assert task_id not in waiting(last, config)
    monkeypatch.undo()
    # what would succeed now does not run
    assert values_of(ask(last, Ask.FINISH, config, order), FAILURE)["kind"] == "not_finished"
    queue = PromptQueue(last.home)
    assert queue.get(task_id).status is TaskStatus.FAILED
    queue.retry(task_id)
    assert FAILURE not in ask(last, Ask.FINISH, config, order)
    assert queue.get(task_id).status is TaskStatus.FINISHED
    with pytest.raises(UserError, match="only one that failed"):
        queue.retry(task_id)


def test_an_attempt_is_on_the_disk_before_it_begins(tmp_path: Path) -> None:
    queue = PromptQueue(Home.open(tmp_path))
    task_id = queue.add("an apple on a table")
    for attempt in range(1, MAX_DEVICE_ATTEMPTS + 1):
        queue.begin_attempt(task_id)
        assert PromptQueue(Home.open(tmp_path)).get(task_id).attempts == attempt
    with pytest.raises(UnknownTask):
        queue.begin_attempt(task_id)
    # as an earlier version wrote it
    other = queue.add("a lemon on a table")
    (path,) = (tmp_path / "prompts").glob(f"*-{other}.json")
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "attempts"}))
    assert queue.get(other).attempts == 0


def test_a_plan_is_built_here_from_bounded_numbers(config: FederationConfig) -> None:
    pipe, base_hash = base_model(config.model)
    plan = plan_of(config, steps=4)
    request = PlanRequest.of(plan)
    assert request.build(pipe, base_hash) == plan
    assert PlanRequest.from_values(request.values()) == request
    wrong_values: tuple[dict[str, object], ...] = (
        {"num_inference_steps": 0},
        {"num_inference_steps": MAX_DENOISING_STEPS + 1},
        {"num_inference_steps": True},
        {"num_inference_steps": 4.0},
        {"height": MAX_IMAGE_SIDE + 8},
        {"guidance_scale": float("nan")},
        {"guidance_scale": float("inf")},
        {"guidance_scale": -1.0},
        {"guidance_scale": "5"},
        {"shared_hash": "../prompts"},
        {"fingerprint": ""},
        {"scheduler_class": 7},
        {"true_cfg_scale": float("nan")},
        {"true_cfg_scale": 4},
        {"negative_prompt": "x" * 1001},
        {"eta": 1.0},
    )
    for wrong in wrong_values:
        # under pytest the types of arguments are checked too, before the request looks at them
        with pytest.raises((UserError, TypeError)):
            PlanRequest.from_values(request.values() | wrong)
    with pytest.raises(UserError, match="devices accept"):
        replace(request, scheduler_class="DDPMScheduler").build(pipe, base_hash)
    with pytest.raises(UserError, match="can have true_cfg_scale, and no other arguments"):
        PlanRequest.of(replace(plan, arguments='{"eta":1.0}'))
    # the same numbers, but the other machine has another configuration of the scheduler in mind
    foreign = replace(plan, scheduler_config=plan.scheduler_config.replace("0.02", "0.03"))
    assert foreign != plan
    with pytest.raises(UserError, match="scheduler configuration"):
        PlanRequest.of(foreign).build(pipe, base_hash)


def test_a_negative_prompt_is_built_here_if_the_owner_permits_it(config: FederationConfig) -> None:
    pipe, base_hash = base_model(config.model)
    settings: dict[str, Any] = {"num_inference_steps": 2, "height": 32, "width": 32}
    plain, plan = (
        build_plan(pipe, guidance_scale=3.0, base_hash=base_hash, negative_prompt=text, **settings)
        for text in ("", "a lemon")
    )
    assert plain.fingerprint() != plan.fingerprint()
    # a message without one is as it was before there were any
    assert PlanRequest.of(plain).values().keys() & {"negative_prompt", "true_cfg_scale"} == set()
    request = PlanRequest.from_values(PlanRequest.of(plan).values())
    assert request.build(pipe, base_hash) == plan
    with pytest.raises(UserError, match="negative prompt, which the owner of this device does not permit"):
        OwnerLimits().check_plan(request)
    OwnerLimits(negative_prompt=True).check_plan(request)
    with pytest.raises(UserError, match="true_cfg_scale: the server requests 31"):
        OwnerLimits(negative_prompt=True).check_plan(replace(request, true_cfg_scale=31.0))
    for permitted in (False, True):
        limits = OwnerLimits(negative_prompt=permitted)
        agent = Agent(config.home(0), AgentSettings(0, config.model, reply_floor_s=FLOOR_S, limits=limits))
        (task_id, *_) = waiting(agent, config)
        order = FinishOrder(0, task_id, plan, noise_seed=1, packet=None)
        assert (FAILURE in ask(agent, Ask.FINISH, config, finish_record(order))) is not permitted


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_denoising_steps": 3}, "denoising steps"),
        ({"max_image_side": 31}, "pixels a side"),
        ({"max_guidance_scale": 0.5}, "guidance scale"),
    ],
)
def test_the_owner_limits_plans(config: FederationConfig, values: dict[str, int], said: str) -> None:
    request = PlanRequest.of(plan_of(config, steps=4))
    OwnerLimits().check_plan(request)
    with pytest.raises(UserError, match=said):
        OwnerLimits(**values).check_plan(request)  # type: ignore[arg-type]


@given(st.floats(0, 1e4), st.floats(0.01, 10))
def test_replies_leave_at_the_next_rung(elapsed_s: float, floor_s: float) -> None:
    time_s = rung(elapsed_s, floor_s)
    assert time_s >= elapsed_s * (1 - 1e-9)
    assert time_s <= max(floor_s, RATIO * elapsed_s) * (1 + 1e-9)
    # it is one of the ladder, so all that take about as long leave together
    assert rung(time_s * (1 - 1e-6), floor_s) == pytest.approx(time_s)


def test_a_reply_is_held_back_also_when_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("fedaigc.deployment.agent.reply_time.time.monotonic", lambda: now[0])
    monkeypatch.setattr(
        "fedaigc.deployment.agent.reply_time.time.sleep", lambda left: now.__setitem__(0, now[0] + left)
    )

    def failing() -> None:
        now[0] += 0.3
        raise RuntimeError

    with pytest.raises(RuntimeError), held_back(2.0):
        failing()
    assert now[0] == pytest.approx(102.0)
    with held_back(2.0):
        now[0] += 2.1
    assert now[0] == pytest.approx(102.0 + 2.5)


def test_install_and_train_refuse_what_their_strategy_does_not_declare(
    agent: Agent, config: FederationConfig
) -> None:
    """At b8a6c4d, any residual was accepted, so the server chose the network that processed the prompt."""
    shared = initial_shared_state(config)
    layer = next(iter(shared.lora))
    down, up = shared.lora[layer]
    moved = replace(shared, residual={layer: up.flatten(1) @ down.flatten(1)})
    version = values_of(ask(agent, Ask.INSTALL, config, shared_state_record(shared)))["version"]
    assert version == shared.hash()
    reply = ask(agent, Ask.INSTALL, config, shared_state_record(moved))
    assert values_of(reply, FAILURE) == {"kind": "state_refused"}
    from fedaigc.strategy.fingerprint import strategy_code

    order = shared_state_record(moved, round=1, strategy_code=strategy_code(config.rounds.strategy))
    assert values_of(ask(agent, Ask.TRAIN, config, order), FAILURE) == {"kind": "state_refused"}
