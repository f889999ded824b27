"""What a killed run continues from: the shared state and the strategy's memory after the last whole round."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from torch import Tensor

from fedaigc.diffusion.adapters import SharedState
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config import FederationConfig
from fedaigc.tensor_file import read_tensors

CHECKPOINT = "checkpoint.safetensors"
# where and how fast a run computes, and how far it goes, do not change the rounds that are done
_FREE = {"homes", "output", "backend", "workers", "generation", "resume", "seeded_noise"}


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """After round `round`: the shared state and the server half's memory."""

    round: int
    shared: SharedState
    rule_state: Mapping[str, Tensor]


def save_checkpoint(checkpoint: Checkpoint, config: FederationConfig) -> None:
    """Write it into the run's folder, whole or not at all."""
    named = {f"shared/{name}": tensor for name, tensor in checkpoint.shared.tensors().items()}
    named |= {f"rule/{name}": tensor for name, tensor in checkpoint.rule_state.items()}
    metadata = {
        "round": str(checkpoint.round),
        "header": json.dumps(checkpoint.shared.header()),
        "config": _fingerprint(config),
        "digest": _digest(named),
    }
    path = config.output / CHECKPOINT
    temporary = path.with_suffix(".tmp")
    save_file({name: tensor.contiguous() for name, tensor in named.items()}, temporary, metadata=metadata)
    os.replace(temporary, path)


def load_checkpoint(config: FederationConfig) -> Checkpoint | None:
    """The checkpoint in the run's folder; None when there is none.

    Raises UserError when it was made with another configuration: its rounds would not be this run's.
    DamagedFile when it is none, or not what was written.
    """
    path = config.output / CHECKPOINT
    if not path.exists():
        return None
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
    return Checkpoint(int(metadata["round"]), shared, part("rule/"))


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
