"""What a device keeps of federated runs, by (run, round), and the shared states that it received.

A round that is repeated, because the server or the device died in it, starts from the version before it: no
image is trained on twice. Rounds only follow each other: each is later than a kept version, from which it
starts, or no version ever existed before it. Kept versions of later rounds are dropped when an earlier round
is repeated. Personal adapters never leave the device through this module's callers; only the owner exports
them.
"""

import os
import re
import shutil
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fedaigc.bounds import MAX_ROUND
from fedaigc.device.home.home import OWNER_FILE, Home
from fedaigc.device.replies import DeviceError, Failure
from fedaigc.diffusion.adapters.shared_state_file import PART, read_shared_state, write_shared_state
from fedaigc.diffusion.adapters.stages import Adapter, SharedState
from fedaigc.rng import derived_seed
from fedaigc.storage.tensor_file import read_header, read_parts, write_parts

# a repeated round needs the version before it, and one more if a server falls back by two rounds
KEPT_ROUNDS = 3
KEPT_SHARED_STATES = 2
# other runs that are kept, each with its last rounds; of one name fewer, since they replace each other
KEPT_RUNS = 8
KEPT_RUNS_OF_A_NAME = 2
# key in the header of a round: the version that it started from, 0 for none
_FOLLOWS = "follows"
_VERSION = re.compile(r"[0-9a-f]{1,64}")
# a name, and the identity of a run that has one
_RUN = re.compile(r"[A-Za-z0-9_-]{1,64}(\.[0-9a-f]{16})?")


@dataclass(frozen=True)
class _Current:
    run: str
    round: int


