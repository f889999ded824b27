"""Load any diffusers text-to-image pipeline, and tell two bases apart by their weights."""

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
    """The torch device for a config's `device`: "auto" takes CUDA where there is one, else the CPU.

    Raises UserError for a device that torch does not know or this machine does not have.
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
            f'device {device!r} was asked for, but torch sees no CUDA device here: use "cpu" or "auto"'
        )
    return device


def resolve_dtype(dtype: str) -> torch.dtype:
    """The torch dtype for a config's `dtype`; UserError for any but float32, float16 and bfloat16."""
    known = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if dtype not in known:
        raise UserError(f"dtype {dtype!r} is unknown: expected one of {', '.join(known)}")
    return known[dtype]


def load_pipeline(
    name: str = EMBEDDED, *, device: str = "cpu", dtype: str = "float32"
) -> "DiffusionPipeline":
    """Load a text-to-image pipeline: "embedded", a diffusers folder, or a hub name.

    The safety checker, where a pipeline has one, is left out: it would see every private image, and a
    blanked picture is no measurement. Weights lie on cache lines, as those of a pipeline that was built or
    trained in the process do: the same weights then give the same images bit for bit.

    Raises UserError when there is no such folder and the hub has it not or is out of reach.
    """
    # the libraries advise on torchvision and on the tiny autoencoder at every load, the first at import
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
            f"model {name!r}: there is no such folder. Expected {EMBEDDED!r}, the path of a diffusers "
            'pipeline folder (with model_index.json), or a hub name such as "CompVis/stable-diffusion-v1-4"'
        )
    if Path(location).exists() and not (Path(location) / "model_index.json").is_file():
        raise UserError(f"model {name!r}: the folder has no model_index.json, so it is no diffusers pipeline")
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
    """SHA-256 over every weight of the pipeline: component, tensor name, shape, dtype and bytes.

    Two machines with the same fingerprint run the same base model. Take it before adapters are added.
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
