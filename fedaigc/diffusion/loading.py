"""Load any diffusers text-to-image pipeline, and identify its base model by a fingerprint of the weights."""

import hashlib
import warnings
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
    name: str = EMBEDDED, *, device: str = "cpu", dtype: str = "float32"
) -> "DiffusionPipeline":
    """Load a text-to-image pipeline.

    The safety checker is removed if the pipeline has one: it would process every private image, and a blanked
    image is no measurement. All weights are aligned to cache lines, as are those of a pipeline that was built
    or trained in the process. The same weights then give the same images bit for bit.

    Args:
        name: "embedded" for the shipped model, the path of a diffusers folder, or a hub name.
        device: A torch device, or "auto" (see `resolve_device`).
        dtype: "float32", "float16" or "bfloat16".

    Raises:
        UserError: If the folder does not exist, or if the hub does not have the model or is unreachable.
    """
    # the libraries log advice on torchvision and the tiny autoencoder at every load, and already at import
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    from diffusers import AutoPipelineForText2Image
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    location = str(assets.path("model")) if name == EMBEDDED else name
    if not Path(location).exists() and (location.startswith((".", "/", "~")) or location.count("/") != 1):
        raise UserError(
            f"model {name!r}: the folder does not exist; expected {EMBEDDED!r}, the path of a diffusers "
            'pipeline folder (with model_index.json), or a hub name such as "CompVis/stable-diffusion-v1-4"'
        )
    if Path(location).exists() and not (Path(location) / "model_index.json").is_file():
        raise UserError(
            f"model {name!r}: the folder has no model_index.json, so it is not a diffusers pipeline"
        )
    options: dict[str, Any] = {"dtype": resolve_dtype(dtype)}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = AutoPipelineForText2Image.from_pretrained(location, **options)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(f"model {name!r} could not be loaded: {reason}") from error
    if getattr(pipe, "safety_checker", None) is not None:
        pipe.register_modules(safety_checker=None)
    pipe.set_progress_bar_config(disable=True)
    for component in pipe.components.values():
        if isinstance(component, torch.nn.Module):
            align(component)
    return pipe.to(resolve_device(device))


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
