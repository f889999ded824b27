"""Small pipelines of classes of `AutoPipelineForText2Image` with calls of their own."""

from dataclasses import replace
from typing import Any

import diffusers
import torch
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from tests.diffusion import tiny_pipelines as tiny
from tests.diffusion.families.family import (
    FLOW,
    WIDTH,
    WORDS,
    Family,
    by_embeddings,
    eighth_vae,
    embeddings,
    picture,
    prompted,
)
from tests.diffusion.families.small_families import qwen_image, z_image


def _flow(**options: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**FLOW | options)


def nucleus() -> Family:
    family = qwen_image()
    transformer: Any = diffusers.NucleusMoEImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
        num_experts=2,
        moe_intermediate_dim=16,
        capacity_factors=1.0,
        dense_moe_strategy="leave_first_block_dense",
    )
    for parameter in transformer.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    pipe: Any = diffusers.NucleusMoEImagePipeline(
        transformer=transformer.eval(),
        scheduler=_flow(use_dynamic_shifting=True),
        vae=family.pipe.vae,
        text_encoder=None,
        processor=None,
    )
    return replace(family, pipe=pipe, arguments={})


def qwen_image_edit() -> Family:
    """It brings its picture to a million pixels, so its autoencoder is one of a 32nd of the size."""
    family = qwen_image()
    vae: Any = diffusers.AutoencoderKLQwenImage(
        base_dim=2,
        z_dim=4,
        dim_mult=[1] * 6,
        num_res_blocks=1,
        temperal_downsample=[False] * 5,
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    parts = {**family.pipe.components, "vae": vae.eval(), "processor": None}
    for prompt in (family.prompt, family.other):
        prompt["image"] = picture(1, 32)
    return replace(family, pipe=diffusers.QwenImageEditPipeline(**parts), side=128)


def glm_image() -> Family:
    transformer: Any = diffusers.GlmImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
        prior_vq_quantizer_codebook_size=16,
    )
    vae = eighth_vae()
    vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[1.0] * 4)
    pipe: Any = diffusers.GlmImagePipeline(
        tokenizer=None,
        processor=None,
        text_encoder=None,
        vision_language_encoder=None,
        vae=vae,
        transformer=transformer.eval(),
        scheduler=_flow(),
    )
    family = by_embeddings(pipe, side=64)
    # the tokens that its language model writes before the steps, one for each patch
    for number, prompt in enumerate((family.prompt, family.other)):
        generator = torch.Generator().manual_seed(number)
        prompt["prior_token_ids"] = torch.randint(16, (1, 16), generator=generator)
    return family


def z_image_omni() -> Family:
    """Without pictures it draws from text."""
    family = z_image()
    known = {
        name: value for name, value in family.pipe.transformer.config.items() if not name.startswith("_")
    }
    transformer: Any = diffusers.ZImageTransformer2DModel(**known | {"siglip_feat_dim": 8})
    for name, token in transformer.named_parameters():
        if name.endswith("pad_token"):
            nn.init.ones_(token)
    parts = {
        **family.pipe.components,
        "transformer": transformer.eval(),
        "siglip": None,
        "siglip_processor": None,
    }
    for prompt in (family.prompt, family.other):
        for name in ("prompt_embeds", "negative_prompt_embeds"):
            # a list of pieces, between which pictures would stand
            prompt[name] = [[each] for each in prompt[name]]
    return replace(family, pipe=diffusers.ZImageOmniPipeline(**parts))


def kandinsky3() -> Family:
    unet: Any = diffusers.Kandinsky3UNet(
        time_embedding_dim=16,
        groups=2,
        attention_head_dim=4,
        layers_per_block=3,
        block_out_channels=(8, 16),
        cross_attention_dim=WIDTH,
        encoder_hid_dim=WIDTH,
    )
    tiny._scale(unet, "conv_out", 3.0)
    movq: Any = diffusers.VQModel(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_type="spatial",
        vq_embed_dim=4,
        num_vq_embeddings=8,
    )
    pipe: Any = diffusers.Kandinsky3Pipeline(
        tokenizer=None,
        text_encoder=None,
        unet=unet.eval(),
        scheduler=diffusers.DDPMScheduler(),
        movq=movq.eval(),
    )
    mask = torch.ones(1, WORDS, dtype=torch.int64)
    first, second = (
        {
            "prompt_embeds": embeddings(seed),
            "negative_prompt_embeds": embeddings(9),
            "attention_mask": mask,
            "negative_attention_mask": mask,
        }
        for seed in (1, 2)
    )
    return Family(pipe, first, second, side=64)


def deep_floyd() -> Family:
    """Its latents are pixels."""
    unet = tiny._unet(in_channels=3, out_channels=6)
    pipe: Any = diffusers.IFPipeline(
        tokenizer=None,
        text_encoder=None,
        unet=unet,
        scheduler=diffusers.DDPMScheduler(variance_type="learned_range"),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )
    first, second = (
        {"prompt_embeds": embeddings(seed), "negative_prompt_embeds": embeddings(9)} for seed in (1, 2)
    )
    return Family(pipe, first, second, side=8)


def kandinsky22() -> Family:
    """A prior draws the embedding of a picture before the steps."""
    unet: Any = diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        out_channels=8,
        addition_embed_type="image",
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="image_proj",
        resnet_time_scale_shift="scale_shift",
    )
    prior: Any = diffusers.PriorTransformer(
        num_attention_heads=2, attention_head_dim=8, num_layers=1, embedding_dim=WIDTH, num_embeddings=24
    )
    nn.init.ones_(prior.clip_std)
    for network, names in (
        (prior, ("proj_to_clip",)),
        (unet, ("encoder_hid_proj", "add_embedding", "conv_out")),
    ):
        for name in names:
            tiny._scale(network, name, 10.0)
    config = CLIPVisionConfig(
        hidden_size=WIDTH,
        image_size=32,
        projection_dim=WIDTH,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        patch_size=16,
    )
    pipe: Any = diffusers.KandinskyV22CombinedPipeline(
        unet=unet.eval(),
        scheduler=diffusers.DDIMScheduler(),
        movq=kandinsky3().pipe.movq,
        prior_prior=prior.eval(),
        prior_image_encoder=CLIPVisionModelWithProjection(config).eval(),
        prior_text_encoder=tiny._clip(CLIPTextModelWithProjection),
        prior_tokenizer=tiny.clip_tokenizer(),
        prior_scheduler=diffusers.UnCLIPScheduler(
            variance_type="fixed_small_log",
            prediction_type="sample",
            num_train_timesteps=1000,
            clip_sample_range=5.0,
        ),
        prior_image_processor=None,
    )
    return prompted(pipe, side=64)


def latent_diffusion() -> Family:
    """It knows no latents as its output, and pads its prompts to 77 tokens."""
    words = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tiny.clip_tokenizer()),
            hidden_size=WIDTH,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=77,
        )
    )
    embedding: Any = words.get_input_embeddings()
    nn.init.normal_(embedding.weight, std=1.0)
    pipe: Any = diffusers.LDMTextToImagePipeline(
        vqvae=eighth_vae(),
        bert=words.eval(),
        tokenizer=tiny.clip_tokenizer(),
        unet=tiny._unet(cross_attention_dim=WIDTH),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )
    # NumPy, by which it makes pictures, has no bfloat16
    return prompted(pipe, side=64, half=False)


OWN_CALL_FAMILIES = (
    nucleus,
    glm_image,
    z_image_omni,
    kandinsky3,
    deep_floyd,
    kandinsky22,
    qwen_image_edit,
    latent_diffusion,
)
