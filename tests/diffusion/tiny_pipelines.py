"""Tiny pipelines of the five families with random weights, built from configs without any download.

Outputs of freshly initialized networks are close to zero, which makes all split runs equal. Therefore, the weights
that carry the prompt and the output are scaled up until latents and prompts differ measurably.
"""

import string
from collections.abc import Callable
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

SIZE = 16
FAMILIES = ("sd1", "sd2", "sdxl", "sd3", "flux")
_CLIP_LENGTH = 24
_WIDTH = 32
_DIFFUSION = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
}

# the pipeline of a family
Tiny = Callable[[str], Any]


def tiny_pipeline(family: str) -> Any:
    """Return one of FAMILIES in float32 on the CPU, with the same weights at every call."""
    torch.manual_seed(FAMILIES.index(family))
    pipe: Any = {
        "sd1": lambda: _stable_diffusion("epsilon"),
        "sd2": lambda: _stable_diffusion("v_prediction"),
        "sdxl": _sdxl,
        "sd3": _sd3,
        "flux": _flux,
    }[family]()
    pipe.set_progress_bar_config(disable=True)
    return pipe


def clip_tokenizer() -> CLIPTokenizer:
    """Return a tokenizer of letters, digits and punctuation, alone or at the end of a word."""
    symbols = string.ascii_lowercase + string.digits + string.punctuation
    words = ["<|startoftext|>", "<|endoftext|>", *symbols, *(f"{symbol}</w>" for symbol in symbols)]
    vocabulary = {word: index for index, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=_CLIP_LENGTH)


def t5_tokenizer() -> T5Tokenizer:
    """Return a unigram tokenizer of letters and digits."""
    pieces = ["<pad>", "</s>", "<unk>", "▁", *string.ascii_lowercase, *string.digits]
    vocabulary = [(piece, 0.0 if piece.startswith("<") else -2.0) for piece in pieces]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=_CLIP_LENGTH)


def _clip(kind: Any = CLIPTextModel, activation: str = "quick_gelu") -> Any:
    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=_WIDTH,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=_CLIP_LENGTH,
        projection_dim=_WIDTH,
        hidden_act=activation,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = kind(config).eval()
    _scale(model, "embedding", 20.0)
    return model


def _t5(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=len(t5_tokenizer()),
        d_model=width,
        d_kv=8,
        d_ff=37,
        num_layers=2,
        num_heads=4,
        pad_token_id=0,
    )
    return T5EncoderModel(config).eval()


def _vae(channels: int) -> Any:
    vae: Any = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIZE,
        scaling_factor=0.5,
        shift_factor=0.1,
    )
    return vae.eval()


def _unet(**options: Any) -> Any:
    config = {
        "sample_size": SIZE // 2,
        "block_out_channels": (8, 16),
        "norm_num_groups": 4,
        "layers_per_block": 1,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": _WIDTH,
        "attention_head_dim": 4,
    }
    unet: Any = UNet2DConditionModel(**(config | options))
    unet.eval()
    _scale(unet, "attn2", 3.0)
    _scale(unet, "conv_out", 3.0)
    return unet


def _stable_diffusion(prediction_type: str) -> StableDiffusionPipeline:
    second = prediction_type == "v_prediction"
    return StableDiffusionPipeline(
        vae=_vae(4),
        text_encoder=_clip(activation="gelu" if second else "quick_gelu"),
        tokenizer=clip_tokenizer(),
        unet=_unet(use_linear_projection=second),
        scheduler=DDIMScheduler(**_DIFFUSION, prediction_type=prediction_type, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _sdxl() -> StableDiffusionXLPipeline:
    unet = _unet(
        cross_attention_dim=2 * _WIDTH,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + _WIDTH,
    )
    return StableDiffusionXLPipeline(
        vae=_vae(4),
        text_encoder=_clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=_clip(CLIPTextModelWithProjection, "gelu"),
        tokenizer_2=clip_tokenizer(),
        unet=unet,
        scheduler=DDIMScheduler(**_DIFFUSION, steps_offset=1),
        add_watermarker=False,
    )


def _sd3() -> StableDiffusion3Pipeline:
    transformer: Any = SD3Transformer2DModel(
        sample_size=SIZE // 2,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=4,
        joint_attention_dim=_WIDTH * 2,
        caption_projection_dim=32,
        pooled_projection_dim=2 * _WIDTH,
        pos_embed_max_size=SIZE,
    )
    transformer.eval()
    _scale(transformer, "proj_out", 5.0)
    _scale(transformer, "context_embedder", 5.0)
    return StableDiffusion3Pipeline(
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_vae(4),
        text_encoder=_clip(CLIPTextModelWithProjection),
        tokenizer=clip_tokenizer(),
        text_encoder_2=_clip(CLIPTextModelWithProjection, "gelu"),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=_t5(2 * _WIDTH),
        tokenizer_3=t5_tokenizer(),
    )


def _flux() -> FluxPipeline:
    transformer: Any = FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=_WIDTH,
        pooled_projection_dim=_WIDTH,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    transformer.eval()
    _scale(transformer, "proj_out", 5.0)
    _scale(transformer, "context_embedder", 5.0)
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=_vae(4),
        text_encoder=_clip(),
        tokenizer=clip_tokenizer(),
        text_encoder_2=_t5(_WIDTH),
        tokenizer_2=t5_tokenizer(),
        transformer=transformer,
    )


def _scale(model: nn.Module, part: str, factor: float) -> None:
    """Multiply the weights of all layers with `part` in their name."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if part in name:
                parameter.mul_(factor)
