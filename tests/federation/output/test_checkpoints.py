"""A run survives a damaged or poisoned checkpoint, and a round in which every device diverges.

At b8a6c4d, there was one checkpoint. If it was damaged, or if all devices diverged from it, every attempt to resume
the run failed.
"""

import errno
import os
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch
from flwr.app import RecordDict

from fedaigc.device.replies import DeviceError, Failure
from fedaigc.errors import DamagedFile, Diverged, UserError
from fedaigc.federation.client.client_app import SimulatedHost
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output import checkpoint as checkpoints
from fedaigc.federation.output.checkpoint import CHECKPOINT, load_checkpoint
from fedaigc.federation.output.recorder import load_shared_state, refusals
from fedaigc.federation.output.records import read_record
from fedaigc.federation.runtime.launcher import run_in_process
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.wire.messages import Ask, failure, read_train
from fedaigc.storage import atomic_file, tensor_file
from fedaigc.storage.tensor_file import read_parts, write_parts
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received
from tests.federation.hostile import Change, run_with
from tests.quick_cases import quick_first
from tests.small_run import MakeRun, kept

QUIET = {"enabled": False}
DIVERGING = {"local_steps": 3, "personal_steps": 0, "learning_rate": 1e30, "optimizer": "sgd"}


def upto(config: FederationConfig, count: int) -> FederationConfig:
    rounds = config.rounds.model_copy(update={"count": count})
    return config.model_copy(update={"rounds": rounds, "resume": True})


def poison(path: Path, value: float) -> None:
    """Write other weights into an otherwise unchanged file."""
    header, parts = read_parts(path)
    parts["shared"] = {name: torch.full_like(tensor, value) for name, tensor in parts["shared"].items()}
    write_parts(path, header, parts)


def damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def poisoned(path: Path) -> None:
    poison(path, 3e38)


@pytest.fixture(scope="module")
def kept_rounds(make_module_run: MakeRun) -> Callable[[], FederationConfig]:
    config = make_module_run(generation=QUIET, rounds={"count": 2})
    run_in_process(config)
    return kept(config)


@pytest.fixture
def two_rounds(kept_rounds: Callable[[], FederationConfig]) -> FederationConfig:
    """A finished run of two rounds, for a test of its own."""
    return kept_rounds()


@pytest.mark.parametrize("spoil", quick_first([damaged, poisoned, cut, Path.unlink], 2))
def test_a_run_goes_on_from_the_checkpoint_before_a_bad_one(
    three_rounds: FederationConfig, two_rounds: FederationConfig, spoil: Any
) -> None:
    config = two_rounds
    spoil(config.output / CHECKPOINT)
    run_in_process(upto(config, 3))
    expected, found = read_record(three_rounds.output), read_record(config.output)
    hashes = [[done.shared_hash for done in record.rounds] for record in (expected, found)]
    assert hashes[0] == hashes[1]
    if spoil is not Path.unlink:
        assert found.fell_back is not None
        assert found.fell_back.to_round == 1
        assert any("resumed from round 1" in line for line in refusals(found))


def test_two_bad_checkpoints_are_told(two_rounds: FederationConfig) -> None:
    config = two_rounds
    for name in (CHECKPOINT, checkpoints.EARLIER):
        damaged(config.output / name)
    with pytest.raises(DamagedFile, match="values differ from those that were written"):
        run_in_process(upto(config, 3))


def test_a_new_run_does_not_go_back_to_another_run_s_state(two_rounds: FederationConfig) -> None:
    config = two_rounds
    run_in_process(config.model_copy(update={"rounds": config.rounds.model_copy(update={"count": 1})}))
    assert checkpoints.load_earlier(config) is None
    held = load_checkpoint(config)
    assert held is not None
    assert held.round == 1


def diverging_in(numbers: Collection[int], when: Any = lambda received: True) -> Change:
    """Make all devices diverge in these rounds, from states that satisfy `when`."""

    def change(content: RecordDict, client: int, kind: str, order: RecordDict) -> RecordDict:
        if kind != Ask.TRAIN:
            return content
        received = read_train(order)
        return failure(Failure.DIVERGED) if received.round in numbers and when(received) else content

    return change


