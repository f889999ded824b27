"""Tasks without a disclosure have new names at every poll, and are served nevertheless.

At b8a6c4d this failed: under `silent`, a device sent constant task ids in the order of its queue, which link its
replies over polls, runs and servers.
"""

from pathlib import Path

import pytest

from fedaigc.collaboration.session import FinishOrder
from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, TaskStatus
from fedaigc.device.replies import UnknownTask
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.federation.client.client_app import app
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.output.records import read_record
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.launcher import in_process_run, run_in_process
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.roster import open_roster
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.server.service import PromptService
from fedaigc.federation.wire.generation_messages import finish_record
from fedaigc.federation.wire.messages import Ask, body, failure_in, values_of
from fedaigc.semantics.policy import Policy
from tests.small_run import MakeRun, generation_of

pytestmark = pytest.mark.usefixtures("quick_replies")
# what the policy lets a device say of the first two, and what is not understood
PROMPTS = ("an apple on a table", "a dog near a river", "a tango", "a shiny zorblax", "a pear")


@pytest.fixture
def config(make_run: MakeRun) -> FederationConfig:
    return make_run(num_clients=1, prompts=PROMPTS, rounds={"count": 0})


def poll(config: FederationConfig, policy: Policy, agent: Agent | None = None) -> dict[str, list[str]]:
    """Return an agent's reply to the query for waiting tasks, by default of a freshly started agent."""
    agent = agent or Agent(config.home(0), AgentSettings(0, config.model, policy, reply_floor_s=0.01))
    reply = agent.answer(Ask.SIGNATURES, config.to_run_config()[RUN_CONFIG_KEY], body())
    return {key: list(values_of(reply)[key]) for key in ("tasks", "alone")}


def queue(config: FederationConfig) -> PromptQueue:
    return PromptQueue(Home.open(config.home(0)))


def asking(config: FederationConfig, policy: Policy) -> FederationConfig:
    generation = config.generation.model_copy(update={"policy": policy})
    return config.model_copy(update={"generation": generation})


@pytest.mark.parametrize("owners", [True, False], ids=["the owner is silent", "the server asks for silence"])
def test_no_id_of_a_silent_task_is_sent_twice(config: FederationConfig, owners: bool) -> None:
    policy = Policy.SILENT if owners else Policy.KIND
    asked = config if owners else asking(config, Policy.SILENT)
    polls = [poll(asked, policy) for _ in range(12)]
    names = [name for told in polls for name in told["alone"]]
    assert all(told["tasks"] == [] for told in polls)
    assert len(names) == len(set(names)) == 12 * len(PROMPTS)
    assert not {task.task_id for task in queue(config).all()} & set(names)
    assert all(len(name) == 16 and set(name) <= set("0123456789abcdef") for name in names)
    # nor does the order of the list tell which is which: the first is not always the oldest
    latest = polls[-6:]
    first = {queue(config).get(told["alone"][0]).prompt for told in latest}
    assert len(first) > 1


def test_what_runs_alone_under_another_policy_is_not_linked_either(config: FederationConfig) -> None:
    """An id with a signature is constant: the signature links replies already, and groups are ordered by ids."""
    one, two = poll(config, Policy.KIND), poll(config, Policy.KIND)
    ids = [task.task_id for task in queue(config).all()]
    assert one["tasks"] == two["tasks"] == ids[:2]
    assert len(one["alone"]) == len(two["alone"]) == 3
    assert not set(one["alone"]) & set(two["alone"])
    assert not set(ids) & {*one["alone"], *two["alone"]}


def test_an_order_may_use_the_names_of_the_latest_polls_also_after_a_restart(
    config: FederationConfig,
) -> None:
    from fedaigc.bounds import MAX_POLLS_KEPT

    polls = [poll(config, Policy.SILENT)["alone"] for _ in range(MAX_POLLS_KEPT + 1)]
    for names in polls[1:]:
        assert {queue(config).get(name).prompt for name in names} == set(PROMPTS)
    for name in polls[0]:
        with pytest.raises(UnknownTask):
            queue(config).get(name)


