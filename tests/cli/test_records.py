"""`fedaigc records`: what it lists, that CSV holds numbers, and what it says of files that it cannot read."""

import io
import json
import shutil
import warnings
from pathlib import Path

import pandas
import pytest

import fedaigc as fa
from fedaigc.collaboration.link import LinkReport
from fedaigc.collaboration.results import GroupRecord, Outcome, TaskRecord
from fedaigc.device.replies import FinishReport
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import parse_config
from fedaigc.federation.output.records import GenerationRecord, RoundRecord, Rounds, RunRecord
from tests.cli.conftest import RunCommand

STUDY = Path(__file__).parents[2] / "experiments" / "records" / "bytes"
SIGNATURE: dict[str, str | int] = {
    "object": "n07721676",
    "place": "n04386330",
    "policy": "kind",
    "relation": "on",
}
LINK = LinkReport("mcs-8", 12.0, 1000, 1200, 2400, 3, 0, 1, 0.25, 0.5, 0.125)


def write_run(folder: Path, seed: int = 3) -> RunRecord:
    """Write the record of a run of two rounds and two prompts."""
    config = parse_config(
        {"homes": "homes", "output": folder, "seed": seed, "rounds": {"strategy": "fedit", "count": 2}}
    )
    rounds = [
        RoundRecord(
            round=number,
            sampled=(0, 1),
            refused={},
            num_examples={0: 4, 1: 6},
            metrics={0: {"shared_loss": 0.5 / number}, 1: {"shared_loss": 0.25 / number}},
            sent_bytes={"up": {"update": 10}, "down": {"update": 20}},
            seconds=1.5,
            shared_hash="a" * 64,
        )
        for number in (1, 2)
    ]
    tasks = [
        TaskRecord(
            task_id=f"{client:016x}",
            client=client,
            disclosed=SIGNATURE,
            outcome=Outcome.SHARED,
            report=FinishReport(1, 7, 8, 16),
            failure=None,
            handoff_step=3,
            link=LINK,
        )
        for client in (0, 1)
    ]
    group = GroupRecord(
        prompt="a fruit on a table",
        executor="edge",
        num_shared_steps=3,
        noise_seed=0,
        evaluations=19,
        planned_evaluations=19,
        solo_evaluations=22,
        samples=38,
        packet_bytes=300,
        share_failure=None,
        tasks=tuple(tasks),
    )
    generation = GenerationRecord(
        policy="kind",
        plan="p",
        num_steps=11,
        boundary_step=5,
        refused={},
        unreadable={},
        seconds={"own steps": 2.0},
        groups=(group,),
    )
    folder.mkdir(parents=True)
    record = RunRecord(
        status="finished",
        config=config.model_dump(mode="json"),
        versions={},
        rounds=Rounds(tuple(rounds)),
        generation=generation,
    )
    record.write(folder)
    return record


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs, a study of three, and a home, whose files are no records."""
    root = tmp_path / "all"
    write_run(root / "first" / "out")
    write_run(root / "second" / "out", seed=4)
    (root / "study" / "records").mkdir(parents=True)
    for path in sorted(STUDY.glob("*.json"))[:3]:
        shutil.copy(path, root / "study" / "records")
    (root / "first" / "homes" / "00").mkdir(parents=True)
    (root / "first" / "homes" / "00" / "device.json").write_text("{}")
    return root


def test_runs_and_studies_are_listed_and_their_csv_holds_numbers(folder: Path, fedaigc: RunCommand) -> None:
    done = fedaigc("records", "list", str(folder))
    assert done.returncode == 0, done.stderr
    for told in ("fedit", "finished", "0.1875", "base-style-75dca1971a16", "rank 2"):
        assert told in done.stdout
    csv = folder.parent / "all.csv"
    assert fedaigc("records", "list", str(folder), "--output", str(csv)).returncode == 0
    table = pandas.read_csv(csv)
    assert len(table) == 5
    for name in ("rounds", "seed", "clients", "prompts", "loss", "seconds"):
        assert pandas.api.types.is_numeric_dtype(table[name]), name
    runs = table[table["kind"] == "run"]
    assert list(runs["seed"]) == [3, 4]
    assert list(runs["loss"]) == [0.1875, 0.1875]
    assert list(runs["seconds"]) == [5.0, 5.0]
    again = fedaigc("records", "list", str(folder), "--output", str(csv))
    assert again.returncode == 2
    assert "--force" in again.stderr
    printed = fedaigc("records", "list", str(folder), "--csv")
    assert pandas.read_csv(io.StringIO(printed.stdout)).equals(table)
    here = fa.records(folder)
    assert list(here["name"]) == list(table["name"])
    assert str(here["when"].dtype) == "datetime64[ns, UTC]"


def test_damaged_and_foreign_files_are_named_and_the_others_listed(folder: Path, fedaigc: RunCommand) -> None:
    (folder / "second" / "out" / "record.json").write_text('{"status": "finished"')
    (folder / "study" / "records" / "package.json").write_text('{"name": "x"}')
    other = json.loads(next((folder / "study" / "records").glob("fedit*.json")).read_text())
    (folder / "study" / "records" / "later.json").write_text(json.dumps(other | {"format": 99}))
    done = fedaigc("records", "list", str(folder), "--csv")
    assert done.returncode == 1
    assert len(pandas.read_csv(io.StringIO(done.stdout))) == 4
    told = done.stderr.splitlines()
    assert len(told) == 3
    for name in ("second/out/record.json", "records/package.json", "later.json has record format 99"):
        assert any(name in line for line in told), name
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert len(fa.records(folder)) == 4
    assert len([each for each in caught if "is left out" in str(each.message)]) == 3


def test_one_record_is_shown_with_what_differs_and_what_the_link_cost(
    folder: Path, fedaigc: RunCommand
) -> None:
    run = str(folder / "first" / "out")
    done = fedaigc("records", "show", run)
    assert done.returncode == 0, done.stderr
    lines = [line.strip() for line in done.stdout.splitlines()]
    start = lines.index("settings other than the defaults:")
    assert lines[start + 1 : start + 4] == ["rounds.count = 2", 'rounds.strategy = "fedit"', "seed = 3"]
    for told in ("0.1875", "“a fruit on a table”", "shared"):
        assert told in done.stdout
    [link] = [line for line in lines if line.startswith("link")]
    assert "2 packets, 2,000 information bits, 4,800 bits on air, 6 bit errors, 0.25 s" in link
    assert "1 J to send, 0.25 J to receive" in link
    # joules of the profiles: 15 a step and 3 a text on the edge server, 24.6 a step and 35 a picture on a phone
    assert "shared steps, edge server: 3 steps, 48 J" in lines
    assert "own steps, devices: 16 steps, 464 J" in lines
    assert "each alone: 22 steps, 611 J" in lines
    drawn = fedaigc("records", "tree", run)
    assert drawn.returncode == 0, drawn.stderr
    assert (folder / "first" / "out" / "sharing.png").read_bytes().startswith(b"\x89PNG")
    for part, rows in (("rounds", 2), ("tasks", 2), ("updates", 4)):
        table = pandas.read_csv(io.StringIO(fedaigc("records", "show", run, "--csv", "--table", part).stdout))
        assert len(table) == rows
        numbers = {"rounds": "shared_loss", "tasks": "link_bits_on_air", "updates": "num_examples"}[part]
        assert pandas.api.types.is_numeric_dtype(table[numbers])
    study = next((folder / "study" / "records").glob("fedit*.json"))
    shown = fedaigc("records", "show", str(study), "--csv")
    losses = pandas.read_csv(io.StringIO(shown.stdout))["loss"]
    assert losses.iloc[-1] == json.loads(fedaigc_row(study))["loss"]


def fedaigc_row(path: Path) -> str:
    from fedaigc.api.records import read_any

    return json.dumps(read_any(path).row())


def test_what_is_no_record_is_refused(tmp_path: Path, fedaigc: RunCommand) -> None:
    for arguments, told in (
        (("show", str(tmp_path / "none.json")), "no record"),
        (("show", str(tmp_path)), "no record in"),
        (("tree", str(tmp_path)), "no record in"),
        (("list", str(tmp_path / "none")), "no folder"),
        (("list", str(tmp_path), "--output", "x.txt"), ".csv"),
    ):
        done = fedaigc("records", *arguments)
        assert done.returncode == 2
        assert told in done.stderr
    empty = fedaigc("records", "list", str(tmp_path))
    assert (empty.returncode, empty.stdout) == (0, f"no records below {tmp_path}\n")
    with pytest.raises(UserError, match="no folder"):
        fa.records(tmp_path / "none")
    assert len(fa.records(tmp_path)) == 0
