"""A simulation that a signal ends says what it has kept, and how it goes on."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedaigc.federation.output.checkpoint import CHECKPOINT
from fedaigc.federation.output.records import read_record
from tests.small_run import MakeRun
from tests.study.conftest import toml

ROOT = Path(__file__).parents[2]
PATIENCE_S = 600.0


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_signal_ends_a_simulation_with_what_is_kept(make_run: MakeRun, number: signal.Signals) -> None:
    config = make_run(num_clients=1, rounds={"count": 10_000})
    file = config.output.parent / "run.toml"
    file.write_text(toml(config.model_dump(mode="json", exclude_defaults=True)))
    process = subprocess.Popen(
        [sys.executable, "-c", "from fedaigc.cli.main import main; main()", "simulate", str(file)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while not (config.output / CHECKPOINT).exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        process.send_signal(number)
        _, told = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
    assert process.returncode == 128 + number
    record = read_record(config.output)
    assert record.status == "stopped"
    rounds = "1 round is" if len(record.rounds) == 1 else f"{len(record.rounds)} rounds are"
    assert f"stopped: {rounds} whole and kept in {config.output}" in told
    assert f"`fedaigc simulate {file} --resume` goes on from there" in told
    assert "Traceback" not in told
