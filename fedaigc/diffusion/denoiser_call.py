"""Call a denoiser for training: Stable Diffusion 1 and 2, SDXL, SD3, FLUX, and others by their pipeline's call."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.training_call import predict_by_call, trains_by_call
from fedaigc.errors import UserError


def predict(
    pipe: Pipeline,
    noisy: Float[Tensor, "b c h w"],
    timesteps: Float[Tensor, " b"],
    text: Mapping[str, Tensor],
) -> Float[Tensor, "b c h w"]:
    """Return the denoiser's prediction for noisy latents.

    Args:
        pipe: The pipeline whose denoiser is called.
        noisy: Noisy latents of shape [b, c, h, w].
        timesteps: Training timesteps of shape [b], from 0 to 999. For flow models, 1000 sigma.
        text: Text embeddings of b rows, as in `EncodedImages.text`.

    Raises:
        UserError: If this module does not know how to call the pipeline's denoiser, or if it also predicts a
            variance. Such a pipeline can sample but not train.
    """
    if trains_by_call(pipe):
        return predict_by_call(pipe, noisy, timesteps, text)
    answer = _answer(pipe, noisy, timesteps, text)
    if answer.shape != noisy.shape:
        raise UserError(
            f"the denoiser of {type(pipe).__name__} answers {tuple(answer.shape)} for latents {tuple(noisy.shape)}: "
            "a model that also predicts a variance, or takes other inputs, can sample but not train here"
        )
    return answer


def _answer(pipe: Pipeline, noisy: Tensor, timesteps: Tensor, text: Mapping[str, Tensor]) -> Tensor:
    embeds = text["prompt_embeds"]
    pooled = text.get("pooled_prompt_embeds")
    if getattr(pipe, "unet", None) is not None:
        _check_unet(pipe, noisy, pooled)
        added: dict[str, Tensor] = {}
        if pooled is not None:
            height, width = (side * pipe.vae_scale_factor for side in noisy.shape[-2:])
            # SDXL expects original size, crop offset and target size
            sizes = torch.tensor(
                [[height, width, 0, 0, height, width]], dtype=embeds.dtype, device=embeds.device
            )
            added = {"text_embeds": pooled, "time_ids": sizes.expand(len(noisy), -1)}
        return pipe.unet(noisy, timesteps, encoder_hidden_states=embeds, added_cond_kwargs=added).sample
    name = type(pipe.transformer).__name__
    if name == "SD3Transformer2DModel":
        return pipe.transformer(
            hidden_states=noisy, timestep=timesteps, encoder_hidden_states=embeds, pooled_projections=pooled
        ).sample
    return _predict_flux(pipe, noisy, timesteps, embeds, pooled)


def _check_unet(pipe: Pipeline, noisy: Tensor, pooled: Tensor | None) -> None:
    """Refuse a unet that takes more than noisy latents, timesteps and text."""
    config = pipe.unet.config
    lacks = {
        f"inputs of {config.in_channels} channels (latents have {noisy.shape[1]})": config.in_channels
        != noisy.shape[1],
        "an embedding of the guidance scale (time_cond_proj_dim)": config.time_cond_proj_dim is not None,
        f"further conditions (addition_embed_type {config.addition_embed_type!r})": config.addition_embed_type
        not in ((None,) if pooled is None else ("text_time",)),
        "class labels (class_embed_type)": config.class_embed_type is not None
        or config.num_class_embeds is not None,
    }
    for what, lacking in lacks.items():
        if lacking:
            raise UserError(
                f"the unet of {type(pipe).__name__} needs {what}: such a model can sample but not train here"
            )


def _predict_flux(
    pipe: Any, noisy: Tensor, timesteps: Tensor, embeds: Tensor, pooled: Tensor | None
) -> Float[Tensor, "b c h w"]:
    """Call FLUX, which takes 2x2 patches as tokens with ids, and sigma instead of 1000 sigma."""
    batch, channels, height, width = noisy.shape
    if pipe.transformer.config.in_channels != 4 * channels:
        raise UserError(
            f"the transformer of {type(pipe).__name__} takes {pipe.transformer.config.in_channels} channels, and its "
            f"latents have {4 * channels}: such a model can sample but not train here"
        )
    image_ids = pipe._prepare_latent_image_ids(batch, height // 2, width // 2, noisy.device, noisy.dtype)
    guidance = noisy.new_full((batch,), 1.0) if pipe.transformer.config.guidance_embeds else None
    packed = pipe.transformer(
        hidden_states=pipe._pack_latents(noisy, batch, channels, height, width),
        timestep=timesteps / 1000,
        guidance=guidance,
        pooled_projections=pooled,
        encoder_hidden_states=embeds,
        txt_ids=torch.zeros(embeds.shape[1], 3, device=noisy.device, dtype=noisy.dtype),
        img_ids=image_ids,
    ).sample
    patches = packed.view(batch, height // 2, width // 2, channels, 2, 2)
    return patches.permute(0, 3, 1, 4, 2, 5).reshape(batch, channels, height, width)
