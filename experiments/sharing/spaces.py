"""Spaces of prompts besides the denoiser's own: encoders of text, as unit vectors with their Euclidean distance."""

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from experiments.pretrain.recipe import bytes_to_unicode
from experiments.sharing.distance import sentences

# text encoder of Stable Diffusion 1: openai/clip-vit-large-patch14
_WIDTH, _LAYERS, _HEADS, _TOKENS = 768, 12, 12, 77
_MERGES = 49152 - 256 - 2

Encode = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]


def unit(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    """Return rows of length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def sentence_space(folder: Path) -> Encode:
    """Return all-MiniLM-L6-v2 as a space of its own: unit means of token states."""
    return lambda prompts: unit(sentences(folder, list(prompts)))


def random_clip(vocabulary: Path, seed: int = 0) -> Encode:
    """Return a CLIP text encoder of Stable Diffusion's size with random weights: unit means of token states.

    Args:
        vocabulary: The byte-pair merges of CLIP, bpe_simple_vocab_16e6.txt.gz.
        seed: Seed of the weights.
    """
    from transformers import CLIPTextConfig, CLIPTextModel

    words = clip_tokenizer(vocabulary)
    torch.manual_seed(seed)
    model = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=_WIDTH,
            intermediate_size=4 * _WIDTH,
            num_hidden_layers=_LAYERS,
            num_attention_heads=_HEADS,
            max_position_embeddings=_TOKENS,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    ).eval()

    def encode(prompts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        rows = []
        for prompt in prompts:
            # causal attention: the states of a prompt do not depend on padding behind it
            ids = words(prompt, truncation=True, max_length=_TOKENS, return_tensors="pt")["input_ids"]
            with torch.no_grad():
                rows.append(model(ids).last_hidden_state[0].mean(0).numpy())
        return unit(np.stack(rows))

    return encode


def clip_tokenizer(vocabulary: Path) -> Any:
    """Return CLIP's tokenizer from its file of merges."""
    from transformers import CLIPTokenizer

    lines = gzip.decompress(vocabulary.read_bytes()).decode().split("\n")[1 : _MERGES + 1]
    merges: Any = [tuple(line.split()) for line in lines]
    symbols = list(bytes_to_unicode().values())
    tokens = [*symbols, *(s + "</w>" for s in symbols), *("".join(pair) for pair in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(tokens)}, merges=merges, model_max_length=_TOKENS
    )
