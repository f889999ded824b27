"""The size of the images that a model was made for, read from its configuration files before it is loaded."""

import inspect
import json
import re
from pathlib import Path
from typing import Any

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def model_size(name: str) -> tuple[int, int] | None:
    """Return height and width in pixels of the images that a diffusers pipeline draws by default.

    The denoiser's `sample_size`, or the default of the pipeline's class, times the scale of the autoencoder.

    Args:
        name: A diffusers folder, or a hub name.

    Returns:
        The size, or None if the files cannot be read or do not say it. Loading the model then says why.
    """
    try:
        index = read_part(name, "model_index.json")
        part = "unet" if "unet" in index else "transformer"
        sample = read_part(name, f"{part}/config.json").get("sample_size") or _class_default(
            index["_class_name"]
        )
        vae = read_part(name, "vae/config.json")
        blocks = vae.get("block_out_channels") or vae["encoder_block_out_channels"]
        factor = 2 ** (len(blocks) - 1)
        height, width = sample if isinstance(sample, list | tuple) else (sample, sample)
        return int(height) * factor, int(width) * factor
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _class_default(name: str) -> int:
    """Return the sample size that a pipeline class sets itself, where its denoiser has none (FLUX)."""
    import diffusers

    source = inspect.getsource(getattr(diffusers, name).__init__)
    found = re.search(r"default_sample_size = (\d+)", source)
    if found is None:
        raise ValueError(f"{name} sets no default_sample_size")
    return int(found[1])


def read_part(name: str, file: str) -> dict[str, Any]:
    """Return a JSON file of a diffusers folder or of a hub name; OSError or ValueError if it cannot be read."""
    path = Path(name) / file
    if not Path(name).exists() and _HUB_NAME.fullmatch(name):
        from huggingface_hub import hf_hub_download

        path = Path(hf_hub_download(name, file))
    found = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds no JSON object")
    return found
