"""Whether adapters are installed in a pipeline: the weights of one without any are a base model."""

from typing import Any

from fedaigc.diffusion.adapters.stages import Stage, has_residuals, remove
from fedaigc.diffusion.loading import base_fingerprint
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, denoiser
from fedaigc.errors import UserError


def installed_adapters(pipe: Pipeline) -> list[str]:
    """Return the names of the LoRA adapters of a pipeline, sorted."""
    return sorted(getattr(denoiser(pipe), "peft_config", None) or {})


def make_bare(pipe: Pipeline) -> None:
    """Take the shared and the personal adapter out of a pipeline; its weights are then those that it came with."""
    for stage in (Stage.SHARED, Stage.PERSONAL):
        remove(pipe, stage)
    network: Any = denoiser(pipe)
    if not installed_adapters(pipe) and hasattr(network, "unload_lora"):
        # without adapters peft still wraps the layers, whose weights then have other names
        network.unload_lora()


def check_bare(pipe: Pipeline) -> None:
    """Raise UserError if adapters are installed in a pipeline."""
    names = installed_adapters(pipe)
    wrapped = any(".base_layer." in name for name in denoiser(pipe).state_dict())
    if names or wrapped or has_residuals(pipe):
        found = ", ".join(names) or "their layers"
        raise UserError(
            f"adapters are installed in this pipeline ({found}): load it anew, or take out "
            "those of fedaigc with `fa.remove(pipe)`"
        )


def bare_fingerprint(pipe: Pipeline) -> str:
    """Return `base_fingerprint` of a pipeline; UserError if adapters are installed in it."""
    check_bare(pipe)
    return base_fingerprint(pipe)
