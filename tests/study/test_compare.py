"""`fedaigc compare` as a user runs it: real processes, whole studies, and a kill in the middle of one."""

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

import fedaigc as fa
from fedaigc.storage.tensor_file import read_tensors
from fedaigc.study.design.config import read_study
from fedaigc.study.execute import scheduler
from fedaigc.study.execute.worker import main
from tests.cli.conftest import RunCommand
from tests.cli.conftest import fedaigc as fedaigc
from tests.study.conftest import WriteStudy

COMMAND = [sys.executable, "-m", "fedaigc.cli.main", "compare"]
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}


def compare(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, str(path), *options],
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
        env=ENVIRONMENT,
    )


def records_of(path: Path) -> dict[str, dict[str, Any]]:
    found = sorted(read_study(path).records_folder.glob("*.json"))
    return {file.stem: json.loads(file.read_text()) for file in found}


def lasting(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record without times and commits, in which a repeated run must agree."""
    left = {
        key: value for key, value in record.items() if key not in ("written", "seconds", "commit", "dirty")
    }
    rounds = record.get("rounds", [])
    left["rounds"] = [{key: done[key] for key in done if key != "seconds"} for done in rounds]
    return left


class Ended:
    """Stands for a process that has ended."""

    def __init__(self, status: int) -> None:
        self.returncode = status

    def poll(self) -> int:
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        return self.returncode

    def terminate(self) -> None: ...


def test_a_study_runs_tells_its_time_first_and_is_skipped_when_it_is_recorded(
    write_study: WriteStudy, fedaigc: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The measurement is a process of its own; the runs, whose processes the slow tests start, are not."""
    monkeypatch.setattr(scheduler, "start_worker", lambda job, log: Ended(main([str(job), "--unwatched"])))
    path = write_study()
    done = fedaigc("compare", str(path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.index("estimated time") < done.stdout.index("runs done in")
    assert not list(path.parent.rglob("measure*"))
    records = records_of(path)
    # base, pooled, local only and fedit
    assert len(records) == 4
    for record in records.values():
        assert record["status"] == "finished"
        assert record["versions"]["torch"]
        assert record["machine"]["cores"]
        assert "commit" in record
    # nothing of where it was made, since records are committed
    assert str(path.parent) not in json.dumps(records)

    output = read_study(path).output
    report = (output / "report.md").read_text()
    for told in ("Gate:", "base", "pooled", "local only", "fedit", "p (Holm)", "MB up", "The clients"):
        assert told in report
    tables = sorted(file.name for file in (output / "tables").iterdir())
    for name in ("gate", "collaborative", "device", "clients"):
        assert {f"iid-{name}.{suffix}" for suffix in ("md", "csv", "tex")} <= set(tables)
    assert list((output / "plots").glob("*.png"))

    again = fedaigc("compare", str(path))
    assert again.returncode == 0
    assert f"all {len(records)} runs are recorded" in again.stdout
    assert records_of(path) == records
    # the same study from Python is recorded as well
    settings = tomllib.loads(path.read_text())
    rounds = settings.pop("rounds")
    for key in ("name", "output", "strategies", "reference"):
        settings.pop(key, None)
    assert rounds.keys() == {"count"}
    study = fa.compare(["fedit"], output=output, rounds=rounds["count"], **settings)
    assert records_of(path) == records
    assert set(study.table()["row"]) == {"base", "pooled", "local only", "fedit"}
    with pytest.raises(fa.Error, match="no table other"):
        study.table(partition="other")


@pytest.mark.slow
def test_a_study_with_galleries_and_two_workers_compares_pictures(write_study: WriteStudy) -> None:
    path = write_study(workers=2, evaluation={"gallery": 6, "gallery_steps": 2})
    done = compare(path)
    assert done.returncode == 0, done.stdout + done.stderr
    output = read_study(path).output
    report = (output / "report.md").read_text()
    drawn = (output / "tables" / "iid-device-galleries.md").read_text().splitlines()[2:]
    assert [line.split("|")[1].strip() for line in drawn] == [
        "real pictures",
        "base",
        "pooled",
        "local only",
        "fedit",
    ]
    assert "Galleries: 6 pictures" in report
    assert "too few" in report


@pytest.mark.slow
def test_a_study_that_was_killed_goes_on_to_the_same_result(write_study: WriteStudy) -> None:
    """After SIGKILL in a round, finished runs remain, the interrupted one resumes, and all results are bit-equal.

    Ditto keeps a model on each device, and the personal stage is trained in each run, so that the memory of the devices
    is included.
    """
    changes: dict[str, Any] = {
        "rounds": {"count": 12},
        "personal": "each run",
        "strategies": [{"name": "fedit"}, {"name": "ditto"}],
        "evaluation": {"every": 6},
    }
    straight, cut = write_study("straight", **changes), write_study("cut", **changes)
    assert compare(straight).returncode == 0

    process = subprocess.Popen(
        [*COMMAND, str(cut)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=ENVIRONMENT
    )
    runs = read_study(cut).work / "runs"
    deadline = time.monotonic() + 240
    while not (found := list(runs.glob("ditto-*/federation/checkpoint.safetensors"))):
        assert process.poll() is None, "the study ended before it was killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = records_of(cut)
    assert any(name.startswith("fedit") for name in before)
    assert not any(name.startswith("ditto") for name in before)
    # the worker ends with the command, and leaves the checkpoint of a whole round
    time.sleep(2)
    assert 1 <= int(read_tensors(found[0])[0]["round"]) < 12

    done = compare(cut)
    assert done.returncode == 0, done.stdout + done.stderr
    expected, after = records_of(straight), records_of(cut)
    assert after.keys() == expected.keys()
    assert all(after[name] == record for name, record in before.items())
    for name, record in expected.items():
        assert lasting(after[name]) == lasting(record)

    def homes(path: Path) -> dict[str, bytes]:
        root = read_study(path).work / "runs"
        files = root.glob("*/homes/*/adapters/rounds/**/*.safetensors")
        return {str(file.relative_to(root)): file.read_bytes() for file in files}

    kept = homes(straight)
    assert any("ditto" in name for name in kept)
    assert homes(cut) == kept


@pytest.mark.slow
def test_the_small_version_of_the_published_table(tmp_path: Path) -> None:
    """experiments/configs/strategies_small.toml in another folder, which takes about 7 minutes on two cores."""
    source = Path(__file__).parents[2] / "experiments" / "configs" / "strategies_small.toml"
    path = tmp_path / "configs" / "here" / source.name
    path.parent.mkdir(parents=True)
    path.write_text(source.read_text())
    done = compare(path)
    assert done.returncode == 0, done.stdout + done.stderr
    study = read_study(path)
    assert study.output.resolve().is_relative_to(tmp_path)
    report = (study.output / "report.md").read_text()
    for row in ("fedit", "flexlora", "fednova", "ditto", "pooled", "local only", "base"):
        assert row in report
    records = records_of(path).values()
    assert all(record["status"] == "finished" for record in records)
    # every row was tuned, with as many trials each
    trials = [record["run"]["label"] for record in records if record["run"]["purpose"] == "trial"]
    assert {label: trials.count(label) for label in trials} == dict.fromkeys(set(trials), 2)
    assert len(set(trials)) == 6


@pytest.mark.slow
def test_recorded_runs_are_computed_again_and_compared(write_study: WriteStudy) -> None:
    """The same run has the same values, and a modified record is distinguished from it."""
    path = write_study(baselines={"seeds": [0]})
    assert compare(path).returncode == 0
    study = read_study(path)
    total = len(list(study.records_folder.glob("*.json")))
    told = compare(path, "--recompute", str(total))
    assert told.returncode == 0, told.stdout
    assert f"{total} of {total} runs reproduce their records bit for bit" in told.stdout
    record = next(study.records_folder.glob("fedit-*.json"))
    values = json.loads(record.read_text())
    values["shared_hash"] = "0" * 64
    values["versions"]["torch"] = "1.0"
    record.write_text(json.dumps(values))
    told = compare(path, "--recompute", str(total))
    assert told.returncode == 1
    assert f"{total - 1} of {total} runs" in told.stdout
    assert "shared_hash differs" in told.stdout
    assert "versions: torch was 1.0" in told.stdout
    too_many = compare(path, "--recompute", str(total + 1))
    assert too_many.returncode == 2
    assert f"{total} runs are recorded" in too_many.stderr + too_many.stdout
