"""The provenance of a run: fingerprints of the rule's code and of the base model, the commit, the machine."""

import hashlib
import json
import os
import platform
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedaigc import assets
from fedaigc.diffusion.loading import SHIPPED
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.flower.rule import FLOWER_STRATEGIES
from fedaigc.strategy.registry import describe

_ROOT = Path(__file__).parents[3]
# increased by hand when a change of this package, outside of the rules' own code, changes results
RESULT_EPOCH = 1
# records are committed while a study runs: they do not count as a change of its code
_CODE = ("fedaigc", "strategies", "pyproject.toml")


def code_of(strategy: str) -> dict[str, str]:
    """Return what decides the result of a rule's runs besides their configuration.

    This is `RESULT_EPOCH`, which stands for this package, and the fingerprint of the rule's code. For Flower's
    rules it is the version of Flower and our defaults in place of the fingerprint, since this package adapts them.
    """
    epoch = {"epoch": str(RESULT_EPOCH)}
    if strategy in FLOWER_STRATEGIES:
        defaults = describe(strategy).options
        return {**epoch, "flwr": version("flwr"), "defaults": json.dumps(defaults, sort_keys=True)}
    return {**epoch, "rule": strategy_code(strategy)}


def model_fingerprint(name: str) -> str:
    """Return the SHA-256 over the files of a local pipeline folder; a hub name is its own fingerprint."""
    folder = assets.path(SHIPPED[name]) if name in SHIPPED else Path(name)
    if not folder.is_dir():
        return name
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return _digest_of(folder, tuple((path, path.stat().st_mtime_ns, path.stat().st_size) for path in files))


@cache
def _digest_of(folder: Path, files: tuple[tuple[Path, int, int], ...]) -> str:
    # cached by modification times: the runs of a study ask for it hundreds of times
    digest = hashlib.sha256()
    for path, _, _ in files:
        digest.update(str(path.relative_to(folder)).encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def commit() -> dict[str, Any]:
    """Return the commit of the code and whether the code has changed since; None and None outside of a checkout."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(_ROOT), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", *_CODE))}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "dirty": None}


@cache
def machine() -> dict[str, Any]:
    """Return what determines the times and the last bits of a decomposition, and nothing that identifies the machine
    or its owner.
    """
    import psutil
    import torch

    return {
        "processor": _processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
