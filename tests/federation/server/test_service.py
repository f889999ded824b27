"""Continuous generation, and devices that connect late, with the real apps in this process."""

import json
import shutil
from functools import partial
from typing import Any

import pytest
from flwr.app import Context, Message, RecordDict

from fedaigc.collaboration.planner import Executor
from fedaigc.device.home import prompts
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, TaskStatus
from fedaigc.device.replies import Failure
from fedaigc.federation.client.client_app import app
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.recorder import refusals
from fedaigc.federation.output.records import GENERATIONS, read_record, read_services
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.launcher import in_process_run, run_in_process
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server import server_app
from fedaigc.federation.server import service as prompt_service
from fedaigc.federation.server.roster import Roster, open_roster
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.server.service import MAX_SERVER_ATTEMPTS, PromptService
from fedaigc.federation.wire.messages import Ask
from tests.federation.clock import Clock
from tests.small_run import PROMPTS, MakeRun, generation_of


def with_generation(config: FederationConfig, **values: Any) -> FederationConfig:
    return config.model_copy(update={"generation": config.generation.model_copy(update=values)})


def queue(config: FederationConfig, client: int) -> PromptQueue:
    return PromptQueue(Home.open(config.home(client)))


def grid_of(config: FederationConfig, run_id: int, kind: type[LocalGrid] = LocalGrid) -> LocalGrid:
    return kind(app, num_clients=config.num_clients, run_config=config.to_run_config(), run_id=run_id)


def roster_of(config: FederationConfig, run_id: int) -> Roster:
    _, base_hash = base_model(config.model)
    return open_roster(grid_of(config, run_id), num_clients=config.num_clients, base_hash=base_hash)


def test_prompts_are_served_between_rounds_and_once(make_run: MakeRun) -> None:
    config = with_generation(make_run(num_clients=2, rounds={"count": 3}), between_rounds=True)
    run_in_process(config)
    first, *others = read_services(config.output)
    assert first.after_round == 1
    assert sum(len(group.tasks) for group in first.groups) == len(PROMPTS)
    assert others == []
    record = read_record(config.output)
    assert generation_of(record).groups == ()
    assert [entry.round for entry in record.rounds] == [1, 2, 3]
    assert not [task for client in range(2) for task in queue(config, client).waiting()]
    # a new run of the same output does not go on in the old file
    run_in_process(with_generation(config, serve_s=0.1))
    assert not (config.output / GENERATIONS).exists()


