"""A pipeline of the caller is the same one in the processes of a run, or refused."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from peft import LoraConfig

from fedaigc.api.saved_model import saved
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.errors import UserError
from tests.diffusion.tiny_pipelines import SIZE, tiny_pipeline


def picture(pipe: Any) -> torch.Tensor:
    call = {"num_inference_steps": 2, "height": SIZE, "width": SIZE, "output_type": "pt"}
    images: torch.Tensor = pipe("a cat", generator=torch.Generator().manual_seed(1), **call).images
    return images


@pytest.mark.parametrize("family", ["sd1", "sdxl", "flux"])
def test_it_draws_the_same_picture_after_loading(tmp_path: Path, family: str) -> None:
    pipe = tiny_pipeline(family)
    folder = saved(pipe, tmp_path)
    assert torch.equal(picture(load_pipeline(str(folder))), picture(pipe))
    assert saved(pipe, tmp_path) == folder


def test_another_scheduler_is_another_model(tmp_path: Path) -> None:
    pipe = tiny_pipeline("sd1")
    first = saved(pipe, tmp_path)
    pipe.scheduler = diffusers.EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    second = saved(pipe, tmp_path)
    assert first != second
    assert torch.equal(picture(load_pipeline(str(second))), picture(pipe))


def with_freeu(pipe: Any) -> None:
    pipe.enable_freeu(0.9, 0.2, 1.5, 1.6)


def with_lora_of_the_encoder(pipe: Any) -> None:
    pipe.text_encoder.add_adapter(
        LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False), "style"
    )


def with_a_decoder_of_another_dtype(pipe: Any) -> None:
    pipe.vae.to(torch.float16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_freeu, "unet of the pipeline runs with something that is not saved"),
        (with_lora_of_the_encoder, "text_encoder of the pipeline runs with something that is not saved"),
        (with_a_decoder_of_another_dtype, "weights of vae differ; give the folder"),
    ],
)
def test_what_is_not_saved_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    pipe = tiny_pipeline("sd1")
    saved(pipe, tmp_path)  # of the same weights of the denoiser
    change(pipe)
    with pytest.raises(UserError, match=message):
        saved(pipe, tmp_path)


class PipelineOfTheirs(diffusers.StableDiffusionPipeline):
    """A class that no other process has."""


def test_a_class_that_loading_replaces_is_refused(tmp_path: Path) -> None:
    parts = tiny_pipeline("sd1").components
    with pytest.raises(UserError, match=r"could not be loaded|its pipeline differ"):
        saved(PipelineOfTheirs(**parts, requires_safety_checker=False), tmp_path)
    assert not list(tmp_path.glob("[0-9a-f]*"))
