"""The records of a study: one JSON file per run, written completely or not at all."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fedaigc.errors import UserError
from fedaigc.federation.output.recorder import versions
from fedaigc.storage.atomic_file import write_json
from fedaigc.study.design.runs import RunSpec
from fedaigc.study.execute.provenance import commit, machine

FORMAT = 1
# a run that diverged would diverge again: it is done, without a loss
DONE = ("finished", "diverged")


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


def read_records(folder: Path) -> list[dict[str, Any]]:
    """Read all records, sorted by file name.

    Raises:
        UserError: A file is not a record of this version; the message names the file.
    """
    return [read_study_record(path) for path in sorted(folder.glob("*.json"))]


def read_study_record(path: Path) -> dict[str, Any]:
    """Read one record.

    Raises:
        UserError: The file is not a record of this version; the message names it.
    """
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise UserError(f"{path} has record format {record['format']}, this version reads {FORMAT}")
        return {**record, "hash": str(record["hash"]), "run": dict(record["run"])}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a record of a run ({error!r:.100}): remove it") from None


def by_hash(records: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the records by the hash of what decided their result; of several, one that is done."""
    return {record["hash"]: record for record in sorted(records, key=is_done)}


def is_done(record: Mapping[str, Any]) -> bool:
    """Return whether the run need not be repeated."""
    return record["status"] in DONE


def recorded(records: Mapping[str, Mapping[str, Any]], run: RunSpec) -> bool:
    """Return whether `records`, by hash, contain this run as done, so that it is not computed again.

    The hash covers all that decides the result, the rule's code included (`study.design.runs`). Tables still
    show records of other code, with a note.
    """
    return run.hash in records and is_done(records[run.hash])


def scored_mode(record: Mapping[str, Any]) -> str:
    """Return the mode that a run is judged by: "device" if devices have shared-stage models of their own."""
    if record["run"]["kind"] == "personal":
        return "personal"
    return "device" if record.get("traits", {}).get("personal") else "collaborative"


def losses_of(record: Mapping[str, Any], mode: str, *, new: bool = False, at: int = -1) -> dict[int, float]:
    """Return the loss by client in one mode; empty if the mode has no model.

    Args:
        record: The record of the run.
        mode: "collaborative" or "device"; for a "personal" run "personal" or "personal base".
        new: Whether to return the clients that never trained, in place of those that train.
        at: Position of the evaluation, by default the last.
    """
    if not record["evaluations"]:
        return {}
    values = record["evaluations"][at].get(mode) or []
    found = {}
    for client, value in zip(record["clients"], values, strict=False):
        if client["new"] == new and value is not None:
            found[int(client["client"])] = float(value)
    return found


def final_loss(record: Mapping[str, Any]) -> float:
    """Return the mean over the clients that train, in the run's `scored_mode`; infinite if it diverged."""
    if record["status"] != "finished":
        return math.inf
    losses = losses_of(record, scored_mode(record)) or losses_of(record, "device")
    return sum(losses.values()) / len(losses)
