"""Stable Diffusion v1-4 in its true configuration, with 1.0 billion random weights and without any download.

The numbers are those of the configs of CompVis/stable-diffusion-v1-4, without safety checker. The tokenizer is the
local one, so the text encoder gets small ids of its 49,408.
"""

from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from tests.diffusion.tiny_pipelines import clip_tokenizer


def stable_diffusion_14() -> Any:
    """Return the pipeline in float32 on the CPU."""
    torch.manual_seed(14)
    unet: Any = UNet2DConditionModel(
        act_fn="silu",
        attention_head_dim=8,
        block_out_channels=(320, 640, 1280, 1280),
        center_input_sample=False,
        cross_attention_dim=768,
        down_block_types=(*["CrossAttnDownBlock2D"] * 3, "DownBlock2D"),
        downsample_padding=1,
        flip_sin_to_cos=True,
        freq_shift=0,
        in_channels=4,
        layers_per_block=2,
        mid_block_scale_factor=1,
        norm_eps=1e-5,
        norm_num_groups=32,
        out_channels=4,
        sample_size=64,
        up_block_types=("UpBlock2D", *["CrossAttnUpBlock2D"] * 3),
    )
    vae: Any = AutoencoderKL(
        act_fn="silu",
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        in_channels=3,
        latent_channels=4,
        layers_per_block=2,
        norm_num_groups=32,
        out_channels=3,
        sample_size=512,
        up_block_types=("UpDecoderBlock2D",) * 4,
    )
    text_encoder: Any = CLIPTextModel(
        CLIPTextConfig(
            bos_token_id=0,
            eos_token_id=1,
            hidden_act="quick_gelu",
            hidden_size=768,
            intermediate_size=3072,
            layer_norm_eps=1e-5,
            max_position_embeddings=77,
            num_attention_heads=12,
            num_hidden_layers=12,
            pad_token_id=1,
            projection_dim=512,
            vocab_size=49408,
        )
    )
    tokenizer = clip_tokenizer()
    tokenizer.model_max_length = 77
    with torch.no_grad():
        # untrained embeddings hardly differ, and then no prompt does
        text_encoder.get_input_embeddings().weight.mul_(20)
        for name, parameter in unet.named_parameters():
            if "attn2" in name:
                parameter.mul_(2)
    pipe: Any = StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=PNDMScheduler(
            beta_end=0.012,
            beta_schedule="scaled_linear",
            beta_start=0.00085,
            num_train_timesteps=1000,
            set_alpha_to_one=False,
            skip_prk_steps=True,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
