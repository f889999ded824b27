"""Training through the pipeline's own call; `make families` has the same for all families."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from fedaigc.diffusion import call_forms
from fedaigc.diffusion.adapters.stages import SharedState, Stage, install, new_adapter, read_adapter
from fedaigc.diffusion.encoding import EncodedImages, encode_images
from fedaigc.diffusion.training_call import predict_by_call, text_by_call
from fedaigc.rng import rng
from tests.diffusion import tiny_pipelines as tiny
from tests.diffusion.families.family import WIDTH, embeddings
from tests.diffusion.families.registered import small_family
from tests.diffusion.families.training import train_one_step


def with_factors(pipe: Any) -> None:
    start = new_adapter(pipe, generator=rng(0, "a"), rank=2)
    install(pipe, SharedState("base", start.lora, start.rank, start.alpha))


def test_captions_are_encoded_once_and_train_in_another_process() -> None:
    pipe = small_family("pixart_sigma").pipe
    pipe.register_modules(tokenizer=tiny.t5_tokenizer(), text_encoder=tiny._t5(WIDTH).eval())
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    data = encode_images(pipe, pictures, ["an apple", "a lemon near a bed"], height=64, width=64)
    assert data.latents.shape == (2, 4, 8, 8)
    kept = EncodedImages.from_tensors(data.tensors())
    losses, trained = [], []
    for each in (data, kept):
        with_factors(pipe)
        losses.append(train_one_step(pipe, each, Stage.SHARED))
        trained.append(read_adapter(pipe, Stage.SHARED).tensors())
        # what another process has not observed yet
        for known in (call_forms._forms, call_forms._ratios, call_forms.texts):
            known.pop(pipe, None)
    assert np.isfinite(losses).all()
    assert losses[0] == losses[1]
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())


def test_prompts_of_other_lengths_are_answered_as_each_alone() -> None:
    pipe = small_family("qwen_image").pipe

    def prompt(words: int) -> dict[str, Any]:
        mask = torch.ones(1, words, dtype=torch.int64)
        return {"prompt_embeds": embeddings(words, 1, words, WIDTH), "prompt_embeds_mask": mask}

    alone = [text_by_call(pipe, [prompt(words)]) for words in (3, 5)]
    together = text_by_call(pipe, [prompt(words) for words in (3, 5)])
    noisy = torch.randn((2, 4, 8, 8), generator=rng(0, "noise"))
    times = torch.tensor([300.0, 700.0])
    with torch.no_grad():
        found = predict_by_call(pipe, noisy, times, together)
        for row, text in enumerate(alone):
            assert torch.equal(
                found[row : row + 1], predict_by_call(pipe, noisy[row : row + 1], times[row : row + 1], text)
            )
    assert not torch.equal(found[0], found[1])
