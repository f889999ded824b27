"""Prompts are drawn in groups by transformers that no factors are made for: nothing is trained, so none are needed."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fedaigc as fa
from tests.diffusion import tiny_pipelines as tiny
from tests.diffusion.families.family import WIDTH
from tests.diffusion.families.registered import small_family

pytestmark = pytest.mark.families


def test_a_transformer_of_another_family_draws_in_a_group(tmp_path: Path) -> None:
    pipe: Any = small_family("pixart_binned").pipe
    pipe.register_modules(tokenizer=tiny.t5_tokenizer(), text_encoder=tiny._t5(WIDTH))
    drawn = fa.generate(
        ["an apple on a table", "a lemon on a table"],
        output=tmp_path / "out",
        model=pipe,
        num_inference_steps=4,
        num_shared_steps=2,
        scorer="none",
        progress=False,
    )
    first, second = (np.asarray(image) for image in drawn.images)
    assert first.shape == (256, 256, 3)
    assert not np.array_equal(first, second)
    assert {group.num_shared_steps for group in drawn.groups} == {2}
