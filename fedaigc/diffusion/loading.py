"""Load any diffusers text-to-image pipeline, and identify its base model by a fingerprint of the weights."""

import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from fedaigc import assets
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.errors import UserError
from fedaigc.storage.tensor_file import align

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

EMBEDDED = "embedded"
# the models that ship with the package, and their folders
SHIPPED = {EMBEDDED: "model", "embedded-lcm": "model_lcm"}


def resolve_device(device: str) -> str:
    """Return the torch device for the `device` entry of a config.

    "auto" selects CUDA if it is available, else the CPU.

    Raises:
        UserError: If torch does not know the device, or if this machine does not have it.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise UserError(
            f'device {device!r} is unknown: expected "auto", "cpu", "cuda" or "cuda:0"'
        ) from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f'device {device!r} is not available: torch finds no CUDA device; use "cpu" or "auto"'
        )
    return device


def resolve_dtype(dtype: str) -> torch.dtype:
    """Return the torch dtype for the `dtype` entry of a config.

    Raises:
        UserError: If `dtype` is not "float32", "float16" or "bfloat16".
    """
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in known:
        raise UserError(f"dtype {dtype!r} is unknown: expected one of {', '.join(known)}")
    return known[dtype]


def load_pipeline(
    name: str = EMBEDDED, *, device: str = "cpu", dtype: str = "float32", variant: str | None = None
) -> "DiffusionPipeline":
    """Load a text-to-image pipeline.

    The safety checker is removed if the pipeline has one: it would process every private image, and a blanked
    image is no measurement. All weights are aligned to cache lines, as are those of a pipeline that was built
    or trained in the process. The same weights then give the same images bit for bit.

    Example:
        >>> import fedaigc as fa
        >>> type(fa.load_pipeline()).__name__
        'StableDiffusionPipeline'

    Args:
        name: "embedded" for the shipped model, "embedded-lcm" for its few-step twin, the path of a diffusers folder, or
            a hub name.
        device: A torch device, or "auto" (see `resolve_device`).
        dtype: "float32", "float16" or "bfloat16".
        variant: Variant of the weight files, such as "fp16". None: the files without a variant, or those of the only
            variant that a folder has.

    Raises:
        UserError: If the folder does not exist, if the hub does not have the model or is unreachable, if the model
            needs a package that is missing, or if it has only files of another variant.
    """
    # the libraries log advice on torchvision and the tiny autoencoder at every load, and already at import
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    location = str(assets.path(SHIPPED[name])) if name in SHIPPED else name
    if not Path(location).exists() and (location.startswith((".", "/", "~")) or location.count("/") != 1):
        raise UserError(
            f"model {name!r}: the folder does not exist; expected one of {sorted(SHIPPED)}, the path of a diffusers "
            'pipeline folder (with model_index.json), or a hub name such as "CompVis/stable-diffusion-v1-4"'
        )
    if Path(location).is_file():
        raise UserError(
            f"model {name!r} is a single file: convert it into a folder once, in Python, with the pipeline class that "
            "it was made for, and give the folder:\n  from diffusers import StableDiffusionXLPipeline\n"
            f"  StableDiffusionXLPipeline.from_single_file({location!r}).save_pretrained('FOLDER')"
        )
    if Path(location).exists() and not (Path(location) / "model_index.json").is_file():
        raise UserError(
            f"model {name!r}: the folder has no model_index.json, so it is not a diffusers pipeline"
        )
    if dtype == "float16" and resolve_device(device) == "cpu":
        warnings.warn(
            "float16 on a CPU: a step takes about 10 times as long as in float32, and a decoding 60 times; use "
            "bfloat16, float32 or a GPU",
            stacklevel=2,
        )
    options: dict[str, Any] = {"dtype": resolve_dtype(dtype)}
    variant = variant or _only_variant(Path(location))
    if variant is not None:
        options["variant"] = variant
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = _text_to_image(location, options)
    except (ImportError, NameError) as error:  # diffusers leaves names out where a package is missing
        raise UserError(
            f"model {name!r} needs a package that is missing: {' '.join(str(error).split())}"
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"model {name!r} could not be loaded: {reason}{_about_variants(Path(location), variant)}"
        ) from error
    if getattr(pipe, "safety_checker", None) is not None:
        pipe.register_modules(safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            align(component)
    return pipe.to(resolve_device(device))


def _text_to_image(location: str, options: Mapping[str, Any]) -> Any:
    """Load a pipeline: of a class for other tasks (image to image) the one for text, else the class that it names."""
    from diffusers import AutoPipelineForText2Image, DiffusionPipeline

    try:
        return AutoPipelineForText2Image.from_pretrained(location, **options)
    except ValueError as error:
        # of Bria, HiDream, HunyuanImage, Kandinsky 5, LTX, SanaSprint or Wan it knows none
        if "can't find a pipeline linked to" not in str(error):
            raise
    return DiffusionPipeline.from_pretrained(location, **options)


def _variants(folder: Path) -> dict[str, set[str | None]]:
    """Return the variants of the weight files of each part of a folder; None stands for files without one."""
    found: dict[str, set[str | None]] = {}
    for file in sorted(folder.glob("*/*.safetensors")) if folder.is_dir() else ():
        # model.fp16.safetensors, diffusion_pytorch_model.fp16-00001-of-00002.safetensors
        name = re.search(r"\.([A-Za-z0-9_]+)(-\d+-of-\d+)?\.safetensors$", file.name)
        found.setdefault(file.parent.name, set()).add(name[1] if name is not None else None)
    return found


def _only_variant(folder: Path) -> str | None:
    """Return the variant that all weight files of a folder have; None if there is none, or a choice."""
    kinds = set().union(*_variants(folder).values())
    return next(iter(kinds)) if len(kinds) == 1 else None


def _about_variants(folder: Path, variant: str | None) -> str:
    """Return which variants of weight files a folder has, if a part of it has no files of the given one."""
    lacking = {part: kinds for part, kinds in _variants(folder).items() if variant not in kinds}
    if not lacking:
        return ""
    part, kinds = next(iter(lacking.items()))
    told = ", ".join("files without a variant" if kind is None else f"the variant {kind!r}" for kind in kinds)
    asked = "files without a variant" if variant is None else f"the variant {variant!r}"
    return f"; {part} lacks {asked} and has {told}: set `variant` under `[model]` (--variant)"


def base_fingerprint(pipe: Pipeline) -> str:
    """Return the SHA-256 of all weights of a pipeline: component, tensor name, shape, dtype and bytes.

    Two machines with the same fingerprint run the same base model. Compute it before adapters are added.
    """
    digest = hashlib.sha256()
    for component, module in sorted(pipe.components.items()):
        if not isinstance(module, torch.nn.Module):
            continue
        for name, tensor in sorted(module.state_dict().items()):
            flat = tensor.detach().to("cpu").contiguous().flatten()
            digest.update(f"{component}/{name}/{tuple(tensor.shape)}/{tensor.dtype}".encode())
            if flat.numel():
                digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
