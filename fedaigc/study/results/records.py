"""The records of a study: one JSON file per run, written completely or not at all.

Only this module writes and reads the files, and knows their keys.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedaigc.errors import UserError
from fedaigc.federation.output.recorder import versions
from fedaigc.storage.atomic_file import read_json, write_json
from fedaigc.study.design.runs import RunSpec
from fedaigc.study.execute.provenance import commit, machine

FORMAT = 1
# a run that diverged would diverge again: it is done, without a loss
DONE = ("finished", "diverged")


@dataclass(frozen=True)
class StudyRecord:
    """The record of one run of a study.

    Attributes:
        id: Name of the run, and of its file.
        hash: Hash of all that decided the result, see `study.design.runs`.
        status: "finished", "diverged" (training ended with values that are not finite) or "failed".
        written: When it was written, in ISO format.
        commit: Commit of the code; None outside of a checkout.
        dirty: Whether the code had changed since; None outside of a checkout.
        versions: Version of each package.
        machine: What determines times and the last bits of a result.
        run: The values of the `RunSpec`, without local paths.
        clients: All clients: number ("client"), "new", "images", "composition", and of those that train "steps" and
            "rank".
        evaluations: In order of the rounds: "round", and by mode the loss of each client, in the order of `clients`.
        base: Fingerprint of the base model; None if the run failed before.
        traits: Traits of the rule; empty without one.
        shared_hash: Version of the last shared state; None without one.
        rounds: What each round took and sent.
        seconds: Seconds of all rounds; None without rounds.
        bytes: Bytes "up" and "down"; None of a baseline.
        dp: Epsilon and delta that were spent; None without noise.
        measures: Measures of the kept pictures, by mode and name.
        error: Why it failed or diverged.
        error_kind: Class of the error; "error" for a mistake of the user.
    """

    status: str
    clients: Sequence[Mapping[str, Any]]
    evaluations: Sequence[Mapping[str, Any]]
    id: str
    hash: str
    written: str
    commit: str | None
    dirty: bool | None
    versions: Mapping[str, Any]
    machine: Mapping[str, Any]
    run: Mapping[str, Any]
    base: str | None = None
    traits: Mapping[str, Any] = field(default_factory=dict)
    shared_hash: str | None = None
    rounds: Sequence[Mapping[str, Any]] = ()
    seconds: float | None = None
    bytes: Mapping[str, int] | None = None
    dp: Mapping[str, Any] | None = None
    measures: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    error: str | None = None
    error_kind: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "StudyRecord":
        """Return the record of the values of a file. What a later version added to them is left out.

        Raises:
            KeyError: If a value is missing that every record has.
        """
        return cls(
            **{
                each.name: values[each.name]
                for each in fields(cls)
                if each.name in values or (each.default is MISSING and each.default_factory is MISSING)
            }
        )

    @property
    def is_done(self) -> bool:
        """Whether the run need not be repeated."""
        return self.status in DONE

    @property
    def scored_mode(self) -> str:
        """The mode that the run is judged by: "device" if devices have shared-stage models of their own."""
        if self.run["kind"] == "personal":
            return "personal"
        return "device" if self.traits.get("personal") else "collaborative"

    @property
    def final_loss(self) -> float:
        """The mean over the clients that train, in the `scored_mode`; infinite if training diverged."""
        if self.status != "finished":
            return math.inf
        losses = self.losses(self.scored_mode) or self.losses("device")
        return sum(losses.values()) / len(losses)

    def losses(self, mode: str, *, new: bool = False, at: int = -1) -> dict[int, float]:
        """Return the loss by client in one mode; empty if the mode has no model.

        Args:
            mode: "collaborative" or "device"; for a "personal" run "personal" or "personal base".
            new: Whether to return the clients that never trained, in place of those that train.
            at: Position of the evaluation, by default the last.
        """
        if not self.evaluations:
            return {}
        values = self.evaluations[at].get(mode) or []
        found = {}
        for client, value in zip(self.clients, values, strict=False):
            if client["new"] == new and value is not None:
                found[int(client["client"])] = float(value)
        return found


def write_record(folder: Path, run: RunSpec, status: str, **values: Any) -> None:
    """Write the record of a run, with the provenance of its result.

    Args:
        folder: The folder of the records.
        run: The run.
        status: "finished", "diverged" (training ended with values that are not finite) or "failed".
        **values: Further entries, such as the evaluations.
    """
    record = {
        "format": FORMAT,
        "id": run.id,
        "hash": run.hash,
        "status": status,
        "written": datetime.now(UTC).isoformat(timespec="seconds"),
        **commit(),
        "versions": versions(),
        "machine": machine(),
        "run": run.model_dump(mode="json", exclude={"keep_work", "keep_pictures"}),
        **values,
    }
    name = record["run"]["federation"]["model"]
    if Path(name["name"]).is_dir():
        name["name"] = Path(name["name"]).name  # records must not reveal local paths
    own = record["run"]["data"]["own"]
    if own is not None:
        own["source"] = Path(own["source"]).name
    write_json(folder / f"{run.id}.json", record)


def add_measures(folder: Path, record: StudyRecord, found: Mapping[str, Mapping[str, Any]]) -> None:
    """Put measures of pictures into the file of a record, in place of those that it has."""
    path = folder / f"{record.id}.json"
    write_json(path, {**(read_json(path) or {}), "measures": found})


def read_records(folder: Path) -> list[StudyRecord]:
    """Read all records, sorted by file name.

    Raises:
        UserError: A file is not a record of this version; the message names the file.
    """
    return [read_study_record(path) for path in sorted(folder.glob("*.json"))]


def read_study_record(path: Path) -> StudyRecord:
    """Read one record.

    Raises:
        UserError: The file is not a record of this version; the message names it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise UserError(f"{path} has record format {record['format']}, this version reads {FORMAT}")
        return StudyRecord.of({**record, "hash": str(record["hash"]), "run": dict(record["run"])})
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a record of a run ({error!r:.100}): remove it") from None


def by_hash(records: Iterable[StudyRecord]) -> dict[str, StudyRecord]:
    """Return the records by the hash of what decided their result; of several, one that is done."""
    return {record.hash: record for record in sorted(records, key=lambda record: record.is_done)}


def recorded(records: Mapping[str, StudyRecord], run: RunSpec) -> bool:
    """Return whether `records`, by hash, contain this run as done, so that it is not computed again.

    The hash covers all that decides the result, the rule's code included (`study.design.runs`). Tables still
    show records of other code, with a note.
    """
    return run.hash in records and records[run.hash].is_done
