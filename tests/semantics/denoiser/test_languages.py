"""Prompts of any language and style have a signature, or a stated reason for none.

The pipeline is a small Stable Diffusion with a CLIP tokenizer of 77 tokens whose byte pairs were learned from text of
several languages, so that it splits words as a real one does: frequent ones are a token, others a few, and characters
that it never saw are bytes.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from fedaigc.cli.main import app
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.errors import UserError
from fedaigc.semantics.denoiser.atlas_build import build_tree
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, distance, phi
from tests.small_run import save_small_model

TOKENS = 77
TEXTS = (
    "a dog on a beach at sunset, a red car and a green bench, two cats in a garden, masterpiece, best quality",
    "ein Hund am Strand bei Sonnenuntergang, ein rotes Auto und eine grüne Bank, zwei Katzen im Garten",
    "桜の木の下の犬、夕暮れの海辺、赤い車と緑のベンチ、庭の二匹の猫",
    "1girl, solo, long hair, looking at viewer, blue sky, highres, masterpiece, best quality",
)
PROMPTS = {
    "German": "ein Hund am Strand bei Sonnenuntergang",
    "German, umlauts": "ein großer Bär über grünen Hügeln",
    "Japanese": "桜の木の下の犬",
    "Japanese, other": "庭の二匹の猫",
    "tags": "1girl, solo, long hair, looking at viewer, masterpiece",
    "weights of tags": "(masterpiece:1.2), [blurry], <lora:some:0.8>, 1girl",
    "two objects": "a red car and a green bench",
    "two objects, exchanged": "a green car and a red bench",
    "no object": "quiet, melancholy, almost nothing",
    "emoji": "🐕🏖️",
    "unseen script": "собака на пляже",
}
LONG = ", ".join(f"a dog on a beach, take {number}" for number in range(20))


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from diffusers import StableDiffusionPipeline
    from tokenizers import trainers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    folder: Path = tmp_path_factory.mktemp("model") / "small"
    save_small_model(folder)
    ends = ["<|startoftext|>", "<|endoftext|>"]
    learned: Any = CLIPTokenizer()._tokenizer
    alphabet = [*_byte_letters(), *(f"{letter}</w>" for letter in _byte_letters())]
    trainer = trainers.BpeTrainer(
        vocab_size=900, end_of_word_suffix="</w>", special_tokens=[*ends, *alphabet], show_progress=False
    )
    learned.train_from_iterator(TEXTS * 4, trainer)
    learned.save(str(folder / "tokenizer.json"))
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    merges: Any = [tuple(pair) for pair in model["merges"]]
    tokenizer = CLIPTokenizer(model["vocab"], merges, model_max_length=TOKENS)
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    parts: Any = {"tokenizer": tokenizer, "text_encoder": CLIPTextModel(text).eval()}
    return StableDiffusionPipeline.from_pretrained(folder, **parts)


def _byte_letters() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


@pytest.fixture(scope="module")
def disclosure(pipe: Any) -> NodeDisclosure:
    plan = build_plan(pipe, num_inference_steps=4, guidance_scale=5.0, height=32, width=32, base_hash="b")
    space = DenoiserSpace.of(plan)
    captions = sorted(
        f"a {thing} on a {place}" for thing in ("dog", "cat", "car") for place in ("road", "bed")
    )
    atlas = build_tree(space.hash, {}, captions, phi(pipe, space, captions), 2)
    return NodeDisclosure(space, atlas, 2, 2)


def test_the_tokenizer_splits_as_a_real_one(pipe: Any) -> None:
    def tokens(text: str) -> list[int]:
        return list(pipe.tokenizer(text).input_ids)[1:-1]

    assert len(tokens("masterpiece")) == 1
    assert len(tokens("dog")) == 1
    assert len(tokens("quixotic")) > 2
    for text in PROMPTS.values():
        assert tokens(text)
        assert pipe.tokenizer.unk_token_id not in tokens(text)
    assert len(tokens(LONG)) > TOKENS


@pytest.mark.parametrize("kind", PROMPTS)
def test_each_has_a_signature_of_its_own_vector(kind: str, pipe: Any, disclosure: NodeDisclosure) -> None:
    found = disclosure.disclose(pipe, PROMPTS[kind])
    assert isinstance(found, NodeSignature)
    assert 0 <= found.node < len(disclosure.atlas)
    own = disclosure.vector(pipe, PROMPTS[kind])
    assert np.isfinite(own).all()
    # the encoder read it: no two of them are the same to the model
    others = [disclosure.vector(pipe, text) for other, text in PROMPTS.items() if other != kind]
    assert min(distance(own, other) for other in others) > 0


def test_capitals_and_blanks_change_nothing_where_the_tokenizer_drops_them(
    pipe: Any, disclosure: NodeDisclosure
) -> None:
    one, other = (disclosure.vector(pipe, text) for text in ("a dog on a bed", "A  Dog on a BED"))
    assert np.array_equal(one, other)


def test_what_a_text_encoder_cannot_take_is_left_out_as_in_the_picture(
    pipe: Any, disclosure: NodeDisclosure
) -> None:
    """A prompt of 77 tokens and more has the signature of what the encoder reads of it: so has its picture."""
    found = disclosure.disclose(pipe, LONG)
    assert isinstance(found, NodeSignature)
    vector = disclosure.vector(pipe, LONG)
    beyond = disclosure.vector(pipe, f"{LONG}, and a cat that no encoder reads")
    assert np.array_equal(vector, beyond)
    assert distance(vector, disclosure.vector(pipe, LONG[: len(LONG) // 8])) > 0


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "the text is empty: say what to draw"),
        (" \t\n", "the text is empty"),
        ("x" * 1001, "has 1,001 characters: shorten it"),
        ("half of a pair \ud83d", "contains an invalid character"),
    ],
)
def test_what_is_no_prompt_has_a_reason(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=reason):
        PromptQueue(Home.open(tmp_path, 1)).add(text)


def test_the_other_space_says_what_it_would_tell_or_why_it_tells_nothing() -> None:
    """It knows the English words of its graph alone."""
    for kind, prompt in PROMPTS.items():
        told = CliRunner().invoke(app, ["disclose", prompt])
        assert told.exit_code == 0, told.output
        alone = "It is drawn alone." in told.output
        assert ("because" in told.output) is alone, kind
        assert ("this counts at most" in told.output) is not alone, kind
        assert alone or kind == "tags"
