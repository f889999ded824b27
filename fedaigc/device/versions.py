"""The adapters of a device, versioned by (run, round), and the shared states that it was sent.

A round that is repeated, because the server or the device died in it, starts from the version before it: no
picture is trained on twice. Personal adapters never leave the device through this module's callers; they are
exported by the owner only.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from fedaigc.device.home import Home
from fedaigc.device.report import DeviceError, Failure
from fedaigc.diffusion.adapters import Adapter, SharedState

# a repeated round needs the version before it; one more for a server that falls back by two
KEPT_ROUNDS = 3
KEPT_SHARED_STATES = 2
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class AdapterVersions:
    """What the rounds of federated runs left in one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._shared = home.adapters / "shared"
        self._current = home.adapters / "current.json"

    def save_personal(self, run: str, round: int, adapter: Adapter) -> None:
        """Keep the personal adapter that (run, round) ended with, and make it the current one."""
        folder = self._run_folder(run) / f"{round:06d}"
        header = {"rank": adapter.rank, "alpha": adapter.alpha}
        self._save(folder, header, adapter.tensors())
        self._home.write_json(self._current, {"run": run, "round": round})
        for _, old in self._rounds(run)[:-KEPT_ROUNDS]:
            shutil.rmtree(old)

    def personal_before(self, run: str, round: int) -> Adapter | None:
        """The personal adapter that `round` of `run` starts from: that of the latest round before it.

        None in the first round that this device takes part in.
        """
        earlier = [folder for number, folder in self._rounds(run) if number < round]
        return self._load_personal(earlier[-1]) if earlier else None

    def current_personal(self) -> Adapter | None:
        """The personal adapter saved last; None before the first training."""
        if not self._current.exists():
            return None
        current = self._home.read_json(self._current)
        return self._load_personal(self._run_folder(current["run"]) / f"{current['round']:06d}")

    def save_shared(self, shared: SharedState) -> str:
        """Keep a shared state under its version hash, drop the oldest ones, and return the hash."""
        version = shared.hash()
        folder = self._shared / version
        if not folder.exists():
            self._save(folder, shared.header(), shared.tensors())
        held = sorted((entry for entry in self._shared.iterdir() if entry != folder), key=_age)
        for old in held[: max(0, len(held) + 1 - KEPT_SHARED_STATES)]:
            shutil.rmtree(old)
        return version

    def shared(self, version: str) -> SharedState:
        """The shared state with this hash; DeviceError when it was never sent or was dropped."""
        folder = self._shared / version
        if not _NAME.fullmatch(version) or not folder.is_dir():
            raise DeviceError(Failure.SHARED_STATE_MISSING, f"no shared state {version} in this home")
        header, tensors = _load(folder)
        found = SharedState.from_tensors(header, tensors)
        if found.hash() != version:
            raise DeviceError(Failure.STORAGE, f"shared state {version} on disk hashes to {found.hash()}")
        return found

    def _run_folder(self, run: str) -> Path:
        # the name comes from outside: it must not be able to leave the home
        if not _NAME.fullmatch(run):
            raise DeviceError(Failure.PLAN_REFUSED, f"{run!r} is no name of a run")
        return self._home.adapters / "rounds" / run

    def _rounds(self, run: str) -> list[tuple[int, Path]]:
        return sorted((int(path.name), path) for path in self._run_folder(run).glob("[0-9]*"))

    def _load_personal(self, folder: Path) -> Adapter:
        header, tensors = _load(folder)
        layers = sorted({name.rpartition(".")[0] for name in tensors})
        lora = {layer: (tensors[f"{layer}.lora_A"], tensors[f"{layer}.lora_B"]) for layer in layers}
        return Adapter(lora, **header)

    def _save(self, folder: Path, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
        def fill(temporary: Path) -> None:
            contiguous = {name: tensor.contiguous() for name, tensor in tensors.items()}
            self._home.write(temporary / "tensors.safetensors", save(contiguous))
            self._home.write_json(temporary / "header.json", header)

        self._home.write_folder(folder, fill)


def _load(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    header = json.loads((folder / "header.json").read_text())
    return header, load_file(folder / "tensors.safetensors")


def _age(path: Path) -> int:
    return path.stat().st_mtime_ns