def test_a_prompt_that_comes_within_the_window_joins_the_group(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(num_clients=2, prompts=(), rounds={"count": 0})
    config = with_generation(config, window_s=2.0, serve_s=30.0)
    queue(config, 0).add("an apple on a table")
    clock = Clock()
    clock.instead_of(monkeypatch, prompt_service)
    clock.after(1.0, lambda: queue(config, 1).add("a shiny lemon on a table"))
    # long after the window: a group of its own
    clock.after(3.5, lambda: queue(config, 0).add("a pear on a table"))
    began = clock.monotonic()
    told: list[str] = []
    run_in_process(config, lambda progress: told.append(progress.stage.label))
    assert clock.monotonic() - began >= 30.0
    sizes = [[len(group.tasks) for group in each.groups] for each in read_services(config.output)]
    assert sizes == [[2], [1]]
    # a server that asks for days must not fill its log
    assert told.count("signatures") <= 4


def test_a_task_that_fails_on_its_device_is_tried_twice_and_then_left_to_its_owner(make_run: MakeRun) -> None:
    config = make_run(num_clients=1, prompts=("an apple on a table",), rounds={"count": 0})
    home = Home.open(config.home(0))
    shutil.rmtree(home.gallery)
    home.gallery.write_bytes(b"no folder")
    with in_process_run(config) as run_id:
        shared = initial_shared_state(config)
        service = PromptService(roster_of(config, run_id), config, lambda record: None)
        for _ in range(prompts.MAX_DEVICE_ATTEMPTS):
            (group,) = service.serve(shared).groups
            assert [task.failure for task in group.tasks] == ["not_finished"]
        assert service.serve(shared).groups == ()
        (task,) = queue(config, 0).all()
        assert (task.status, task.attempts) == (TaskStatus.FAILED, prompts.MAX_DEVICE_ATTEMPTS)
        home.gallery.unlink()
        queue(config, 0).retry(task.task_id)
        (group,) = service.serve(shared).groups
        assert [task.outcome for task in group.tasks] == ["alone"]


def test_a_task_that_its_device_names_for_ever_is_given_up(make_run: MakeRun) -> None:
    """A device that forgets its attempts costs the server a few attempts, and not one at every poll."""
    config = make_run(num_clients=1, prompts=("an apple on a table",), rounds={"count": 0})
    home = Home.open(config.home(0))
    shutil.rmtree(home.gallery)
    home.gallery.write_bytes(b"no folder")
    with in_process_run(config) as run_id:
        shared = initial_shared_state(config)
        service = PromptService(roster_of(config, run_id), config, lambda record: None)
        for _ in range(MAX_SERVER_ATTEMPTS):
            assert service.serve(shared).groups
            for path in home.prompts.glob("*.json"):
                forgot = json.loads(path.read_text()) | {"attempts": 0, "status": "waiting"}
                path.write_text(json.dumps(forgot))
        assert service.serve(shared).groups == ()


class LateGrid(LocalGrid):
    """The node of the last client connects only before the second round."""

    rounds = 0

    def get_node_ids(self) -> list[int]:
        """Return the nodes, of which the last is late."""
        ids = list(self._contexts)
        return sorted(ids if self.rounds >= 1 else ids[:-1])

    def push_messages(self, messages: Any) -> list[str]:
        """Count the ordered rounds."""
        messages = list(messages)
        self.rounds += any(message.metadata.message_type == Ask.TRAIN for message in messages)
        return super().push_messages(messages)


def test_a_bound_device_that_comes_late_joins_the_next_round(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(num_clients=3, rounds={"count": 3})
    monkeypatch.setattr(server_app, "open_roster", partial(open_roster, timeout_s=0.0))
    with in_process_run(config) as run_id:
        grid = grid_of(config, run_id, LateGrid)
        # the fourth never comes
        bindings = {str(node): client for client, node in enumerate(grid._contexts)} | {"7": 3}
        late = config.model_copy(update={"bindings": bindings, "num_clients": 4})
        server_app.serve(grid, late)
    record = read_record(config.output)
    assert [entry.sampled for entry in record.rounds] == [(0, 1), (0, 1, 2), (0, 1, 2)]
    assert record.refused == ()
    assert record.clients == (0, 1, 2)
    assert record.absent == (3,)
    assert record.client_versions.keys() == {0, 1, 2}
    assert "never connected: the device of client 3" in refusals(record)
    # its prompts are served with the others'
    drawn = {task.client for group in generation_of(record).groups for task in group.tasks}
    assert drawn == {0, 1, 2}


def test_a_message_is_worth_nothing_after_its_deadline(make_run: MakeRun) -> None:
    """Flower delivers no message after its time to live, which is the deadline."""
    seen: dict[str, set[float]] = {}

    def noting(message: Message, context: Context) -> Message:
        seen.setdefault(message.metadata.message_type, set()).add(message.metadata.ttl)
        return app(message, context)

    config = make_run(num_clients=1, rounds={"count": 1, "deadline_s": 77.0})
    config = with_generation(config, deadline_s=55.0)
    with in_process_run(config) as run_id:
        grid = LocalGrid(noting, num_clients=1, run_config=config.to_run_config(), run_id=run_id)
        server_app.serve(grid, config)
    assert seen[Ask.TRAIN] == {77.0}
    assert seen[Ask.SIGNATURES] == seen[Ask.INSTALL] == seen[Ask.FINISH] == {55.0}


def test_a_helper_with_a_packet_of_its_own_making_costs_the_sharing_only(make_run: MakeRun) -> None:
    """The packet is damaged or of another step, and no member receives it, even over a simulated link."""
    for bad in ("cut", "other step"):
        config = make_run(bad.replace(" ", "-"), num_clients=2, rounds={"count": 0})
        config = with_generation(config, executor=Executor.MEMBER, handoff="latents")
        config = config.model_copy(
            update={
                "generation": config.generation.model_validate(
                    config.generation.model_dump() | {"link": {"snr_db": 20.0}, "delivery": "tolerant"}
                )
            }
        )

        def spoiling(message: Message, context: Context, bad: str = bad) -> Message:
            if message.metadata.message_type != Ask.SHARE:
                return app(message, context)
            content: RecordDict = message.content
            if bad == "other step":
                body = content.config_records["body"]
                body["stop"] = 1
            reply = app(message, context)
            if bad == "cut":
                body = reply.content.config_records["body"]
                packet = body["packet"]
                assert isinstance(packet, bytes)
                body["packet"] = packet[:40]
            return reply

        with in_process_run(config) as run_id:
            grid = LocalGrid(spoiling, num_clients=2, run_config=config.to_run_config(), run_id=run_id)
            server_app.serve(grid, config)
        groups = generation_of(read_record(config.output)).groups
        shares = [group for group in groups if len(group.tasks) > 1]
        assert shares
        assert {group.share_failure for group in shares} == {Failure.PACKET_REFUSED.value}
        assert {task.outcome for group in groups for task in group.tasks} == {"alone"}
