"""Small pipelines of further families, with random weights.

Most have no text encoder: their prompts are embeddings.
"""

from typing import Any

import diffusers
import torch
from PIL import Image

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


def lcm() -> Family:
    pipe: Any = tiny.tiny_pipeline("sd1")
    unet = tiny._unet(time_cond_proj_dim=8)
    scheduler = diffusers.LCMScheduler(beta_schedule="scaled_linear", clip_sample=False)
    parts = pipe.components | {"unet": unet, "scheduler": scheduler}
    return prompted(diffusers.LatentConsistencyModelPipeline(**parts, requires_safety_checker=False))


def inpainting() -> Family:
    pipe: Any = tiny.tiny_pipeline("sd1")
    parts = pipe.components | {"unet": tiny._unet(in_channels=9)}
    mask = Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 12, 16))
    return prompted(
        diffusers.StableDiffusionInpaintPipeline(**parts, requires_safety_checker=False),
        {"image": picture(1), "mask_image": mask},
    )


def inpainting_by_blending() -> Family:
    family, pipe = inpainting(), tiny.tiny_pipeline("sd1")
    family.pipe.register_modules(unet=pipe.unet)
    return family


def controlnet() -> Family:
    pipe: Any = tiny.tiny_pipeline("sd1")
    control: Any = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8))
    torch.nn.init.normal_(control.controlnet_mid_block.weight)
    return prompted(
        diffusers.StableDiffusionControlNetPipeline(
            **pipe.components, controlnet=control.eval(), requires_safety_checker=False
        ),
        {"image": picture(1, 32), "control_guidance_end": 0.6},
        side=32,
    )


def perturbed_attention() -> Family:
    pipe: Any = tiny.tiny_pipeline("sd1")
    return prompted(
        diffusers.StableDiffusionPAGPipeline(
            **pipe.components, pag_applied_layers="mid", requires_safety_checker=False
        ),
        {"pag_scale": 2.0},
    )


def pixart_binned() -> Family:
    transformer: Any = diffusers.PixArtTransformer2DModel(
        sample_size=32,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=WIDTH,
        cross_attention_dim=32,
        out_channels=8,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
    )
    tiny._scale(transformer, "proj_out", 5.0)
    pipe: Any = diffusers.PixArtAlphaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=eighth_vae(),
        transformer=transformer.eval(),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )
    return by_embeddings(pipe, masked=torch.int64, side=250)


def lumina2() -> Family:
    transformer: Any = diffusers.Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=1,
        num_refiner_layers=1,
        num_attention_heads=1,
        num_kv_heads=1,
        multiple_of=16,
        axes_dim_rope=(8, 4, 4),
        cap_feat_dim=WIDTH,
    )
    pipe: Any = diffusers.Lumina2Pipeline(
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW),
        vae=tiny._vae(4),
        text_encoder=None,
        tokenizer=None,
    )
    # guidance until half of the steps: the pipeline counts them
    return by_embeddings(pipe, masked=torch.bool, side=32, arguments={"cfg_trunc_ratio": 0.5})


def flux2_klein() -> Family:
    transformer: Any = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    vae: Any = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    pipe: Any = diffusers.Flux2KleinPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW),
        vae=vae.eval(),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
    )
    return by_embeddings(pipe)


def qwen_image() -> Family:
    transformer: Any = diffusers.QwenImageTransformer2DModel(
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    vae: Any = diffusers.AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2, 4],
        num_res_blocks=1,
        temperal_downsample=[False, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    pipe: Any = diffusers.QwenImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
    )
    family = by_embeddings(pipe, masked=torch.int64, side=32, arguments={"true_cfg_scale": 3.0})
    for prompt in (family.prompt, family.other):
        for key in ("prompt", "negative_prompt"):
            prompt[f"{key}_embeds_mask"] = prompt.pop(f"{key}_attention_mask")
    return family


def z_image() -> Family:
    transformer: Any = diffusers.ZImageTransformer2DModel(
        in_channels=4,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=WIDTH,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    for token in (transformer.x_pad_token, transformer.cap_pad_token):
        torch.nn.init.ones_(token)
    pipe: Any = diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(**FLOW),
        vae=tiny._vae(4),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
    )
    first, second = (
        {
            "prompt_embeds": [embeddings(n, WORDS, WIDTH)],
            "negative_prompt_embeds": [embeddings(9, WORDS, WIDTH)],
        }
        for n in (1, 2)
    )
    return Family(pipe, first, second, side=32)


def cogview4() -> Family:
    transformer: Any = diffusers.CogView4Transformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
    )
    pipe: Any = diffusers.CogView4Pipeline(
        tokenizer=None,
        text_encoder=None,
        vae=eighth_vae(),
        transformer=transformer.eval(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True, time_shift_type="linear"
        ),
    )
    return by_embeddings(pipe, side=64)


def wan() -> Family:
    transformer: Any = diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=16,
        out_channels=16,
        text_dim=WIDTH,
        freq_dim=64,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
    )
    vae: Any = diffusers.AutoencoderKLWan(
        base_dim=3,
        z_dim=16,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
    )
    pipe: Any = diffusers.WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=vae.eval(),
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=transformer.eval(),
    )
    return by_embeddings(pipe, side=16, arguments={"num_frames": 5})


FIRST_FAMILIES = (
    lcm,
    inpainting,
    inpainting_by_blending,
    controlnet,
    perturbed_attention,
    pixart_binned,
    lumina2,
    flux2_klein,
    qwen_image,
    z_image,
    cogview4,
    wan,
)
