"""The records below a folder: of runs (`record.json`) and of the runs of studies (one file a run)."""

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedaigc.errors import Error, UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import RECORD, RunRecord, read_record
from fedaigc.study.results.records import StudyRecord, read_study_record

if TYPE_CHECKING:
    from pandas import DataFrame

# paths, and what the launcher sets
_NOT_SHOWN = ("homes", "output", "resume", "bindings")
_DEMO = ".fedaigc-demo"
# the columns of a listing, also where no record is there
_COLUMNS = {
    "path": "object",
    "name": "object",
    "kind": "object",
    "strategy": "object",
    "status": "object",
    "rounds": "int64",
    "seed": "float64",
    "clients": "int64",
    "prompts": "int64",
    "loss": "float64",
    "seconds": "float64",
    "when": "datetime64[ns, UTC]",
}


@dataclass(frozen=True)
class FoundRecord:
    """A record that was found below a folder.

    Attributes:
        path: Its file.
        run: The record of a run; None for one of a study.
        study: The record of a run of a study; None for one of a run.
    """

    path: Path
    run: RunRecord | None = None
    study: StudyRecord | None = None

    def row(self) -> dict[str, Any]:
        """Return the line of a listing."""
        return _study_row(self.path, self.study) if self.study is not None else self._run_row()

    def settings(self) -> dict[str, Any]:
        """Return the settings that differ from the defaults, by key with its section."""
        if self.run is not None:
            return _changed(self.run.config, _defaults())
        assert self.study is not None
        return _changed(self.study.run["federation"], _defaults())

    def rounds(self) -> "DataFrame":
        """Return one row a round, with the losses of a run's training or of a study's evaluations."""
        if self.run is not None:
            return self.run.rounds.to_pandas()
        from pandas import DataFrame

        record = self.study
        assert record is not None
        rows = [
            {
                "round": done["round"],
                "clients": done["clients"],
                "refused": len(done["refused"]),
                "bytes_down": done["down"],
                "bytes_up": done["up"],
                "seconds": done["seconds"],
            }
            for done in record.rounds
        ]
        table = DataFrame(rows)
        mode = record.scored_mode
        for at, evaluation in enumerate(record.evaluations):
            losses = record.losses(mode, at=at)
            if losses and "round" in evaluation and not table.empty:
                table.loc[table["round"] == evaluation["round"], "loss"] = sum(losses.values()) / len(losses)
        return table

    def tasks(self) -> "DataFrame":
        """Return one row a prompt that was served. Runs of a study serve none."""
        from pandas import DataFrame

        return self.run.tasks.to_pandas() if self.run is not None else DataFrame()

    def _run_row(self) -> dict[str, Any]:
        record = self.run
        assert record is not None
        config = record.config
        losses = record.rounds[-1].mean_metrics() if record.rounds else {}
        generation = record.generation.seconds.values() if record.generation is not None else ()
        return {
            "path": str(self.path),
            "name": config.get("name", ""),
            "kind": "run",
            "strategy": Path(config["rounds"]["strategy"]).stem,
            "status": record.status,
            "rounds": len(record.rounds),
            "seed": config["seed"],
            "clients": config["num_clients"],
            "prompts": len(record.tasks),
            "loss": losses.get("shared_loss"),
            "seconds": round(sum(done.seconds for done in record.rounds) + sum(generation), 3),
            "when": datetime.fromtimestamp(self.path.stat().st_mtime, UTC).isoformat(timespec="seconds"),
        }


@dataclass
class FoundRecords:
    """The records below a folder, and the files that should be records and cannot be read, with the reason."""

    records: list[FoundRecord] = field(default_factory=list)
    unreadable: dict[Path, str] = field(default_factory=dict)

    def to_pandas(self) -> "DataFrame":
        """Return one row a record; see `records`."""
        from pandas import DataFrame, to_datetime

        table = DataFrame([each.row() for each in self.records], columns=list(_COLUMNS))
        table["when"] = to_datetime(table["when"], utc=True)
        return table.astype(_COLUMNS)


