"""A pipeline of the caller as a folder from which the processes of a run load it."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fedaigc.api.denoising import default_side
from fedaigc.diffusion.adapters.bare import bare_fingerprint
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, dtype_name
from fedaigc.diffusion.schedule.model_settings import differences, model_settings
from fedaigc.diffusion.schedule.stock_schedule import canonical_config
from fedaigc.errors import UserError
from fedaigc.storage.file_lock import locked


def model_section(model: str | Mapping[str, Any] | Pipeline, folder: Path) -> dict[str, Any]:
    """Return the section `model` of a configuration for a name, a section or a pipeline.

    Args:
        model: Name, section, or pipeline.
        folder: Folder in which a pipeline is saved.
    """
    if isinstance(model, str):
        return {"name": model}
    if isinstance(model, Mapping):
        return dict(model)
    side = default_side(model)
    size = {"height": side, "width": side}
    return {
        **size,
        "dtype": dtype_name(model),
        "device": str(model.device),
        "name": str(saved(model, folder)),
    }


def saved(pipe: Pipeline, folder: Path) -> Path:
    """Save a pipeline below a folder, from where all processes load it, and return its own folder.

    Raises:
        UserError: If adapters are installed in the pipeline, or if it is another one when it is loaded again: FreeU,
            a cache, a LoRA of the text encoder or a class of its own are not saved.
    """
    weights, settings = bare_fingerprint(pipe), _settings(pipe)
    switched = [name.removesuffix(" switches") for name in settings if name.endswith(" switches")]
    if switched:
        raise UserError(
            f"{', '.join(switched)} of the pipeline runs with something that is not saved with it (FreeU, a cache, a "
            "LoRA): switch it off, or merge a LoRA with `pipe.fuse_lora(); pipe.unload_lora_weights()`"
        )
    own = hashlib.sha256(json.dumps([weights, settings], sort_keys=True).encode()).hexdigest()
    target = folder / own[:16]
    # of two notebooks, none reads what the other one is writing
    with locked(folder / ".saving.lock"):
        if not (target / "model_index.json").is_file():
            partial = target.with_name(f".{target.name}.new")
            shutil.rmtree(partial, ignore_errors=True)
            pipe.save_pretrained(partial)
            _check_same(pipe, settings, load_pipeline(str(partial), dtype=dtype_name(pipe)))
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)
    return target


def _settings(pipe: Pipeline) -> dict[str, str]:
    return model_settings(pipe) | {"config of the scheduler": canonical_config(pipe.scheduler)}


def _check_same(pipe: Pipeline, settings: Mapping[str, str], loaded: Pipeline) -> None:
    """Refuse a pipeline that is another one after it was saved and loaded."""
    other = differences(settings, _settings(loaded))
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module) and name != "safety_checker" and name not in other:
            again = getattr(loaded, name, None)
            if not isinstance(again, torch.nn.Module) or not _equal(part.state_dict(), again.state_dict()):
                other.append(f"weights of {name}")
    if other:
        raise UserError(
            f"{type(pipe).__name__} is another pipeline when it is saved and loaded, as processes of a run do: its "
            f"{', '.join(other)} differ; give the folder or hub name of a text-to-image pipeline in one dtype"
        )


def _equal(here: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    return here.keys() == there.keys() and all(
        value.dtype == there[name].dtype and torch.equal(value.cpu(), there[name].cpu())
        for name, value in here.items()
        if isinstance(value, torch.Tensor)
    )
