"""The embedded tokenizer has one token for every word of the training captions and of possible disclosures."""

import pytest
from transformers import CLIPTokenizer

from fedaigc import assets
from fedaigc.data.scene_words import (
    GENERAL_OBJECT_NOUNS,
    GENERAL_PLACE_NOUNS,
    OBJECT_NOUNS,
    PLACE_NOUNS,
    RELATIONS,
)

NOUNS = (*OBJECT_NOUNS, *PLACE_NOUNS, *GENERAL_OBJECT_NOUNS, *GENERAL_PLACE_NOUNS)


@pytest.fixture(scope="module")
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(assets.path("model") / "tokenizer")


@pytest.mark.parametrize(
    "word", sorted({*RELATIONS, *(part for noun in NOUNS for part in noun.word.split())})
)
def test_a_public_word_is_one_token(tokenizer: CLIPTokenizer, word: str) -> None:
    assert tokenizer.tokenize(word) == [f"{word}</w>"]


def test_an_unknown_word_is_spelled_and_nothing_is_lost(tokenizer: CLIPTokenizer) -> None:
    ids = tokenizer("a zyzzyva on a table").input_ids
    assert "zyzzyva" in tokenizer.decode(ids)