def records(folder: str | Path = "runs") -> "DataFrame":
    """Return all records of runs and studies below a folder, one row each.

    Columns: path, name, kind ("run", or what a study ran: "strategy", "base", "pooled", ...), strategy, status,
    rounds, seed, clients, prompts, loss (of the last round: the mean training loss of the shared stage, or the final
    evaluation of a study), seconds, when. A file that should be a record and cannot be read is left out with a warning.

    Example:
        >>> import fedaigc as fa
        >>> homes = fa.scenes("runs/records/homes", clients=2, images=4, exist_ok=True)
        >>> few = {"local_steps": 1, "personal_steps": 1}
        >>> run = fa.simulate(homes, rounds=1, training=few, progress=False)
        >>> found = fa.records("runs/records")
        >>> list(found["kind"]), list(found["clients"])
        (['run'], [2])

    Args:
        folder: The folder.

    Raises:
        UserError: If there is no such folder.
    """
    found = find_records(Path(folder))
    for path, reason in found.unreadable.items():
        warnings.warn(f"{path} is left out: {reason}", stacklevel=2)
    return found.to_pandas()


def find_records(folder: Path) -> FoundRecords:
    """Read all records below a folder: each `record.json`, and the JSON files of folders that hold a study's records.

    Raises:
        UserError: If there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"no folder {folder}: give one that holds the output of runs or studies")
    found = FoundRecords()
    for place, names in _folders(folder):
        if RECORD in names and not (place / _DEMO).exists():
            _add(found, place / RECORD)
        others = [place / name for name in names if name.endswith(".json") and name != RECORD]
        if place.name == "records" or any(map(_of_study, others)):
            for path in others:
                _add(found, path)
    return found


def read_any(path: Path) -> FoundRecord:
    """Read one record: the folder of a run, its `record.json`, or a file of a study's records.

    Raises:
        UserError: If it is none; the message names it.
    """
    if path.is_dir() or path.name == RECORD:
        folder = path if path.is_dir() else path.parent
        return FoundRecord(folder / RECORD, run=read_record(folder))
    if not path.is_file():
        raise UserError(f"no record {path}: `fedaigc records list FOLDER` lists those below a folder")
    return FoundRecord(path, study=read_study_record(path))


def changed_settings(config: FederationConfig) -> dict[str, Any]:
    """Return the settings of a run that differ from the defaults, by key with its section."""
    return _changed(config.model_dump(mode="json"), _defaults())


def _defaults() -> dict[str, Any]:
    return FederationConfig(homes=Path("homes"), output=Path("out")).model_dump(mode="json")


def _changed(given: Mapping[str, Any], default: Any, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in given.items():
        usual = default.get(key) if isinstance(default, Mapping) else None
        if not prefix and key in _NOT_SHOWN:
            continue
        if isinstance(value, Mapping):
            found |= _changed(value, usual, f"{prefix}{key}.")
        elif value != usual:
            found[f"{prefix}{key}"] = value
    return found


def _folders(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """Yield the folders that can hold records, with the names of their files: neither homes nor files in the works."""
    for place, inner, names in os.walk(folder):
        if "device.json" in names or (Path(place).name == "work" and "lock" in names):
            inner.clear()
            continue
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        yield Path(place), sorted(names)


def _of_study(path: Path) -> bool:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and {"format", "hash", "run", "status"} <= values.keys()


def _add(found: FoundRecords, path: Path) -> None:
    try:
        record = read_any(path)
        record.row()
    except (Error, OSError) as error:
        # whoever lists a folder may keep other files there
        found.unreadable[path] = str(error).removesuffix(": remove it")
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        found.unreadable[path] = f"{path} is not a record of a run ({error!r:.100})"
    else:
        found.records.append(record)


def _study_row(path: Path, record: StudyRecord) -> dict[str, Any]:
    run = record.run
    federation = run["federation"]
    finished = record.status == "finished" and record.evaluations
    return {
        "path": str(path),
        "name": record.id,
        "kind": run["kind"],
        "strategy": run["label"],
        "status": record.status,
        "rounds": len(record.rounds),
        "seed": run["seed"],
        "clients": federation["num_clients"],
        "prompts": 0,
        "loss": record.final_loss if finished else None,
        "seconds": record.seconds,
        "when": record.written,
    }
