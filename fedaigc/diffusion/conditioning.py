"""The conditioning of a prompt as tensors, with which a pipeline runs in place of the prompt itself.

Only for pipelines that take nothing of a prompt but embeddings of one size: Stable Diffusion 1 and 2, SDXL, SD3 and
FLUX. Others also take masks, lengths or lists, of which there is no mean. With guidance, the negative embeddings are
still the pipeline's own, of the plan's negative prompt.
"""

import hashlib
import inspect
import json
from collections.abc import Mapping

import torch
from torch import Tensor

from fedaigc.diffusion.encoding import encode_text
from fedaigc.diffusion.sampling.first_answer import first_answer
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, execution_device
from fedaigc.diffusion.sampling.segment import initial_state
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError

_TRANSFORMERS = ("SD3Transformer2DModel", "FluxTransformer2DModel")
# pipelines that hand the words of a prompt to their tokenizers as they are
_PLAIN = ("StableDiffusion", "Flux")
# two answers to the same input differ by rounding on some accelerators
_TOLERANCE = 1e-3


def prompt_conditioning(pipe: Pipeline, prompt: str) -> dict[str, Tensor]:
    """Return the conditioning of one prompt, on the CPU in the dtype of the text encoder.

    Raises:
        UserError: If a prompt of this pipeline is more than embeddings of one size.
    """
    known = inspect.signature(type(pipe).__call__).parameters
    transformer = getattr(pipe, "transformer", None)
    fixed = getattr(pipe, "unet", None) is not None or type(transformer).__name__ in _TRANSFORMERS
    if not (fixed and hasattr(pipe, "encode_prompt") and "prompt_embeds" in known):
        raise _refused(pipe)
    found = encode_text(pipe, [prompt])
    if not found.keys() <= known.keys() or not all(tensor.is_floating_point() for tensor in found.values()):
        raise _refused(pipe)
    return found


def prompt_digest(pipe: Pipeline, prompt: str) -> bytes:
    """Return a SHA-256 of what a pipeline reads of a prompt; prompts with the same one have the same conditioning.

    Stable Diffusion and FLUX read the tokens of their tokenizers, without most differences of blanks and, for CLIP,
    capitals. Of other pipelines the words themselves count.
    """
    from transformers import PreTrainedTokenizerBase

    found = [getattr(pipe, name, None) for name in ("tokenizer", "tokenizer_2", "tokenizer_3")]
    given = [each for each in found if each is not None]
    read: list[object] = [prompt]
    # a later FLUX has a processor of chats in place of a tokenizer
    if (
        type(pipe).__name__.startswith(_PLAIN)
        and given
        and all(isinstance(each, PreTrainedTokenizerBase) for each in given)
    ):
        read = [each(prompt, truncation=False, verbose=False).input_ids for each in given]
    return hashlib.sha256(json.dumps([type(pipe).__name__, read]).encode()).digest()


def check_conditioning(pipe: Pipeline, plan: DenoisingPlan, prompt: str) -> None:
    """Check that a pipeline computes the same from a prompt and from its conditioning, by the first step of each.

    Raises:
        UserError: If it does not, or as `prompt_conditioning`.
    """
    state = initial_state(pipe, plan, 0)
    conditioning = placed(pipe, prompt_conditioning(pipe, prompt))
    one = first_answer(pipe, state, {"prompt": prompt}, plan)
    other = first_answer(pipe, state, conditioning, plan)
    if float((one - other).norm()) > _TOLERANCE * float(one.norm()):
        raise UserError(
            f"{type(pipe).__name__} computes something else from the embeddings of a prompt than from the prompt: use "
            'generation.denoiser.conditioning = "public"'
        )


def placed(pipe: Pipeline, conditioning: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a conditioning for a call of the pipeline: on its device, in the dtype of its own embeddings.

    Raises:
        UserError: If its tensors have other names or shapes than the pipeline's own, or are not finite.
    """
    own = prompt_conditioning(pipe, "")
    shapes = [{name: tuple(t.shape) for name, t in each.items()} for each in (conditioning, own)]
    if shapes[0] != shapes[1]:
        raise UserError(f"a conditioning of the form {shapes[0]}: {type(pipe).__name__} takes {shapes[1]}")
    found = {
        name: tensor.to(execution_device(pipe), own[name].dtype) for name, tensor in conditioning.items()
    }
    if not all(bool(torch.isfinite(tensor).all()) for tensor in found.values()):
        raise UserError(f"a conditioning holds values that are not finite in {own['prompt_embeds'].dtype}")
    return found


def _refused(pipe: Pipeline) -> UserError:
    return UserError(
        f"{type(pipe).__name__} takes more of a prompt than embeddings of one size, so a group has no mean: use "
        'generation.denoiser.conditioning = "public"'
    )