def test_an_order_by_name_draws_the_task_once(config: FederationConfig) -> None:
    agent = Agent(config.home(0), AgentSettings(0, config.model, Policy.SILENT, reply_floor_s=0.01))
    pipe, base_hash = base_model(config.model)
    plan = build_plan(
        pipe, num_inference_steps=2, guidance_scale=1.0, height=32, width=32, base_hash=base_hash
    )
    old, new = (poll(config, Policy.SILENT, agent)["alone"] for _ in range(2))
    task = queue(config).get(new[0])
    (same,) = (name for name in old if queue(config).get(name) == task)

    def finish(name: str) -> bool:
        order = finish_record(FinishOrder(0, name, plan, noise_seed=1, packet=None))
        reply = agent.answer(Ask.FINISH, config.to_run_config()[RUN_CONFIG_KEY], order)
        return failure_in(reply) is None

    assert finish(new[0])
    assert (config.home(0) / "gallery" / f"{task.task_id}.png").exists()
    assert queue(config).get(task.task_id).status is TaskStatus.FINISHED
    assert not any(finish(name) for name in (new[0], same, task.task_id))
    assert len(poll(config, Policy.SILENT, agent)["alone"]) == len(PROMPTS) - 1


def test_a_silent_task_that_always_fails_is_given_up(make_run: MakeRun) -> None:
    """The server cannot count the attempts of a task with changing names, so the device does."""
    config = asking(make_run(num_clients=1, prompts=PROMPTS[:1], rounds={"count": 0}), Policy.SILENT)
    gallery = config.home(0) / "gallery"
    gallery.rmdir()
    gallery.write_bytes(b"no folder")
    _, base_hash = base_model(config.model)
    with in_process_run(config) as run_id:
        grid = LocalGrid(app, num_clients=1, run_config=config.to_run_config(), run_id=run_id)
        service = PromptService(
            open_roster(grid, num_clients=1, base_hash=base_hash), config, lambda record: None
        )
        shared = initial_shared_state(config)
        served = [service.serve(shared).groups for _ in range(4)]
    assert [len(groups) for groups in served] == [1, 1, 0, 0]
    assert served[0][0].tasks[0].task_id != served[1][0].tasks[0].task_id


@pytest.mark.parametrize("content", [b"", b"[]", b'{"names": 3}', b'{"polls": 1, "names": [7]}', b"\xff"])
def test_a_lost_table_costs_one_poll(config: FederationConfig, content: bytes) -> None:
    (name, *_) = poll(config, Policy.SILENT)["alone"]
    (config.home(0) / "task_names.json").write_bytes(content)
    with pytest.raises(UnknownTask):
        queue(config).get(name)
    names = poll(config, Policy.SILENT)["alone"]
    assert {queue(config).get(name).prompt for name in names} == set(PROMPTS)


def test_a_silent_run_serves_every_prompt_alone_and_repeats(make_run: MakeRun) -> None:
    """The whole path: names in the server's plan and record, orders by name, and pictures under the real ids."""
    records, drawn = [], []
    for folder in ("one", "two"):
        config = asking(make_run(folder, num_clients=2, prompts=PROMPTS, rounds={"count": 0}), Policy.SILENT)
        run_in_process(config)
        groups = generation_of(read_record(config.output)).groups
        records.append([(task.task_id, task.outcome) for group in groups for task in group.tasks])
        tasks = [task for client in range(2) for task in PromptQueue(Home.open(config.home(client))).all()]
        assert all(task.status is TaskStatus.FINISHED for task in tasks)
        own = {task.task_id for task in tasks}
        assert not own & {task_id for task_id, _ in records[-1]}
        pictures = {path.stem: path.read_bytes() for path in Path(config.homes).glob("*/gallery/*.png")}
        assert pictures.keys() == own
        drawn.append(pictures)
    assert [outcome for _, outcome in records[0]] == ["alone"] * len(PROMPTS)
    # a simulation repeats, for whoever runs it owns the devices: its names are derived
    assert records[0] == records[1]
    assert drawn[0] == drawn[1]


def test_a_simulation_keeps_its_ids_under_other_policies(config: FederationConfig) -> None:
    run_in_process(config)
    groups = generation_of(read_record(config.output)).groups
    told = {task.task_id for group in groups for task in group.tasks}
    assert told == {task.task_id for task in queue(config).all()}
