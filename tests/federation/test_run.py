"""Whole runs with the real apps: results, refusals, and exact reproducibility by the seed."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import Array, ArrayRecord, Context, Message
from flwr.clientapp import ClientApp

from fedaigc.diffusion.adapters.lora_folder import export_lora
from fedaigc.errors import Diverged, UserError
from fedaigc.federation.client.client_app import app
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.output.records import RunRecord, read_record
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.launcher import in_process_run, run_in_process, simulate
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.sampling import sample_clients
from fedaigc.federation.server.server_app import initial_shared_state, serve
from fedaigc.federation.server.server_rule import server_rule
from fedaigc.federation.wire.messages import ARRAYS, BODY, FLAT, Ask
from fedaigc.rng import derived_seed
from tests.quick_cases import quick_first
from tests.small_run import PROMPTS, MakeRun, generation_of, images


def personal(config: FederationConfig) -> dict[str, bytes]:
    """Return what devices keep of a run, by path without the identity of the run."""
    return {
        re.sub(r"\.[0-9a-f]{16}/", "/", str(path.relative_to(config.homes))): path.read_bytes()
        for path in sorted(config.homes.glob("*/adapters/rounds/**/*.safetensors"))
    }


@pytest.fixture(scope="module")
def of_four(
    make_module_run: MakeRun,
) -> tuple[FederationConfig, RunRecord, list[tuple[str, int, int]]]:
    """A run of four clients, its record, and what it told while it went on."""
    config = make_module_run(num_clients=4)
    steps: list[tuple[str, int, int]] = []
    record = simulate(config, lambda told: steps.append((told.stage.label, told.done, told.total)))
    return config, record, steps


def test_a_run_trains_groups_shares_and_finishes(
    of_four: tuple[FederationConfig, RunRecord, list[tuple[str, int, int]]],
) -> None:
    config, record, steps = of_four
    assert record.status == "finished"
    assert record.clients == (0, 1, 2, 3)
    assert record.refused == ()
    assert [entry.round for entry in record.rounds] == [1, 2]
    assert record.rounds[0].num_examples == {0: 2, 1: 3, 2: 4, 3: 5}
    assert set(record.rounds[0].metrics[0]) == {"shared_loss", "personal_loss"}
    hashes = [entry.shared_hash for entry in record.rounds]
    assert len({initial_shared_state(config).hash(), *hashes}) == 3
    assert load_shared_state(config.output).hash() == record.shared_hash == hashes[-1]

    generation = generation_of(record)
    assert generation.policy == "kind"
    assert len(generation.groups) == 2  # fruit on a table, animals near a river
    for group in generation.groups:
        assert len(group.tasks) == 2
        assert group.executor == "edge"
        assert group.evaluations == group.planned_evaluations == 2 + 2 * (4 - 2)
        assert group.solo_evaluations == 8
        assert group.samples == 2 * group.evaluations
        assert {task.outcome for task in group.tasks} == {"shared"}
    assert len(images(config)) == 4
    assert ("round 2 of 2", 4, 4) in steps
    # what the server keeps holds no prompt
    written = (config.output / "record.json").read_text()
    assert not any(word in written for word in ("apple", "shiny", "lemon", "dog", "cat "))


def test_the_same_seed_gives_the_same_run_in_any_order_of_replies(
    make_run: MakeRun, whole_run: FederationConfig
) -> None:
    """Weights, personal adapters and images agree bit for bit, and differ for another seed."""
    first, second = whole_run, make_run("second")
    other = make_run("other", seed=1, generation={"enabled": False}, rounds={"count": 1})
    run_in_process(second, shuffle_seed=0)
    assert read_record(second.output).shared_hash == read_record(first.output).shared_hash
    assert images(second) == images(first)
    assert personal(second) == personal(first)
    assert len(personal(first)) >= 3
    run_in_process(other)
    assert read_record(other.output).shared_hash != read_record(first.output).rounds[0].shared_hash


def test_random_node_ids_change_nothing(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Node ids that increase and that decrease with the clients, which would change float32 sums."""
    ends = set()
    for sign in (1, -1):
        monkeypatch.setattr(
            "fedaigc.federation.runtime.local_grid.derived_seed",
            lambda run_id, name, client, sign=sign: 10**6 + sign * client,
        )
        config = make_run(f"nodes{sign}", num_clients=4, generation={"enabled": False}, rounds={"count": 1})
        run_in_process(config)
        ends.add(read_record(config.output).shared_hash)
    assert len(ends) == 1


def test_a_repeated_run_of_the_same_name_trains_nothing_twice(make_run: MakeRun) -> None:
    config = make_run(num_clients=2, generation={"enabled": False})
    run_in_process(config)
    weights, record = personal(config), read_record(config.output)
    run_in_process(config)
    assert personal(config) == weights
    assert read_record(config.output).timeless() == record.timeless()


