"""Small pipelines of families that came later: transformers with routed experts, few-step and inpainting ones."""

from typing import Any

import diffusers
import torch
from PIL import Image
from torch import nn

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


def _flow() -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**FLOW)


def _both(make: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two prompts, and with each the embeddings of the empty one for guidance."""
    first, second, empty = (make(seed) for seed in (1, 2, 9))
    negative = {f"negative_{name}": value for name, value in empty.items()}
    return first | negative, second | negative


def aura_flow() -> Family:
    transformer: Any = diffusers.AuraFlowTransformer2DModel(
        sample_size=8,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=WIDTH,
        caption_projection_dim=32,
        pos_embed_max_size=64,
    )
    pipe: Any = diffusers.AuraFlowPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=tiny._vae(4),
        transformer=transformer.eval(),
        scheduler=_flow(),
    )
    return by_embeddings(pipe, masked=torch.int64)


def kolors() -> Family:
    unet = tiny._unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="text_proj",
    )
    pipe: Any = diffusers.KolorsPipeline(
        vae=tiny._vae(4),
        text_encoder=None,
        tokenizer=None,
        unet=unet,
        scheduler=diffusers.EulerDiscreteScheduler(beta_schedule="scaled_linear"),
    )
    first, second = _both(
        lambda seed: {
            "prompt_embeds": embeddings(seed),
            "pooled_prompt_embeds": embeddings(seed, 1, WIDTH),
        }
    )
    return Family(pipe, first, second)


def sdxl_inpainting() -> Family:
    parts = tiny.tiny_pipeline("sdxl").components
    unet = tiny._unet(**{**_changed(parts["unet"]), "in_channels": 9})
    mask = Image.new("L", (16, 16))
    mask.paste(255, (4, 4, 12, 16))
    pipe = diffusers.StableDiffusionXLInpaintPipeline(**{**parts, "unet": unet}, add_watermarker=False)
    # without all of its noise, a picture takes fewer steps than were asked for
    return prompted(pipe, {"image": picture(1), "mask_image": mask}, arguments={"strength": 1.0})


def _changed(network: Any) -> dict[str, Any]:
    return {name: value for name, value in network.config.items() if not name.startswith("_")}


def sana() -> Family:
    pipe: Any = diffusers.SanaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=_deep_compression(),
        transformer=_sana_transformer(),
        scheduler=diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    )
    # its size is that of a bin
    return by_embeddings(pipe, masked=torch.int64, side=992)


def sana_sprint() -> Family:
    pipe: Any = diffusers.SanaSprintPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=_deep_compression(),
        transformer=_sana_transformer(guidance_embeds=True, qk_norm="rms_norm_across_heads"),
        scheduler=diffusers.SCMScheduler(prediction_type="trigflow", sigma_data=0.5),
    )
    first, second = (
        {
            "prompt_embeds": embeddings(seed),
            "prompt_attention_mask": torch.ones(1, WORDS, dtype=torch.int64),
        }
        for seed in (1, 2)
    )
    return Family(pipe, first, second, side=1024, arguments={"intermediate_timesteps": None})


def _deep_compression() -> Any:
    vae: Any = diffusers.AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_out_channels=(4,) * 6,
        decoder_block_out_channels=(4,) * 6,
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        encoder_qkv_multiscales=((),) * 6,
        decoder_qkv_multiscales=((),) * 6,
        encoder_block_types="ResBlock",
        decoder_block_types="ResBlock",
        upsample_block_type="interpolate",
        downsample_block_type="stride_conv",
        encoder_out_shortcut=False,
        decoder_in_shortcut=False,
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.5,
    )
    return vae.eval()


def _sana_transformer(**options: Any) -> Any:
    transformer: Any = diffusers.SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=WIDTH,
        sample_size=32,
        **options,
    )
    tiny._scale(transformer, "proj_out", 5.0)
    return transformer.eval()


def kandinsky5() -> Family:
    transformer: Any = diffusers.Kandinsky5Transformer3DModel(
        in_text_dim=WIDTH,
        in_text_dim2=8,
        time_dim=16,
        model_dim=32,
        ff_dim=32,
        num_text_blocks=1,
        num_visual_blocks=1,
        axes_dims=(4, 6, 6),
    )
    for name, parameter in transformer.named_parameters():
        if "modulation" in name or name.startswith("out_layer.out_layer"):
            nn.init.normal_(parameter, std=0.3)  # they start at zero, where no prompt matters
    pipe: Any = diffusers.Kandinsky5T2IPipeline(
        transformer=transformer.eval(),
        vae=eighth_vae(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        scheduler=_flow(),
    )
    first, second = _both(
        lambda seed: {
            "prompt_embeds_qwen": embeddings(seed),
            "prompt_embeds_clip": embeddings(seed, 1, 8),
            "prompt_cu_seqlens": torch.tensor([0, WORDS], dtype=torch.int32),
        }
    )
    # it draws in sizes of a list of its own, whatever is asked for
    pipe.resolutions = [(64, 64)]
    return Family(pipe, first, second, side=64, half=False)


def hidream() -> Family:
    transformer: Any = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        caption_channels=[WIDTH, 16],
        text_emb_dim=8,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(4, 2, 2),
        max_resolution=(32, 32),
        llama_layers=[0, 1],
    )
    pipe: Any = diffusers.HiDreamImagePipeline(
        scheduler=_flow(),
        vae=tiny._vae(4),
        transformer=transformer.eval(),
        **{
            f"{part}{number}": None
            for part in ("text_encoder", "tokenizer")
            for number in ("", "_2", "_3", "_4")
        },
    )
    first, second = _both(
        lambda seed: {
            "prompt_embeds_t5": embeddings(seed),
            "prompt_embeds_llama3": embeddings(seed, 2, 1, WORDS, 16),
            "pooled_prompt_embeds": embeddings(seed, 1, 8),
        }
    )
    return Family(pipe, first, second, side=32)


def hunyuan_image(**parts: Any) -> Family:
    """The distilled model, which has no guidance of its own; `parts` can have a `guider`."""
    transformer: Any = diffusers.HunyuanImageTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        guidance_embeds=not parts,
        text_embed_dim=WIDTH,
        text_embed_2_dim=16,
        rope_axes_dim=(4, 4),
    )
    vae: Any = diffusers.AutoencoderKLHunyuanImage(
        in_channels=3,
        out_channels=3,
        latent_channels=4,
        block_out_channels=(32, 32, 32, 32),
        layers_per_block=1,
        spatial_compression_ratio=8,
        sample_size=64,
        scaling_factor=0.5,
    )
    pipe: Any = diffusers.HunyuanImagePipeline(
        scheduler=_flow(),
        vae=vae.eval(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=transformer.eval(),
        **parts,
    )
    first, second = _both(
        lambda seed: {
            "prompt_embeds": embeddings(seed),
            "prompt_embeds_mask": torch.ones(1, WORDS, dtype=torch.int64),
            "prompt_embeds_2": embeddings(seed, 1, WORDS, 16),
            "prompt_embeds_mask_2": torch.ones(1, WORDS, dtype=torch.int64),
        }
    )
    return Family(pipe, first, second, side=64)


FURTHER_FAMILIES = (
    aura_flow,
    kolors,
    sdxl_inpainting,
    sana,
    sana_sprint,
    kandinsky5,
    hidream,
    hunyuan_image,
)
