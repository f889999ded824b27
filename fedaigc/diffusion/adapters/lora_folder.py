"""Read and write adapters as standard peft / diffusers LoRA folders, for `pipe.load_lora_weights(folder)`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from fedaigc.diffusion.adapters.stages import Adapter, SharedState, adapted_layers
from fedaigc.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

_FILE = "pytorch_lora_weights.safetensors"


def export_lora(pipe: "DiffusionPipeline", adapter: Adapter | SharedState, folder: Path) -> Path:
    """Write a personal adapter or a shared state as a LoRA folder for this kind of pipeline.

    In a stock pipeline the exported adapter acts at all noise levels, because LoRA files cannot express t*.

    Args:
        pipe: A pipeline of the kind that the adapter belongs to.
        adapter: The adapter, or a shared state without a residual.
        folder: The folder to write. It is created if necessary.

    Returns:
        The path of the weight file.

    Raises:
        UserError: If the shared state holds a residual, which is not a LoRA, or if the pipeline does not
            support LoRA files.
    """
    if isinstance(adapter, SharedState):
        if adapter.residual:
            raise UserError(
                f"the shared state moves {len(adapter.residual)} layers by a residual, "
                "which a LoRA folder cannot hold"
            )
        adapter = adapter.adapter
    if not hasattr(pipe, "save_lora_weights"):
        raise UserError(f"{type(pipe).__name__} cannot write LoRA folders")
    from peft import LoraConfig

    config = LoraConfig(
        r=adapter.rank, lora_alpha=cast(int, adapter.alpha), target_modules=sorted(adapter.lora)
    )
    weights: dict[str, Tensor] = {}
    for layer, (down, up) in adapter.lora.items():
        weights[f"{layer}.lora_A.weight"] = down.contiguous()
        weights[f"{layer}.lora_B.weight"] = up.contiguous()
    part = _part(pipe)
    options: dict[str, Any] = {
        f"{part}_lora_layers": weights,
        f"{part}_lora_adapter_metadata": _metadata(config),
    }
    folder.mkdir(parents=True, exist_ok=True)
    pipe.save_lora_weights(str(folder), **options)
    return folder / _FILE


def import_lora(pipe: "DiffusionPipeline", folder: Path) -> Adapter:
    """Read a LoRA folder or file written by `export_lora`, by peft, or by the training scripts of diffusers.

    Args:
        pipe: The pipeline that the adapter is for.
        folder: The LoRA folder or file.

    Returns:
        The adapter, with float32 factors.

    Raises:
        UserError: If the folder does not exist or is not a LoRA folder for this pipeline, if it changes the
            text encoder or layers outside of `adapted_layers`, or if its layers differ in rank.
    """
    if not folder.exists():
        raise UserError(f"no LoRA folder {folder}: expected a folder with {_FILE}")
    try:
        state, alphas, metadata = _read(pipe, folder)
    except (OSError, ValueError, AttributeError) as error:
        raise UserError(f"{folder} is not a LoRA folder for {type(pipe).__name__}: {error}") from None
    prefix = f"{_part(pipe)}."
    foreign = sorted(name for name in state if not name.startswith(prefix))
    if foreign:
        raise UserError(f"{folder} moves {foreign[0]}, only {prefix}* can be adapted")
    lora = {}
    known = adapted_layers(pipe)
    for name, down in state.items():
        layer, marker, _ = name.removeprefix(prefix).partition(".lora_A")
        if not marker:
            continue
        if layer not in known:
            raise UserError(f"{folder} moves layer {layer!r}, which is not among the adapted layers")
        up = state[f"{prefix}{layer}.lora_B.weight"]
        lora[layer] = (down.to(torch.float32), up.to(torch.float32))
    ranks = {down.shape[0] for down, _ in lora.values()}
    if len(ranks) != 1:
        raise UserError(f"{folder} has layers of ranks {sorted(ranks)}, expected one rank")
    rank = ranks.pop()
    alpha = (metadata or {}).get(f"{prefix}lora_alpha", next(iter((alphas or {}).values()), rank))
    return Adapter(dict(sorted(lora.items())), rank, float(alpha))


def _part(pipe: "DiffusionPipeline") -> str:
    return "unet" if getattr(pipe, "unet", None) is not None else "transformer"


def _metadata(config: Any) -> dict[str, Any]:
    # JSON has no sets
    return {
        name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()
    }


def _read(
    pipe: Any, folder: Path
) -> tuple[dict[str, Tensor], dict[str, float] | None, dict[str, Any] | None]:
    """Return the state dict, the alphas of older formats, and the metadata.

    Pipelines return two or three of them.
    """
    options: dict[str, Any] = {"return_lora_metadata": True}
    if _part(pipe) == "unet":
        options["unet_config"] = pipe.unet.config
    else:
        options["return_alphas"] = True
    found = pipe.lora_state_dict(str(folder), **options)
    return (found[0], None, found[1]) if len(found) == 2 else found
