"""A real CLIP, very small and untrained."""

from pathlib import Path

import torch

from fedaigc import assets


def save_small_clip(folder: Path) -> None:
    """Save a CLIP model of one layer a tower, with the shipped tokenizer, as `from_pretrained` reads it."""
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor

    tokenizer = AutoTokenizer.from_pretrained(str(assets.path("model") / "tokenizer"))
    layers = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "projection_dim": 16,
    }
    tokens = {"vocab_size": len(tokenizer), "max_position_embeddings": 16}
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    clip = CLIPModel(
        CLIPConfig(
            text_config={**layers, **tokens, **ends},
            vision_config={**layers, "image_size": 32, "patch_size": 8},
            projection_dim=16,
        )
    )
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    clip.save_pretrained(folder)
    CLIPProcessor(pictures, tokenizer).save_pretrained(folder)