def test_clients_are_drawn_from_the_run_s_own_seed(make_run: MakeRun) -> None:
    config = make_run(num_clients=4, rounds={"count": 2, "clients": 2}, generation={"enabled": False})

    def drawn(seed: int) -> list[list[int]]:
        seeded = config.model_copy(update={"seed": seed})
        return [sample_clients([3, 1, 0, 2], server_rule(seeded), seeded, number) for number in range(1, 9)]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)
    assert {len(round_) for round_ in drawn(0)} == {2}
    assert all(round_ == sorted(round_) for round_ in drawn(0))
    run_in_process(config)
    assert [list(entry.sampled) for entry in read_record(config.output).rounds] == drawn(0)[:2]


def test_a_member_can_run_the_shared_steps_and_the_images_are_the_same(
    make_run: MakeRun, whole_run: FederationConfig
) -> None:
    edge = whole_run
    settings = {**edge.generation.model_dump(mode="json"), "executor": "member"}
    member = make_run("member", generation=settings)
    run_in_process(member)
    executors = {group.executor for group in generation_of(read_record(member.output)).groups}
    assert executors & {0, 1, 2}
    assert images(member) == images(edge)


def test_the_open_policy_says_so_in_the_record(make_run: MakeRun) -> None:
    settings = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none", "policy": "open"}
    config = make_run(rounds={"count": 0}, generation=settings)
    run_in_process(config)
    generation = generation_of(read_record(config.output))
    assert generation.policy == "open"
    assert {group.prompt for group in generation.groups} <= set(PROMPTS)


def test_the_trained_state_exports_to_an_ordinary_lora_folder(
    whole_run: FederationConfig, tmp_path: Path
) -> None:
    config = whole_run
    pipe, _ = base_model(config.model)
    assert export_lora(pipe, load_shared_state(config.output), tmp_path / "lora").is_file()


class Tampering:
    """Return a client app in which one client changes its replies."""

    def __init__(self, client: int, change: Any) -> None:
        self._partition = client
        self._change = change

    def __call__(self, message: Message, context: Context) -> Message:
        reply = app(message, context)
        if context.node_config["partition-id"] == self._partition:
            self._change(message.metadata.message_type, reply)
        return reply


def serve_with(config: FederationConfig, client: Any) -> RunRecord:
    """Run the server against another client app."""
    with in_process_run(config) as run_id:
        grid = LocalGrid(
            client, num_clients=config.num_clients, run_config=config.to_run_config(), run_id=run_id
        )
        serve(grid, config)
    return read_record(config.output)


def test_a_client_with_another_base_is_refused_with_both_fingerprints(make_run: MakeRun) -> None:
    config = make_run(rounds={"count": 1}, generation={"enabled": False})

    def other_base(kind: str, reply: Message) -> None:
        if kind == Ask.HELLO:
            reply.content.config_records[BODY]["base"] = "f" * 64

    record = serve_with(config, Tampering(1, other_base))
    assert record.clients == (0, 2)
    (refused,) = record.refused
    assert refused.client == 1
    assert "f" * 64 in refused.reason
    assert record.base is not None
    assert record.base in refused.reason
    assert record.rounds[0].sampled == (0, 2)


def test_a_second_node_with_the_same_partition_is_refused(make_run: MakeRun) -> None:
    config = make_run(rounds={"count": 1}, generation={"enabled": False})

    def claim_zero(kind: str, reply: Message) -> None:
        if kind == Ask.HELLO:
            reply.content.config_records[BODY]["partition"] = 0

    record = serve_with(config, Tampering(2, claim_zero))
    assert record.clients == (0, 1)
    assert [entry.reason for entry in record.refused] == ["client 0 is already connected"]


def poison(kind: str, reply: Message) -> None:
    """Put a NaN among the weights."""
    if kind == Ask.TRAIN:
        values = reply.content.array_records[ARRAYS][FLAT].numpy().copy()
        values[3] = float("nan")
        reply.content[ARRAYS] = ArrayRecord({FLAT: Array(values)})


def test_a_poisoned_update_is_refused_and_the_round_goes_on(make_run: MakeRun) -> None:
    """The state equals that of a round without this client."""
    config = make_run("poisoned", rounds={"count": 1}, generation={"enabled": False})
    record = serve_with(config, Tampering(2, poison))
    assert list(record.rounds[0].refused) == [2]
    assert "client 2: " in record.rounds[0].refused[2]
    assert "not finite" in record.rounds[0].refused[2]
    without = make_run("without", rounds={"count": 1}, generation={"enabled": False}, num_clients=2)
    run_in_process(without)
    assert record.shared_hash == read_record(without.output).shared_hash


