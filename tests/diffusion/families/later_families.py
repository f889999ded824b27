"""Small pipelines of families that came last: packed transformers without pooled text, and Qwen-Image 2.1."""

from typing import Any

import diffusers
import torch

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


def chroma() -> Family:
    transformer: Any = diffusers.ChromaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
        approximator_num_channels=8,
        approximator_hidden_dim=16,
        approximator_layers=1,
    )
    pipe: Any = diffusers.ChromaPipeline(
        scheduler=_flow(), vae=tiny._vae(4), text_encoder=None, tokenizer=None, transformer=transformer.eval()
    )
    return by_embeddings(pipe, masked=torch.bool)


def bria() -> Family:
    transformer: Any = diffusers.BriaTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=[8, 4, 4],
    )
    pipe: Any = diffusers.BriaPipeline(
        scheduler=_flow(), vae=eighth_vae(), text_encoder=None, tokenizer=None, transformer=transformer.eval()
    )
    return by_embeddings(pipe, side=64)


def flux2() -> Family:
    transformer: Any = diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(4, 4, 4, 4),
        timestep_guidance_channels=16,
    )
    vae: Any = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
    )
    pipe: Any = diffusers.Flux2Pipeline(
        scheduler=_flow(), vae=vae.eval(), text_encoder=None, tokenizer=None, transformer=transformer.eval()
    )
    first, second = ({"prompt_embeds": embeddings(seed)} for seed in (1, 2))
    return Family(pipe, first, second)


def hunyuan_dit() -> Family:
    transformer: Any = diffusers.HunyuanDiT2DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        patch_size=2,
        sample_size=8,
        hidden_size=32,
        num_layers=2,
        cross_attention_dim=WIDTH,
        cross_attention_dim_t5=16,
        pooled_projection_dim=16,
        text_len=WORDS,
        text_len_t5=WORDS,
    )
    pipe: Any = diffusers.HunyuanDiTPipeline(
        vae=eighth_vae(),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
        scheduler=diffusers.DDPMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )

    def of(seed: int) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for sign, number in (("", seed), ("negative_", 9)):
            found[f"{sign}prompt_embeds"] = embeddings(number)
            found[f"{sign}prompt_embeds_2"] = embeddings(number, 1, WORDS, 16)
            found[f"{sign}prompt_attention_mask"] = torch.ones(1, WORDS, dtype=torch.int64)
            found[f"{sign}prompt_attention_mask_2"] = torch.ones(1, WORDS, dtype=torch.int64)
        return found

    return Family(pipe, of(1), of(2), side=64, arguments={"use_resolution_binning": False})


class Processor:
    """Stands for the tokenizer, which the pipeline asks for the length of its system prompt and for a token."""

    @property
    def tokenizer(self) -> "Processor":
        return self

    def apply_chat_template(self, *_: Any, **options: Any) -> list[list[int]]:
        return [[0, 1]]

    def encode(self, text: str) -> list[int]:
        return [3]


def qwen_image_21() -> Family:
    transformer: Any = diffusers.QwenImage21Transformer2DModel(
        in_channels=8,
        out_channels=8,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        context_in_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    vae: Any = diffusers.AutoencoderKLQwenImage21(
        base_dim=8,
        decoder_base_dim=8,
        z_dim=8,
        dim_mult=[1, 1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.0] * 8,
        latents_std=[1.0] * 8,
    )
    pipe: Any = diffusers.QwenImage21Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=vae.eval(),
        text_encoder=None,
        processor=Processor(),
        transformer=transformer.eval(),
    )

    def of(seed: int) -> dict[str, Any]:
        mask = torch.ones(1, WORDS, dtype=torch.int64)
        names = {"": seed, "negative_": 9}
        found: dict[str, Any] = {f"{sign}prompt_embeds": embeddings(number) for sign, number in names.items()}
        return found | {f"{sign}prompt_embeds_mask": mask for sign in names}

    return Family(pipe, of(1), of(2), side=64, arguments={"true_cfg_scale": 3.0})


def sdxl_controlnet() -> Family:
    pipe: Any = tiny.tiny_pipeline("sdxl")
    control: Any = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8))
    torch.nn.init.normal_(control.controlnet_mid_block.weight)
    return prompted(
        diffusers.StableDiffusionXLControlNetPipeline(
            **pipe.components, controlnet=control.eval(), add_watermarker=False
        ),
        {"image": picture(1, 32)},
        side=32,
    )


def flux_control() -> Family:
    """A model that takes its control image as further channels."""
    pipe: Any = tiny.tiny_pipeline("flux")
    config = {name: value for name, value in pipe.transformer.config.items() if not name.startswith("_")}
    transformer: Any = diffusers.FluxTransformer2DModel(**config | {"in_channels": 32, "out_channels": 16})
    tiny._scale(transformer, "proj_out", 5.0)
    tiny._scale(transformer, "context_embedder", 5.0)
    parts = {
        name: part for name, part in pipe.components.items() if "image" not in name and "feature" not in name
    }
    return prompted(
        diffusers.FluxControlPipeline(**parts | {"transformer": transformer.eval()}),
        {"control_image": picture(1, 32)},
        side=32,
    )


def flux_controlnet() -> Family:
    pipe: Any = tiny.tiny_pipeline("flux")
    control: Any = diffusers.FluxControlNetModel.from_transformer(
        pipe.transformer, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2
    )
    for block in (*control.controlnet_blocks, *control.controlnet_single_blocks):
        torch.nn.init.normal_(block.weight)
    parts = {
        name: part for name, part in pipe.components.items() if "image" not in name and "feature" not in name
    }
    return prompted(
        diffusers.FluxControlNetPipeline(**parts, controlnet=control.eval()),
        {"control_image": picture(1, 32)},
        side=32,
    )


def ltx() -> Family:
    transformer: Any = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=WIDTH,
    )
    tiny._scale(transformer, "proj_out", 5.0)
    vae: Any = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
    )
    pipe: Any = diffusers.LTXPipeline(
        scheduler=_flow(), vae=vae.eval(), text_encoder=None, tokenizer=None, transformer=transformer.eval()
    )
    return by_embeddings(pipe, masked=torch.int64, side=64, arguments={"num_frames": 9})


def pixart_sigma() -> Family:
    transformer: Any = diffusers.PixArtTransformer2DModel(
        sample_size=8,
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
    pipe: Any = diffusers.PixArtSigmaPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=eighth_vae(),
        transformer=transformer.eval(),
        scheduler=diffusers.DPMSolverMultistepScheduler(),
    )
    return by_embeddings(pipe, masked=torch.int64, side=64, arguments={"use_resolution_binning": False})


def sdxl_perturbed() -> Family:
    pipe: Any = tiny.tiny_pipeline("sdxl")
    return prompted(
        diffusers.StableDiffusionXLPAGPipeline(
            **pipe.components, pag_applied_layers="mid", add_watermarker=False
        ),
        {"pag_scale": 2.0},
    )


def sd3_perturbed() -> Family:
    pipe: Any = tiny.tiny_pipeline("sd3")
    parts = {
        name: part for name, part in pipe.components.items() if "image" not in name and "feature" not in name
    }
    return prompted(
        diffusers.StableDiffusion3PAGPipeline(**parts, pag_applied_layers=["blocks.0"]), {"pag_scale": 2.0}
    )


LATER_FAMILIES = (
    chroma,
    bria,
    flux2,
    hunyuan_dit,
    qwen_image_21,
    sdxl_controlnet,
    flux_control,
    flux_controlnet,
    ltx,
    pixart_sigma,
    sdxl_perturbed,
    sd3_perturbed,
)
