"""Checkpoints, from which a killed run resumes: shared state and rule state after the last complete round.

A resumed run also reads `record.json` (`output.recorder`: its rounds so far, and what noise has spent), and each
device its own adapter and memory of the round before (`device.home.versions`).

Two checkpoints are kept: the newest, and the last one with a different shared state. A run resumes from the earlier
one if the newest file is damaged, or if devices diverge from its state.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from fedaigc.counting import counted
from fedaigc.diffusion.adapters.shared_state_file import PART, shared_state_of
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.wire.read_update import value_problem
from fedaigc.storage.tensor_file import read_header, read_parts, write_parts
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.sources import is_file

CHECKPOINT = "checkpoint.safetensors"
EARLIER = "checkpoint-earlier.safetensors"
# settings that do not change completed rounds: where and how fast a run computes, and how long it continues
_FREE = {
    *(
        "homes",
        "output",
        "backend",
        "workers",
        "client_gpus",
        "generation",
        "resume",
        "run_id",
        "seeded_noise",
    ),
}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The state of a run after a round.

    Attributes:
        round: The number of the completed round.
        shared: The shared state.
        rule_state: The memory of the strategy's server half.
        bounds: The sizes that the bounds of updates follow from.
        damage: Why the newest file was not used, if this checkpoint is the earlier one.
    """

    round: int
    shared: SharedState
    rule_state: Mapping[str, Tensor]
    bounds: Mapping[str, Tensor] = field(default_factory=dict)
    damage: str | None = None


def save_checkpoint(checkpoint: Checkpoint, config: FederationConfig) -> None:
    """Write a checkpoint atomically into the run's folder.

    The previous checkpoint becomes the earlier one, unless it or the earlier one has the same shared state.
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
    """Return the newest usable checkpoint in the run's folder, or None if there is none.

    Raises:
        UserError: If the checkpoint was made with another configuration, or after more rounds than the run has.
        DamagedFile: If the only checkpoint is damaged, or holds weights that no device could train from.
    """
    found = _newest(config)
    if found is not None and found.round > config.rounds.count:
        raise UserError(
            f"the run in {config.output} has {counted(found.round, 'round')} already, and rounds.count is "
            f"{config.rounds.count}: resume it with rounds.count = {found.round} or more, or run fewer rounds in "
            "another output folder"
        )
    return found


def _newest(config: FederationConfig) -> Checkpoint | None:
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
    """Return the earlier checkpoint, or None if there is none.

    Raises:
        UserError: As `load_checkpoint`.
        DamagedFile: If the file is damaged, or holds weights that no device could train from.
    """
    path = config.output / EARLIER
    return _read(path, config) if path.exists() else None


def drop_checkpoints(config: FederationConfig) -> None:
    """Remove the checkpoints of an earlier run from the folder."""
    for name in (CHECKPOINT, EARLIER):
        (config.output / name).unlink(missing_ok=True)


def _read(path: Path, config: FederationConfig) -> Checkpoint:
    header, parts = read_parts(path)
    if not {PART, "round", "config"} <= header.keys():
        raise DamagedFile(f"{path} is not a checkpoint of a run: remove it to start again")
    if header["config"] != _fingerprint(config):
        raise UserError(
            f"{path} was made with another configuration: resume with the one in record.json beside it, "
            "or choose a new output folder"
        )
    shared = shared_state_of(path, header, parts)
    for name, tensor in shared.tensors().items():
        problem = value_problem(tensor)
        if problem is not None:
            raise DamagedFile(f"{path}: {name} has {problem}; remove it to start again")
    return Checkpoint(int(header["round"]), shared, parts.get("rule", {}), parts.get("bounds", {}))


def _version(path: Path) -> str | None:
    """Return the version of the shared state in a checkpoint, or None if it cannot be read."""
    return (read_header(path) or {}).get("version")


def _fingerprint(config: FederationConfig) -> str:
    values = json.loads(config.model_dump_json(exclude=_FREE))
    for free in ("count", "tensorboard", "early_stopping"):
        del values["rounds"][free]
    # where a LoRA lies is free, which one it is counts
    del values["adapter"]["start_from"]
    for added in ("start_digest", "target_modules"):
        if values["adapter"][added] is None:
            del values["adapter"][added]
    del values["model"]["variant"]  # the fingerprint of the base model counts
    # at their defaults these do nothing, and a checkpoint without them is one of the same run
    if not config.rounds.validation_fraction:
        del values["rounds"]["validation_fraction"]
    if config.edges is None:
        del values["edges"]
    if config.training.stages == TrainingSettings().stages:
        del values["training"]["stages"]
    if not config.training.aspect_buckets:
        del values["training"]["aspect_buckets"]
    if is_file(config.rounds.strategy):
        # its code counts, not its location
        values["rounds"]["strategy"] = [
            Path(config.rounds.strategy).name,
            strategy_code(config.rounds.strategy),
        ]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