class AdapterVersions:
    """The results of federated rounds in one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._shared = home.adapters / "shared"
        self._current = home.adapters / "current.json"
        self._drawing: tuple[str, bool] | None = None

    def save_round(
        self, run: str, round: int, personal: Adapter | None, memory: Mapping[str, Tensor] | None = None
    ) -> None:
        """Store what (run, round) ended with: the personal adapter and the memory of the strategy.

        A personal adapter becomes the current one. Later rounds of the run are dropped, since this one
        replaces them.

        Args:
            run: Name of the run, with its identity if it has one (`FederationConfig.run_key`).
            round: Number of the round.
            personal: Personal adapter; None if the round has none.
            memory: Tensors that the strategy keeps on the device.

        Raises:
            DeviceError: As `check_follows`; then nothing is written.
        """
        with self._home.changing("adapters"):
            self._save_round(run, round, personal, memory)

    def _save_round(
        self, run: str, round: int, personal: Adapter | None, memory: Mapping[str, Tensor] | None
    ) -> None:
        self.check_follows(run, round)
        earlier = [number for number, _ in self._rounds(run) if number < round]
        header: dict[str, Any] = {_FOLLOWS: earlier[-1] if earlier else 0}
        if personal is not None:
            header |= {"rank": personal.rank, "alpha": personal.alpha}
        factors = personal.tensors() if personal is not None else {}
        path = self._home.folder(self._run_folder(run)) / _file_of(round)
        write_parts(path, header, {"personal": factors, "memory": memory or {}}, OWNER_FILE)
        if personal is not None:
            self._home.write_json(self._current, asdict(_Current(run, round)))
        held = self._rounds(run)
        kept = [path for number, path in held if number <= round][-KEPT_ROUNDS:]
        for _, old in held:
            if old not in kept and old != self._current_file():
                old.unlink()
        self._drop_old_runs(run)

    def save_imported(self, personal: Adapter) -> None:
        """Store a personal adapter that the owner imported; it becomes the current one.

        It does not belong to a federated run: no round starts from it. A run that trains a personal adapter
        makes that one the current one.
        """
        run = self._imported
        with self._home.changing("adapters"):
            self._save_round(run, self.last_round(run) + 1, personal, None)

    @property
    def _imported(self) -> str:
        """The run of imported adapters, whose name no server can guess: none could find out whether there is one."""
        return f"imported-{derived_seed(self._home.seed, 'imported adapters'):016x}"

    def draw_as(self, run: str, *, alone: bool) -> None:
        """Have `drawing_personal` return the personal adapter of a run that trains personal adapters.

        Args:
            run: As in `save_round`.
            alone: Whether to draw without a personal adapter before the run has trained one here, rather than
                with the one that was saved last.
        """
        self._drawing = run, alone

    def drawing_personal(self) -> Adapter | None:
        """Return the personal adapter to draw with: an imported one, that of `draw_as`, or the current one."""
        current = self._home.read(self._current, _Current).run if self._current.exists() else None
        if self._drawing is None or current == self._imported:
            return self.current_personal()
        run, alone = self._drawing
        if alone or self.last_round(run):
            return self.latest(run)[0]
        return self.current_personal()

    def base_models(self) -> set[str]:
        """Return the base models of the shared states that are kept; none before the first one arrived."""
        headers = [read_header(path) for path in self._shared.glob("*.safetensors")]
        return {str(header[PART]["base_hash"]) for header in headers if header is not None and PART in header}

    @property
    def holds_rounds(self) -> bool:
        """Whether the home holds what a round of any run ended with; so it does after every round."""
        return next((self._home.adapters / "rounds").glob("*/*.safetensors"), None) is not None

    def check_follows(self, run: str, round: int) -> None:
        """Check that a round follows what is kept of its run; nothing is written.

        Raises:
            DeviceError: If the round lies outside 1 to `MAX_ROUND`, or the version from which it would start
                was dropped.
        """
        if not 1 <= round <= MAX_ROUND:
            raise DeviceError(Failure.TRAINING_REFUSED, f"round {round!r:.80}: expected 1 to {MAX_ROUND}")
        held = self._rounds(run)
        if not held or round > held[0][0]:
            return
        first, path = held[0]
        # homes of earlier versions have no such entry
        unknown = 0 if first == 1 or len(held) < KEPT_ROUNDS else first - 1
        if read_parts(path)[0].get(_FOLLOWS, unknown):
            raise DeviceError(
                Failure.TRAINING_REFUSED,
                f"round {round} of run {run} would start from a version that is no longer kept; the rounds "
                f"kept are {', '.join(str(number) for number, _ in held)}: give a run from the start "
                "another name",
            )

    def before(self, run: str, round: int) -> tuple[Adapter | None, dict[str, Tensor]]:
        """Return what a round starts from: personal adapter and memory of the latest round before it.

        In the first round in which this device takes part, the adapter is None and the memory is empty.
        """
        earlier = [path for number, path in self._rounds(run) if number < round]
        return self._load_round(earlier[-1]) if earlier else (None, {})

    def latest(self, run: str) -> tuple[Adapter | None, dict[str, Tensor]]:
        """Return what the latest round of `run` ended with; None and an empty memory before its first."""
        held = self._rounds(run)
        return self._load_round(held[-1][1]) if held else (None, {})

    def last_round(self, run: str, upto: int = MAX_ROUND) -> int:
        """Return the number of the latest round of `run`, up to `upto`; 0 before its first."""
        held = [number for number, _ in self._rounds(run) if number <= upto]
        return held[-1] if held else 0

    def current_personal(self) -> Adapter | None:
        """Return the personal adapter that was saved last; None before the first training."""
        with self._home.changing("adapters"):
            path = self._current_file()
            return self._load_round(path)[0] if path is not None else None

    def save_shared(self, shared: SharedState) -> str:
        """Store a shared state under its version hash, drop the oldest ones, and return the hash."""
        version = shared.hash()
        with self._home.changing("adapters"):
            path = self._home.folder(self._shared) / f"{version}.safetensors"
            if path.exists():
                os.utime(path)  # the latest again
            else:
                write_shared_state(path, shared, OWNER_FILE)
            held = sorted((entry for entry in self._shared.glob("*.safetensors") if entry != path), key=_age)
            for old in held[: max(0, len(held) + 1 - KEPT_SHARED_STATES)]:
                old.unlink()
        return version

    def shared(self, version: str) -> SharedState:
        """Return the shared state with this hash.

        Raises:
            DeviceError: If it was never received, was dropped, or has another hash on disk.
        """
        path = self._shared / f"{version}.safetensors"
        if not _VERSION.fullmatch(version) or not path.is_file():
            raise DeviceError(Failure.SHARED_STATE_MISSING, f"no shared state {version} in this home")
        found = read_shared_state(path)
        if found.hash() != version:
            raise DeviceError(Failure.STORAGE, f"shared state {version} on disk hashes to {found.hash()}")
        return found

    def _drop_old_runs(self, run: str) -> None:
        """Keep the latest `KEPT_RUNS` other runs, fewer of one name, and the run of the current personal adapter."""
        current = self._home.read(self._current, _Current).run if self._current.exists() else run
        others = [
            path for path in (self._home.adapters / "rounds").iterdir() if path.name not in (run, current)
        ]
        kept: Counter[str] = Counter()
        for other in sorted(others, key=_age, reverse=True):
            name = other.name.partition(".")[0]
            if kept[name] < KEPT_RUNS_OF_A_NAME and kept.total() < KEPT_RUNS:
                kept[name] += 1
            else:
                shutil.rmtree(other)

    def _current_file(self) -> Path | None:
        if not self._current.exists():
            return None
        current = self._home.read(self._current, _Current)
        return self._run_folder(current.run) / _file_of(current.round)

    def _run_folder(self, run: str) -> Path:
        # the name comes from another machine and must not be able to leave the home
        if not _RUN.fullmatch(run):
            raise DeviceError(Failure.ORDER_REFUSED, f"{run!r} is not a valid run name")
        return self._home.adapters / "rounds" / run

    def _rounds(self, run: str) -> list[tuple[int, Path]]:
        return sorted((int(path.stem), path) for path in self._run_folder(run).glob("[0-9]*.safetensors"))

    def _load_round(self, path: Path) -> tuple[Adapter | None, dict[str, Tensor]]:
        header, parts = read_parts(path)
        factors = parts.get("personal", {})
        layers = sorted({name.rpartition(".")[0] for name in factors})
        lora = {layer: (factors[f"{layer}.lora_A"], factors[f"{layer}.lora_B"]) for layer in layers}
        personal = Adapter(lora, header["rank"], header["alpha"]) if "rank" in header else None
        return personal, parts.get("memory", {})


def _file_of(round: int) -> str:
    return f"{round:06d}.safetensors"


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
