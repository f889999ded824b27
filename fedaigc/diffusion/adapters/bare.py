"""Whether adapters are installed in a pipeline: the weights of one without any are a base model."""

from fedaigc.diffusion.adapters.stages import has_residuals
from fedaigc.diffusion.loading import base_fingerprint
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, denoiser
from fedaigc.errors import UserError


def installed_adapters(pipe: Pipeline) -> list[str]:
    """Return the names of the LoRA adapters of a pipeline, sorted."""
    return sorted(getattr(denoiser(pipe), "peft_config", None) or {})


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