def test_a_run_leaves_a_state_from_which_all_devices_diverge(two_rounds: FederationConfig) -> None:
    """Weights of 2000 are within all bounds, but no device here can train from them."""
    config = two_rounds
    poison(config.output / CHECKPOINT, 2e3)

    def large(received: Received) -> bool:
        return max(float(tensor.max()) for tensor in received.shared.tensors().values()) > 1e3

    record = run_with(upto(config, 4), diverging_in(range(99), large))
    assert record.status == "finished"
    assert [done.fell_back_to for done in record.rounds] == [None, None, 1, None]
    assert record.rounds[2].shared_hash == record.rounds[0].shared_hash
    assert any("round 3: devices diverged" in line for line in refusals(record))
    assert max(float(tensor.max()) for tensor in load_shared_state(config.output).tensors().values()) < 10


def test_a_round_in_which_all_diverge_costs_a_round_and_not_the_run(make_run: MakeRun) -> None:
    """At b8a6c4d: UserError. The second time, the state is not the cause: the user is told and can resume the run."""
    few: dict[str, Any] = {"num_clients": 2, "generation": QUIET, "rounds": {"count": 4}}
    record = run_with(make_run(**few), diverging_in({3}))
    assert [done.fell_back_to for done in record.rounds] == [None, None, 1, None]
    assert record.status == "finished"
    again = make_run("again", **few)
    with pytest.raises(Diverged, match=r"no client sent a usable update:(\n  client \d+: diverged)+\Z"):
        run_with(again, diverging_in({3, 4}))
    assert run_with(upto(again, 4), diverging_in(())).status == "finished"


def test_training_that_diverges_from_the_start_is_told(make_run: MakeRun) -> None:
    config = make_run(generation=QUIET, rounds={"count": 2})
    with pytest.raises(Diverged, match="round 1: no client sent a usable update"):
        run_with(config, diverging_in({1}))


def test_a_minority_that_says_it_diverged_sends_no_run_back(make_run: MakeRun) -> None:
    config = make_run(generation=QUIET, rounds={"count": 6, "clients": 1})

    def change(content: RecordDict, client: int, kind: str, order: RecordDict) -> RecordDict:
        return failure(Failure.DIVERGED) if kind == Ask.TRAIN and client == 0 else content

    record = run_with(config, change)
    assert record.status == "finished"
    assert all(done.fell_back_to is None for done in record.rounds)
    assert any(done.sampled == (0,) for done in record.rounds)


def test_a_device_keeps_nothing_of_a_round_that_diverged(make_run: MakeRun) -> None:
    """At b8a6c4d, the next round started with the memory of that round, which was not finite."""
    config = make_run(generation=QUIET, training=DIVERGING, rounds={"count": 1, "strategy": "scaffold"})
    device, rule = SimulatedHost(0, config).open_device(), load_strategy("scaffold")
    shared = initial_shared_state(config)
    rule.start(shared, 1)
    with pytest.raises(DeviceError, match="not finite"):
        device.train(
            config.name,
            rule.download(shared, 0, shared.rank, 1),
            rule,
            config.training,
            local_steps=3,
            personal_rank=2,
            height=32,
            width=32,
        )
    assert device.versions.last_round(config.name) == 0


@pytest.mark.parametrize("record_too", [False, True], ids=["a checkpoint", "the record"])
def test_a_full_disk_is_told_and_the_run_goes_on_later(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, record_too: bool
) -> None:
    """At f4520cc a traceback; nor could the record say that the run had failed."""
    straight = make_run("straight", num_clients=1, generation=QUIET, rounds={"count": 2})
    run_in_process(straight)
    config = make_run(num_clients=1, generation=QUIET, rounds={"count": 2})
    write = atomic_file.write_file

    def full(path: Path, data: bytes, mode: int = 0o666) -> None:
        later = path.name == CHECKPOINT and (path.parent / checkpoints.EARLIER).exists()
        if later or (record_too and (path.parent / CHECKPOINT).exists() and path.name == "record.json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        write(path, data, mode)

    with monkeypatch.context() as patch:
        for module in (atomic_file, tensor_file):
            patch.setattr(module, "write_file", full)
        with pytest.raises(
            UserError, match=r"No space left on device; the rounds before are kept: make room"
        ):
            run_in_process(config)
    record = read_record(config.output)
    assert (record.status, record.error_kind) == (("running", None) if record_too else ("failed", "error"))
    run_in_process(config.model_copy(update={"resume": True}))
    assert [done.shared_hash for done in read_record(config.output).rounds] == [
        done.shared_hash for done in read_record(straight.output).rounds
    ]
