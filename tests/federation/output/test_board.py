"""Scalars for TensorBoard: one per round and figure, also if a run resumes after an interruption."""

import json
import subprocess
import sys

import pytest

from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.board import FOLDER
from fedaigc.federation.output.records import read_record
from fedaigc.federation.runtime.launcher import run_in_process
from tests.small_run import MakeRun

ROUNDS = {"count": 2, "tensorboard": True}


def scalars(config: FederationConfig) -> dict[str, dict[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(config.output / FOLDER))
    events.Reload()
    return {
        tag: {event.step: event.value for event in events.Scalars(tag)} for tag in events.Tags()["scalars"]
    }


def test_every_round_is_written_once_also_after_a_resume(make_run: MakeRun) -> None:
    config = make_run(rounds=ROUNDS, generation={"enabled": False}, resume=True)
    run_in_process(config)
    longer = config.model_copy(update={"rounds": config.rounds.model_copy(update={"count": 3})})
    run_in_process(longer)
    written = scalars(config)
    rounds = read_record(config.output).rounds
    assert list(written["training/shared_loss"]) == [1, 2, 3]
    for done in rounds:
        losses = [metrics["shared_loss"] for metrics in done.metrics.values()]
        assert written["training/shared_loss"][done.round] == pytest.approx(sum(losses) / len(losses))
        assert written["bytes/up"][done.round] == sum(done.sent_bytes["up"].values())
        assert written["round/clients"][done.round] == 3


def test_nothing_is_written_unless_asked_and_the_weights_are_the_same(make_run: MakeRun) -> None:
    with_board = make_run("with", rounds=ROUNDS, generation={"enabled": False})
    without = make_run("without", rounds={"count": 2}, generation={"enabled": False})
    run_in_process(with_board)
    run_in_process(without)
    assert not (without.output / FOLDER).exists()
    assert read_record(with_board.output).shared_hash == read_record(without.output).shared_hash


def test_without_tensorboard_the_command_to_install_it_is_told(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    config = make_run(rounds=ROUNDS, generation={"enabled": False})
    with pytest.raises(UserError, match=r'pip install "fedaigc\[tensorboard\]"'):
        run_in_process(config)
    assert len(read_record(config.output).rounds) == 0


@pytest.mark.slow
def test_a_killed_run_goes_on_through_the_command_line(make_run: MakeRun) -> None:
    """`simulate --resume` after one round has the same result as two rounds at once. Without it, the run restarts."""
    whole = make_run("whole", generation={"enabled": False})
    run_in_process(whole)
    config = make_run("cut", generation={"enabled": False})
    run_in_process(config.model_copy(update={"rounds": config.rounds.model_copy(update={"count": 1})}))
    (first,) = read_record(config.output).rounds
    model, homes, output = (json.dumps(str(p)) for p in (config.model.name, config.homes, config.output))
    path = config.output.parent / "run.toml"
    path.write_text(f"""
        homes = {homes}
        output = {output}
        num_clients = 3
        model = {{ name = {model}, height = 32, width = 32 }}
        adapter.rank = 2
        rounds.count = 2
        training = {{ local_steps = 2, personal_steps = 1, batch_size = 2, learning_rate = 1e-2 }}
        generation.enabled = false
    """)
    subprocess.run(
        [sys.executable, "-m", "fedaigc.cli.main", "simulate", str(path), "--resume"], check=True, timeout=120
    )
    record = read_record(config.output)
    assert [done.round for done in record.rounds] == [1, 2]
    assert record.rounds[0] == first, "seconds included: it was not run again"
    assert record.shared_hash == read_record(whole.output).shared_hash
