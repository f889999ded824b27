"""What a run leaves behind: record.json with its configuration and every figure, and the shared state."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedaigc.diffusion.adapters.shared_state_file import read_shared_state, write_shared_state
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.storage.atomic_file import write_json
from fedaigc.storage.private_files import close_files
from fedaigc.strategy.accountant import account

RECORD = "record.json"
SHARED_STATE = "shared-state.safetensors"
_PACKAGES = ("fedaigc", "flwr", "torch", "diffusers", "peft", "transformers")


def versions() -> dict[str, str]:
    """What computed the figures: Python and the packages that they depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


class RunRecord:
    """The record of one run; every change is on disk at once, so that a killed run tells how far it came.

    kept_rounds: that many rounds of the record that is there are kept, of a run that is resumed. What the
    noise of the others has spent stays spent: their means may have been sent.
    """

    def __init__(self, config: FederationConfig, kept_rounds: int = 0) -> None:
        config.output.mkdir(parents=True, exist_ok=True)
        # of an earlier version, and then appended to
        close_files(config.output, "*.jsonl", "*.json", "*.safetensors")
        self._path = config.output / RECORD
        self._values: dict[str, Any] = {}
        rounds: list[Any] = []
        self._repeated: list[Any] = []
        if kept_rounds or (config.resume and self._path.exists()):
            before = read_record(config.output)
            rounds = before["rounds"][:kept_rounds]
            dropped = [done["dp"] for done in before["rounds"][kept_rounds:] if "dp" in done]
            self._repeated = [*before.get("repeated_dp", []), *dropped]
            # a run that is gone on with draws what waits now; what it drew before stays told
            earlier = [*before.get("earlier_generations", []), before.get("generation")]
            drawn = [entry for entry in earlier if entry and entry["groups"]]
            if kept_rounds and drawn:
                self._values["earlier_generations"] = drawn
        if self._repeated:
            self._values["repeated_dp"] = self._repeated
        if dp := account(rounds, self._repeated):
            self._values["dp"] = dp
        self.update(
            status="running",
            config=json.loads(config.model_dump_json()),
            versions=versions(),
            rounds=rounds,
        )

    def update(self, **values: Any) -> None:
        """Set top-level values and write the file."""
        self._values |= values
        write_json(self._path, self._values)

    def add_round(self, values: dict[str, Any]) -> None:
        """Append the record of one round; where it has noise, with what the run has spent by then."""
        values = {name: value for name, value in values.items() if name != "dp" or value is not None}
        rounds = [*self._values["rounds"], values]
        spent = account(rounds, self._repeated)
        if spent is None:
            self.update(rounds=rounds)
            return
        if "dp" in values:
            so_far = {name: spent[name] for name in ("epsilon", "epsilon_replace_one")}
            rounds[-1] = values | {"dp": values["dp"] | so_far}
        self.update(rounds=rounds, dp=spent)


def read_record(output: Path) -> dict[str, Any]:
    """The record in a run's folder; UserError when there is none."""
    try:
        values: dict[str, Any] = json.loads((output / RECORD).read_text(encoding="utf-8"))
        if not isinstance(values["rounds"], list):
            raise TypeError("rounds")
    except OSError:
        raise UserError(f"no record in {output}: the run did not start") from None
    except (ValueError, KeyError, TypeError):
        raise DamagedFile(
            f"{output / RECORD} is no record of a run: remove it, or give a new output"
        ) from None
    return values


def timeless(record: dict[str, Any]) -> dict[str, Any]:
    """A record without its seconds: what two runs of one configuration must agree in."""

    def without(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{key: entry[key] for key in entry if key != "seconds"} for entry in entries]

    found = record | {"rounds": without(record["rounds"])}
    if "generation" in record:
        found["generation"] = without([record["generation"]])[0]
    if "earlier_generations" in record:
        found["earlier_generations"] = without(record["earlier_generations"])
    return found


def refusals(record: Mapping[str, Any]) -> list[str]:
    """Who was left out of what, a line each: of the run, of rounds, of the generation."""
    lines = [f"left out of the run: {entry['reason']}" for entry in record.get("refused", [])]
    lines += [f"not there: the device of client {client}" for client in record.get("absent", [])]
    if fell_back := record.get("fell_back"):
        lines.append(f"went on from round {fell_back['to_round']}: {fell_back['reason']}")
    rounds: dict[str, list[int]] = {}
    for done in record["rounds"]:
        for reason in done["refused"].values():
            rounds.setdefault(reason, []).append(done["round"])
        if done.get("rejected"):
            lines.append(f"round {done['round']} changed nothing: {done['rejected']}")
        if done.get("fell_back_to") is not None:
            lines.append(
                f"round {done['round']}: devices diverged, the state of round {done['fell_back_to']} was "
                "taken up again"
            )
    capped = {
        (client, done["num_examples"][client], weight)
        for done in record["rounds"]
        for client, weight in done.get("capped", {}).items()
    }
    lines += [
        f"client {client} claimed {claimed} pictures and counted as {weight}"
        for client, claimed, weight in sorted(capped)
    ]
    lines += [
        f"left out of round{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}: {reason}"
        for reason, numbers in rounds.items()
    ]
    generation = record.get("generation", {})
    for client, failure in generation.get("refused", {}).items():
        lines.append(f"no prompts were taken from client {client}: {failure}")
    for client, count in generation.get("unreadable", {}).items():
        lines.append(f"{count} prompt(s) of client {client} cannot be read: see `fedaigc device queue`")
    for entry in generation.get("groups", []):
        for task in entry["tasks"]:
            if task["failure"]:
                lines.append(f"a prompt of client {task['client']} was not drawn: {task['failure']}")
    return lines


def save_shared_state(shared: SharedState, output: Path) -> Path:
    """Write the shared state into a run's folder."""
    path = output / SHARED_STATE
    write_shared_state(path, shared)
    return path


def load_shared_state(output: Path) -> SharedState:
    """The shared state of a run's folder; UserError when there is none, DamagedFile when it cannot be read."""
    path = output / SHARED_STATE
    if not path.is_file():
        raise UserError(f"no {SHARED_STATE} in {output}: give the output folder of a run that trained")
    return read_shared_state(path)