def test_a_round_without_any_usable_update_ends_the_run(make_run: MakeRun) -> None:
    config = make_run(num_clients=1, generation={"enabled": False})
    with pytest.raises(UserError, match="round 1: no client sent a usable update") as caught:
        serve_with(config, Tampering(0, poison))
    assert not isinstance(caught.value, Diverged)
    record = read_record(config.output)
    assert record.status == "failed"
    assert record.error is not None
    assert "client 0" in record.error


@pytest.mark.parametrize("kind", quick_first([Ask.FINISH, Ask.HELLO, Ask.SIGNATURES]))
def test_a_client_that_talks_nonsense_does_not_stop_the_others(make_run: MakeRun, kind: Ask) -> None:
    config = make_run(rounds={"count": 0})

    def nonsense(asked: str, reply: Message) -> None:
        if asked == kind:
            for name in list(reply.content):
                del reply.content[name]

    record = serve_with(config, Tampering(0, nonsense))
    assert record.status == "finished"
    finished = {
        task.client
        for group in generation_of(record).groups
        for task in group.tasks
        if task.outcome != "failed"
    }
    assert finished == {1, 2}


def test_an_exception_of_a_client_crosses_as_its_kind_only(make_run: MakeRun) -> None:
    """The text remains in the device's home."""
    config = make_run(rounds={"count": 0})
    secret = "a crimson zeppelin over the harbour"
    crashing = ClientApp()

    for asked in Ask:
        category, _, action = asked.value.partition(".")
        register = crashing.query(action) if category == "query" else crashing.train()

        def crash(message: Message, context: Context, asked: Ask = asked) -> Message:
            if asked is not Ask.HELLO and context.node_config["partition-id"] == 0:
                raise RuntimeError(secret)
            return app(message, context)

        register(crash)
    record = serve_with(config, crashing)
    assert secret not in record.model_dump_json()
    assert record.status == "finished"

    (config.home(1) / "device.json").write_text(secret)
    record = simulate(replace_output(config, "again"))
    assert secret not in record.model_dump_json()
    assert "Traceback" in (config.home(1) / "errors.log").read_text()


def replace_output(config: FederationConfig, name: str) -> FederationConfig:
    return config.model_copy(update={"output": config.output / name})


def test_a_missing_home_is_named_before_anything_starts(make_run: MakeRun) -> None:
    config = make_run(num_clients=2).model_copy(update={"num_clients": 3})
    with pytest.raises(UserError, match=r"no device's home .*02: .* 00 to 02"):
        simulate(config)
    assert not config.output.exists()


def test_too_many_shared_steps_are_refused(make_run: MakeRun) -> None:
    settings = {"num_inference_steps": 4, "num_shared_steps": 4, "scorer": "none"}
    config = make_run(rounds={"count": 9}, generation=settings)
    with pytest.raises(UserError, match="4"):
        simulate(config)
    record = read_record(config.output)
    assert record.status == "failed"
    assert len(record.rounds) == 0  # told before any training


def test_the_caller_s_thread_count_comes_back(make_run: MakeRun) -> None:
    before = torch.get_num_threads()
    run_in_process(make_run(rounds={"count": 0}, generation={"enabled": False}, threads=before + 1))
    assert torch.get_num_threads() == before


def test_node_ids_are_no_partition_ids(make_run: MakeRun) -> None:
    config = make_run()
    grid = LocalGrid(app, num_clients=3, run_config=config.to_run_config(), run_id=derived_seed(0, "x"))
    assert min(grid.get_node_ids()) > 1000
    assert replace(grid.run, run_id=0).run_id == 0


def test_rounds_updates_and_tasks_are_data_frames(
    of_four: tuple[FederationConfig, RunRecord, list[tuple[str, int, int]]],
) -> None:
    _, record, _ = of_four
    rounds = record.rounds.to_pandas()
    assert list(rounds["round"]) == [1, 2]
    assert list(rounds["clients"]) == [4, 4]
    first = record.rounds[0]
    losses = [metrics["shared_loss"] for metrics in first.metrics.values()]
    assert rounds["shared_loss"][0] == pytest.approx(sum(losses) / 4)
    assert rounds["bytes_up"][0] == sum(first.sent_bytes["up"].values())
    updates = record.rounds.updates_to_pandas()
    assert list(updates["num_examples"]) == [2, 3, 4, 5] * 2
    assert list(updates["weight"]) == list(updates["num_examples"])
    tasks = record.tasks.to_pandas()
    assert sorted(tasks["client"]) == [0, 1, 2, 3]
    assert set(tasks["outcome"]) == {"shared"}
    assert set(tasks["report_denoiser_calls"]) == {
        task.report.denoiser_calls for task in record.tasks if task.report
    }
