"""What a killed run continues from: the shared state and the strategy's memory after the last whole round.

Two are kept: the newest, and the last one that held another shared state. A run goes on from that one when
the newest file is damaged, or when devices diverge from the state in it.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.wire.read_update import value_problem
from fedaigc.storage.tensor_file import read_tensors

CHECKPOINT = "checkpoint.safetensors"
EARLIER = "checkpoint-earlier.safetensors"
# where and how fast a run computes, and how far it goes, do not change the rounds that are done
_FREE = {"homes", "output", "backend", "workers", "generation", "resume", "seeded_noise"}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """After round `round`: the shared state, the server half's memory, and that of the bounds of updates.

    damage: why the newest file was passed over for this one, where it was.
    """

    round: int
    shared: SharedState
    rule_state: Mapping[str, Tensor]
    bounds: Mapping[str, Tensor] = field(default_factory=dict)
    damage: str | None = None


def save_checkpoint(checkpoint: Checkpoint, config: FederationConfig) -> None:
    """Write it into the run's folder, whole or not at all.

    The newest one so far becomes the earlier one, unless it, or the earlier one, has the same shared state.
    """
    named = {f"shared/{name}": tensor for name, tensor in checkpoint.shared.tensors().items()}
    named |= {f"rule/{name}": tensor for name, tensor in checkpoint.rule_state.items()}
    named |= {f"bounds/{name}": tensor for name, tensor in checkpoint.bounds.items()}
    version = checkpoint.shared.hash()
    metadata = {
        "round": str(checkpoint.round),
        "header": json.dumps(checkpoint.shared.header()),
        "config": _fingerprint(config),
        "digest": _digest(named),
        "version": version,
    }
    path, earlier = config.output / CHECKPOINT, config.output / EARLIER
    temporary = path.with_suffix(".tmp")
    save_file({name: tensor.contiguous() for name, tensor in named.items()}, temporary, metadata=metadata)
    newest = _version(path)
    if newest is not None and version not in (newest, _version(earlier)):
        os.replace(path, earlier)
    os.replace(temporary, path)


def load_checkpoint(config: FederationConfig) -> Checkpoint | None:
    """The newest checkpoint in the run's folder that can be used; None when there is none.

    Raises UserError when it was made with another configuration: its rounds would not be this run's.
    DamagedFile when there is no other than one that is none, is not what was written, or holds weights that
    no device could train from.
    """
    path = config.output / CHECKPOINT
    if not path.exists():
        return load_earlier(config)
    try:
        return _read(path, config)
    except DamagedFile as error:
        try:
            found = load_earlier(config)
        except UserError:
            found = None
        if found is None:
            raise
        return replace(found, damage=str(error))


def load_earlier(config: FederationConfig) -> Checkpoint | None:
    """The checkpoint of the state before the newest one's; None when there is none. Raises as above."""
    path = config.output / EARLIER
    return _read(path, config) if path.exists() else None


def drop_checkpoints(config: FederationConfig) -> None:
    """Remove those of another run in the same folder."""
    for name in (CHECKPOINT, EARLIER):
        (config.output / name).unlink(missing_ok=True)


def _read(path: Path, config: FederationConfig) -> Checkpoint:
    metadata, tensors = read_tensors(path)
    if not {"round", "header", "config", "digest"} <= metadata.keys():
        raise DamagedFile(f"{path} is no checkpoint of a run: remove it to begin anew")
    if metadata["digest"] != _digest(tensors):
        raise DamagedFile(f"{path} is damaged: its values are not those written; remove it to begin anew")
    if metadata["config"] != _fingerprint(config):
        raise UserError(
            f"{path} was made with another configuration: resume with the one in record.json beside it, "
            "or give a new output folder"
        )

    def part(prefix: str) -> dict[str, Tensor]:
        return {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}

    shared = SharedState.from_tensors(json.loads(metadata["header"]), part("shared/"))
    for name, tensor in shared.tensors().items():
        problem = value_problem(tensor)
        if problem is not None:
            raise DamagedFile(f"{path}: {name} holds {problem}; remove it to begin anew")
    return Checkpoint(int(metadata["round"]), shared, part("rule/"), part("bounds/"))


def _version(path: Path) -> str | None:
    """The version of the shared state in a checkpoint; None where there is none that can be read."""
    try:
        with safe_open(path, "pt") as file:
            return (file.metadata() or {}).get("version")
    except (OSError, SafetensorError):
        return None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}/{tuple(tensor.shape)}/{tensor.dtype}".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _fingerprint(config: FederationConfig) -> str:
    values = json.loads(config.model_dump_json(exclude=_FREE))
    for free in ("count", "tensorboard"):
        del values["rounds"][free]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
