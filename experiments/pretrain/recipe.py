"""The recipe of the embedded model: its parts, and the captions that it is trained on."""

import itertools
from collections import Counter
from typing import Any, TypeAlias

import numpy as np
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from fedaigc.data.scene_words import (
    GENERAL_OBJECT_NOUNS,
    GENERAL_PLACE_NOUNS,
    OBJECT_NOUNS,
    OBJECTS,
    PLACE_NOUNS,
    PLACES,
    RELATIONS,
    Noun,
)
from fedaigc.data.scenes import Scene
from fedaigc.data.sprites import TRAINED_STYLES
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.semantics.concepts.taxonomy import Taxonomy

# a model of diffusers: its lazy imports declare nothing of what it does
Model: TypeAlias = Any

LATENT_CHANNELS = 8
TOKENS = 16
WIDTH = 96
DECODER_WIDTH = 48

# words that users write before a noun, and that Scenes does not draw, so that the model learns to ignore them
MODIFIERS = (
    "big",
    "small",
    "little",
    "nice",
    "shiny",
    "new",
    "old",
    "lovely",
    "simple",
    "round",
    "clean",
    "quiet",
)
MODIFIER_SHARE = 0.1  # share of the nouns
STYLE_SHARE = 0.5  # share of the captions
GENERAL_SHARE = 0.3  # share of the objects, and of the places


def vae(decoder_width: int = 32) -> Model:
    """64x64 RGB <-> 16x16 latents of 8 channels."""
    return AutoencoderTiny(
        encoder_block_out_channels=(32, 32, 32),
        decoder_block_out_channels=(decoder_width,) * 3,
        num_encoder_blocks=(1, 3, 3),
        num_decoder_blocks=(3, 3, 1),
        latent_channels=LATENT_CHANNELS,
    )


def tokenizer() -> CLIPTokenizer:
    """Return a CLIP tokenizer with one token per word of the captions; other words are split into bytes."""
    nouns = (*OBJECT_NOUNS, *PLACE_NOUNS, *GENERAL_OBJECT_NOUNS, *GENERAL_PLACE_NOUNS)
    words = {
        "a",
        "an",
        "in",
        "style",
        *RELATIONS,
        *TRAINED_STYLES,
        *MODIFIERS,
        *(noun.word for noun in nouns),
    }
    symbols = sorted(bytes_to_unicode().values())
    vocabulary = {token: i for i, token in enumerate([*symbols, *(s + "</w>" for s in symbols)])}
    # tokenizers takes the pairs themselves, too
    merges: Any = _merges(sorted(words))
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    for token in ("<|startoftext|>", "<|endoftext|>"):
        vocabulary[token] = len(vocabulary)
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Return byte-pair merges, most frequent first, until every word is one token (Sennrich et al., 2016)."""
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in spelled for pair in itertools.pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in spelled:
            for i in range(len(word) - 2, -1, -1):
                if (word[i], word[i + 1 : i + 2]) == (best[0], [best[1]]):
                    word[i : i + 2] = ["".join(best)]
    return merges


def bytes_to_unicode() -> dict[int, str]:
    """Return the printable character that byte-level BPE uses for each byte (Radford et al., GPT-2, 2019)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}


def text_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    """Return a CLIP text encoder of two layers, width 96 and 16 tokens."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )


def unet() -> Model:
    """The denoiser: 5.6 M weights, attention at 8x8 and 4x4 latent pixels."""
    return UNet2DConditionModel(
        sample_size=16,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(64, 96, 128),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,  # the number of heads, despite its name
        norm_num_groups=16,
    )


def scheduler() -> Any:
    """Stable Diffusion's noise schedule, rescaled to end in pure noise, v-prediction."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=False,
    )


def pipeline(autoencoder: Model, words: CLIPTokenizer, encoder: CLIPTextModel, denoiser: Model) -> Pipeline:
    """Return the parts as an ordinary Stable Diffusion pipeline."""
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=encoder,
        tokenizer=words,
        unet=denoiser,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


class CaptionWriter:
    """Writes training captions for scenes, with a mix of general words, modifiers and style words.

    The object and the place are each replaced, with probability GENERAL_SHARE, by a random public ancestor in the
    knowledge graph, so that the model learns group prompts such as "a fruit on a table".
    """

    def __init__(self) -> None:
        ancestors = Taxonomy.load().ancestors
        self._general = {
            noun.word: [above for above in general if above.concept in ancestors(noun.concept)]
            for nouns, general in ((OBJECT_NOUNS, GENERAL_OBJECT_NOUNS), (PLACE_NOUNS, GENERAL_PLACE_NOUNS))
            for noun in nouns
        }

    def _phrase(self, noun: Noun, random: np.random.Generator) -> str:
        if random.random() < GENERAL_SHARE and self._general[noun.word]:
            noun = self._general[noun.word][int(random.integers(len(self._general[noun.word])))]
        if random.random() >= MODIFIER_SHARE:
            return noun.phrase
        modifier = MODIFIERS[int(random.integers(len(MODIFIERS)))]
        article = ("an" if modifier[0] in "aeiou" else "a") if noun.article else ""
        return f"{article} {modifier} {noun.word}".strip()

    def write(self, scene: Scene, random: np.random.Generator) -> str:
        """Return a random caption of `scene`."""
        thing = self._phrase(OBJECT_NOUNS[OBJECTS.index(scene.object)], random)
        place = self._phrase(PLACE_NOUNS[PLACES.index(scene.place)], random)
        style = f" in {scene.style} style" if random.random() < STYLE_SHARE else ""
        return f"{thing} {scene.relation} {place}{style}"


def seed_everything(seed: int, threads: int) -> None:
    """Seed torch's global generator, from which the libraries draw the initial weights."""
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
