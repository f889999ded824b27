"""The few-step twin of the embedded model: an ordinary pipeline folder with the embedded model's other parts."""

from typing import Any

import pytest
import torch
from diffusers import LCMScheduler, StableDiffusionPipeline

from fedaigc import assets
from fedaigc.diffusion.exactness import check
from fedaigc.diffusion.loading import SHIPPED, load_pipeline
from fedaigc.diffusion.sampling.count import DenoiserCount

TWIN = "embedded-lcm"


@pytest.fixture(scope="module")
def twin() -> Any:
    return load_pipeline(TWIN)


def test_diffusers_loads_the_folder_itself() -> None:
    pipe: Any = StableDiffusionPipeline.from_pretrained(assets.path(SHIPPED[TWIN]))
    assert isinstance(pipe.scheduler, LCMScheduler)
    (image,) = pipe("a lemon on a table", num_inference_steps=2).images
    assert image.size == (64, 64)


def test_it_shares_all_parts_but_the_denoiser_with_the_embedded_model(twin: Any) -> None:
    embedded: Any = load_pipeline()
    for name in ("text_encoder", "vae"):
        ours, theirs = (getattr(pipe, name).state_dict() for pipe in (twin, embedded))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert twin.tokenizer.get_vocab() == embedded.tokenizer.get_vocab()


def test_guidance_is_an_input_and_doubles_nothing(twin: Any) -> None:
    drawn = []
    for scale in (3.0, 7.0):
        with DenoiserCount(twin) as counted:
            drawn.append(
                twin(
                    "a lemon on a table",
                    num_inference_steps=2,
                    guidance_scale=scale,
                    generator=torch.Generator().manual_seed(0),
                    output_type="latent",
                ).images
            )
        assert counted.samples == 2
    assert not torch.equal(*drawn)


def test_it_divides_exactly(twin: Any) -> None:
    assert check(twin, sizes=[(64, 64)]).exact


def test_it_is_small() -> None:
    assert sum(file.stat().st_size for file in assets.path(SHIPPED[TWIN]).rglob("*")) < 16e6
