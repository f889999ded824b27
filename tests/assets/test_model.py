"""The embedded model is an ordinary pipeline folder."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline

from fedaigc import assets
from fedaigc.data.scene_words import (
    GENERAL_OBJECT_NOUNS,
    GENERAL_PLACE_NOUNS,
    OBJECT_NOUNS,
    PLACE_NOUNS,
    RELATIONS,
)
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline, resolve_device
from fedaigc.errors import UserError


@pytest.fixture(scope="module")
def pipe() -> Any:
    return StableDiffusionPipeline.from_pretrained(assets.path("model"))


def test_it_loads_and_draws_without_arguments(pipe: Any) -> None:
    torch.manual_seed(0)
    (image,) = pipe("a lemon on a table", num_inference_steps=4).images
    assert image.size == (64, 64)
    assert np.asarray(image).std() > 10


def test_another_prompt_draws_another_picture(pipe: Any) -> None:
    drawn = [
        np.asarray(pipe(prompt, num_inference_steps=4, generator=torch.Generator().manual_seed(0)).images[0])
        for prompt in ("a lemon on a table", "a bus on a road")
    ]
    assert np.abs(drawn[0].astype(float) - drawn[1]).mean() > 10


def test_no_plain_caption_is_cut(pipe: Any) -> None:
    nouns = ((*OBJECT_NOUNS, *GENERAL_OBJECT_NOUNS), (*PLACE_NOUNS, *GENERAL_PLACE_NOUNS))
    for thing, relation, place in itertools.product(nouns[0], RELATIONS, nouns[1]):
        tokens = pipe.tokenizer(f"{thing.phrase} {relation} {place.phrase}").input_ids
        assert len(tokens) <= pipe.tokenizer.model_max_length


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in assets.path("model").rglob("*")) < 16e6


def test_the_fingerprint_follows_the_weights() -> None:
    first: Any = load_pipeline()
    second: Any = load_pipeline()
    assert base_fingerprint(first) == base_fingerprint(second)
    with torch.no_grad():
        next(second.unet.parameters()).view(-1)[0] += 1e-3
    assert base_fingerprint(first) != base_fingerprint(second)


@pytest.mark.parametrize("name", ["./nowhere", "nowhere", "no/such-model"])
def test_a_missing_model_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match=name):
        load_pipeline(name)


def test_a_folder_that_is_no_pipeline_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"model_index\.json"):
        load_pipeline(str(tmp_path))


def test_devices_are_checked() -> None:
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(UserError, match="gpu"):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="no CUDA"):
            resolve_device("cuda")
