"""Damaged files are reported by name, and are neither used nor ignored."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedaigc.device.device import Device
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.checkpoint import CHECKPOINT
from fedaigc.federation.output.recorder import SHARED_STATE, load_shared_state, refusals
from fedaigc.federation.output.records import RECORD, read_record
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.runtime.launcher import simulate
from tests.small_run import MakeRun, generation_of, kept

NO_PROMPTS = {"generation": {"enabled": False}}


def resumed(config: FederationConfig, rounds: int) -> FederationConfig:
    section = config.rounds.model_copy(update={"count": rounds})
    return config.model_copy(update={"resume": True, "rounds": section})


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def kept_round(make_module_run: MakeRun) -> Callable[[], FederationConfig]:
    config = make_module_run(num_clients=2, rounds={"count": 1}, **NO_PROMPTS)
    simulate(config)
    return kept(config)


@pytest.fixture
def one_round(kept_round: Callable[[], FederationConfig]) -> FederationConfig:
    """A finished run of one round, for a test of its own."""
    return kept_round()


def test_a_flipped_bit_in_a_checkpoint_or_a_shared_state_is_found(one_round: FederationConfig) -> None:
    config = one_round
    for name in (CHECKPOINT, SHARED_STATE):
        flip(config.output / name, -3)
    with pytest.raises(DamagedFile, match="values differ from those that were written"):
        simulate(resumed(config, 2))
    with pytest.raises(DamagedFile, match="values differ from those that were written"):
        load_shared_state(config.output)


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"rounds": 3}'])
def test_a_record_that_is_none_stops_a_resumed_run(one_round: FederationConfig, text: str) -> None:
    config = one_round
    (config.output / RECORD).write_text(text)
    with pytest.raises(UserError, match="is not a record of a run"):
        simulate(resumed(config, 2))


def test_another_file_or_a_folder_in_the_checkpoint_s_place_is_refused(one_round: FederationConfig) -> None:
    config = one_round
    path = config.output / CHECKPOINT
    path.write_bytes((config.output / SHARED_STATE).read_bytes())
    with pytest.raises(DamagedFile, match="is not a checkpoint"):
        simulate(resumed(config, 2))
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match="no tensor file"):
        simulate(resumed(config, 2))


@pytest.mark.parametrize("name", ["images/captions.jsonl", "device.json"])
def test_a_damaged_home_leaves_the_rounds_and_is_told(make_run: MakeRun, name: str) -> None:
    config = make_run(rounds={"count": 1}, **NO_PROMPTS)
    (config.home(1) / name).write_text("{broken")
    told = refusals(simulate(config))
    assert len(told) == 1
    assert "client 1" in told[0]
    assert "storage" in told[0]


def test_a_damaged_prompt_is_told_and_the_others_are_drawn(make_run: MakeRun) -> None:
    config = make_run(rounds={"count": 0})
    prompt = next((config.home(1) / "prompts").iterdir())
    prompt.write_text("{")
    record = simulate(config)
    (told,) = refusals(record)
    assert told.startswith("1 prompt of client 1 cannot be read")
    drawn = {task.client for group in generation_of(record).groups for task in group.tasks}
    assert drawn == {0, 2}


def test_what_an_earlier_generation_drew_stays_told(make_run: MakeRun) -> None:
    config = make_run(rounds={"count": 1})
    first = generation_of(simulate(config))
    assert first.groups
    again = simulate(resumed(config, 1))
    assert again.earlier_generations == (first,)
    assert generation_of(again).groups == ()
    pipe, base_hash = base_model(config.model)
    device = Device(config.home(0), pipe, base_hash=base_hash, taxonomy=taxonomy())
    device.add_prompt("a cat on a sofa")
    third = simulate(resumed(config, 1))
    assert third.earlier_generations == (first,)
    assert len(generation_of(third).groups) == 1
    assert read_record(config.output) == third


def test_a_rank_beyond_every_layer_is_refused_before_it_fills_the_memory(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match="rank 100000"):
        simulate(make_run(adapter={"rank": 100_000}, **NO_PROMPTS))
