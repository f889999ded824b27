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

from torch import Tensor

from fedaigc.diffusion.adapters.shared_state_file import PART, shared_state_of
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.wire.read_update import value_problem
from fedaigc.storage.tensor_file import read_header, read_parts, write_parts

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
    version = checkpoint.shared.hash()
    header = {
        PART: checkpoint.shared.header(),
        "round": checkpoint.round,
        "config": _fingerprint(config),
        "version": version,
    }
    parts = {PART: checkpoint.shared.tensors(), "rule": checkpoint.rule_state, "bounds": checkpoint.bounds}
    path, earlier = config.output / CHECKPOINT, config.output / EARLIER
    newest = _version(path)
    if newest is not None and version not in (newest, _version(earlier)):
        os.replace(path, earlier)
    write_parts(path, header, parts)


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
    header, parts = read_parts(path)
    if not {PART, "round", "config"} <= header.keys():
        raise DamagedFile(f"{path} is no checkpoint of a run: remove it to begin anew")
    if header["config"] != _fingerprint(config):
        raise UserError(
            f"{path} was made with another configuration: resume with the one in record.json beside it, "
            "or give a new output folder"
        )
    shared = shared_state_of(path, header, parts)
    for name, tensor in shared.tensors().items():
        problem = value_problem(tensor)
        if problem is not None:
            raise DamagedFile(f"{path}: {name} holds {problem}; remove it to begin anew")
    return Checkpoint(int(header["round"]), shared, parts.get("rule", {}), parts.get("bounds", {}))


def _version(path: Path) -> str | None:
    """The version of the shared state in a checkpoint; None where there is none that can be read."""
    return (read_header(path) or {}).get("version")


def _fingerprint(config: FederationConfig) -> str:
    values = json.loads(config.model_dump_json(exclude=_FREE))
    for free in ("count", "tensorboard"):
        del values["rounds"][free]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
