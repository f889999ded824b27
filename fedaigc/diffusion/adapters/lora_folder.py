"""Read and write adapters as standard LoRA folders: diffusers' `pipe.load_lora_weights(folder)` reads them."""

import hashlib
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from torch import Tensor

from fedaigc.counting import counted
from fedaigc.diffusion.adapters.foreign_lora import (
    BASE_KEY,
    PEFT_CONFIG,
    PEFT_FILE,
    ForeignLora,
    lora_files,
    of_one_rank,
)
from fedaigc.diffusion.adapters.layers import base_weight, exactly, weighted_layers
from fedaigc.diffusion.adapters.state import Adapter, Factors, SharedState
from fedaigc.diffusion.sampling.pipeline_call import denoiser
from fedaigc.errors import UserError
from fedaigc.storage.tensor_file import read_tensors, write_tensors

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LORA_FILE = "pytorch_lora_weights.safetensors"


def export_lora(
    pipe: "DiffusionPipeline",
    adapter: Adapter | SharedState,
    folder: Path,
    *,
    base_hash: str | None = None,
    exist_ok: bool = False,
) -> Path:
    """Write a personal adapter or a shared state as a LoRA folder for this kind of pipeline.

    In a stock pipeline the exported adapter acts at all noise levels, because LoRA files cannot express t*. The
    file is written atomically.

    Args:
        pipe: A pipeline of the kind that the adapter belongs to.
        adapter: The adapter, or a shared state without a residual.
        folder: The folder to write. It is created if necessary.
        base_hash: Fingerprint of the base model, which the file then names. None for a shared state takes its
            own.
        exist_ok: Write into a folder that has content; only an earlier weight file is replaced.

    Returns:
        The path of the weight file.

    Raises:
        UserError: If the shared state holds a residual, which is not a LoRA, if the adapter does not fit the
            pipeline, if the pipeline does not support LoRA files, or if the folder has content.
    """
    if isinstance(adapter, SharedState):
        if adapter.residual:
            raise UserError(
                f"the shared state changes {counted(len(adapter.residual), 'layer')} by a residual, "
                "which a LoRA folder cannot hold"
            )
        base_hash = adapter.base_hash if base_hash is None else base_hash
        adapter = adapter.adapter
    part = _part(pipe)
    files = lora_files(pipe, part)
    check_lora_folder(folder, exist_ok=exist_ok)
    _check_fits(pipe, adapter.lora, "the adapter")
    from peft import LoraConfig

    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=cast(int, adapter.alpha),
        target_modules=exactly(denoiser(pipe), adapter.lora),
    )
    weights: dict[str, Tensor] = {}
    for layer, (down, up) in adapter.lora.items():
        weights[f"{layer}.lora_A.weight"] = down.contiguous()
        weights[f"{layer}.lora_B.weight"] = up.contiguous()
    options: dict[str, Any] = {
        f"{part}_lora_layers": weights,
        f"{part}_lora_adapter_metadata": _metadata(config),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as whole:
        files.save_lora_weights(whole, **options)
        metadata, tensors = read_tensors(Path(whole) / LORA_FILE)
    if base_hash is not None:
        metadata = {**metadata, BASE_KEY: base_hash}
    write_tensors(folder / LORA_FILE, tensors, metadata)
    return folder / LORA_FILE


def check_lora_folder(folder: Path, *, exist_ok: bool = False) -> None:
    """Check that `export_lora` may write to a folder.

    Raises:
        UserError: If it is a file, or if it has content and `exist_ok` is False.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file: give a folder for the LoRA")
    if not exist_ok and folder.is_dir() and any(folder.iterdir()):
        raise UserError(f"{folder} is not empty: give a new folder, or --force to replace its {LORA_FILE}")


def import_lora(pipe: "DiffusionPipeline", folder: str | Path, *, base_hash: str | None = None) -> Adapter:
    """Read a LoRA folder or file written by `export_lora`, by peft, or by the training scripts of diffusers.

    Only safetensors files are read. Ranks and alphas may differ between layers: the adapter then has the largest rank,
    and its factors include the scales.

    Example:
        >>> import fedaigc as fa
        >>> homes = fa.scenes("runs/lora/homes", clients=2, images=4, exist_ok=True)
        >>> few = {"local_steps": 1, "personal_steps": 1}
        >>> run = fa.simulate(homes, rounds=1, adapter={"rank": 2}, training=few, progress=False)
        >>> pipe = fa.load_pipeline()
        >>> folder = fa.export_lora(pipe, run.shared, "runs/lora/second")
        >>> fa.import_lora(pipe, folder).rank
        2

    Args:
        pipe: The pipeline that the adapter is for.
        folder: The LoRA folder or file.
        base_hash: Fingerprint of the pipeline's base model. A file of `export_lora` for another one is refused.

    Returns:
        The adapter, with float32 factors.

    Raises:
        UserError: If the folder does not exist or is not a LoRA folder for this pipeline, if it is for another
            base model, if it changes the text encoder or layers that this pipeline does not have, if a factor does
            not fit its layer, has no partner or is not finite, or if it is something else than a LoRA, such as
            DoRA, LoKr, LoHa or biases.
    """
    folder = Path(folder)
    if not folder.exists():
        raise UserError(f"no LoRA folder {folder}: expected a folder with {LORA_FILE}")
    found = ForeignLora(pipe, _weight_file(folder), _part(pipe), str(folder))
    if found.base is not None and base_hash is not None and found.base != base_hash:
        raise UserError(f"{folder} is for base model {found.base}, this pipeline has {base_hash}")
    _check_fits(pipe, found.factors, str(folder))
    lora, rank, alpha = of_one_rank(found.factors, found.alphas)
    return Adapter(dict(sorted(lora.items())), rank, alpha)


def lora_digest(folder: Path) -> str:
    """Return the SHA-256 of a LoRA folder's or file's weights, with peft's configuration where there is one.

    Raises:
        UserError: If there is no such folder, or it is not a LoRA folder.
    """
    file = _weight_file(folder) if folder.exists() else None
    if file is None:
        raise UserError(f"no LoRA folder {folder}: expected a folder with {LORA_FILE}")
    digest = hashlib.sha256(file.read_bytes())
    config = file.parent / PEFT_CONFIG
    if file.name == PEFT_FILE and config.is_file():
        digest.update(config.read_bytes())
    return digest.hexdigest()


def _check_fits(pipe: "DiffusionPipeline", lora: Mapping[str, Factors], what: str) -> None:
    known = weighted_layers(pipe)
    for layer, (down, up) in lora.items():
        if layer not in known:
            raise UserError(
                f"{what} moves layer {layer!r}, which {type(pipe).__name__} does not have as a linear or "
                "convolutional layer"
            )
        weight = base_weight(known[layer])
        rank = down.shape[0] if down.dim() else 0
        needed = (rank, *weight.shape[1:]), (weight.shape[0], rank, *[1] * (weight.dim() - 2))
        if (tuple(down.shape), tuple(up.shape)) != needed:
            raise UserError(
                f"{what}: {layer} has factors A {tuple(down.shape)} and B {tuple(up.shape)}, "
                f"expected A {needed[0]} and B {needed[1]}"
            )


def _part(pipe: "DiffusionPipeline") -> str:
    return "unet" if getattr(pipe, "unet", None) is not None else "transformer"


def _metadata(config: Any) -> dict[str, Any]:
    # JSON has no sets
    return {
        name: sorted(value) if isinstance(value, set) else value for name, value in config.to_dict().items()
    }


def _weight_file(folder: Path) -> Path:
    if folder.is_file():
        return folder
    for name in (LORA_FILE, PEFT_FILE):
        if (folder / name).is_file():
            return folder / name
    files = sorted(folder.glob("*.safetensors"))
    if len(files) != 1:
        held = ", ".join(file.name for file in files) or "no safetensors file"
        raise UserError(f"{folder} is not a LoRA folder: it has {held}, expected {LORA_FILE}")
    return files[0]
