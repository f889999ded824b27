"""Transformers of further families train both stages through their pipeline's own call, or say why they cannot.

`make families` runs them.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedaigc.diffusion.adapters.lora_folder import export_lora, import_lora
from fedaigc.diffusion.adapters.stages import (
    SharedState,
    Stage,
    install,
    install_personal,
    new_adapter,
    read_adapter,
)
from fedaigc.diffusion.call_forms import observed_latents
from fedaigc.diffusion.sampling.pipeline_call import denoiser
from fedaigc.diffusion.sampling.segment import first_model_output, initial_state
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.diffusion.training_call import predict_by_call, text_by_call
from fedaigc.errors import UserError
from fedaigc.rng import rng
from tests.diffusion.families.registered import SMALL_FAMILIES, small_family
from tests.diffusion.families.training import CANNOT_TRAIN, encoded, train_one_step

pytestmark = pytest.mark.families


@pytest.mark.parametrize("name", sorted(SMALL_FAMILIES.keys() - CANNOT_TRAIN.keys()))
def test_a_step_of_each_stage_changes_its_own_factors_alone(name: str, tmp_path: Path) -> None:
    family = small_family(name)
    pipe = family.pipe
    start = new_adapter(pipe, generator=rng(0, "a"), rank=2)
    assert start.lora
    data = encoded(family)
    install(pipe, SharedState("base", start.lora, start.rank, start.alpha))
    install_personal(pipe, start)
    before = {key: value.clone() for key, value in denoiser(pipe).state_dict().items() if "lora_" not in key}
    for stage in (Stage.SHARED, Stage.PERSONAL):
        (loss,) = train_one_step(pipe, data, stage)
        assert np.isfinite(loss)
        moved = read_adapter(pipe, stage).tensors()
        assert any(not torch.equal(moved[key], value) for key, value in start.tensors().items())
    after: Any = denoiser(pipe).state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    trained = read_adapter(pipe, Stage.SHARED)
    export_lora(pipe, trained, tmp_path)
    again = import_lora(pipe, tmp_path).tensors()
    assert all(torch.equal(again[key], value) for key, value in trained.tensors().items())


@pytest.mark.parametrize("name", sorted(CANNOT_TRAIN))
def test_others_are_refused_by_name(name: str) -> None:
    family = small_family(name)
    start = new_adapter(family.pipe, generator=rng(0, "a"), rank=2)
    install(family.pipe, SharedState("base", start.lora, start.rank, start.alpha))
    error = TypeError if name.startswith("kolors") else UserError
    with pytest.raises(error, match=CANNOT_TRAIN[name]):
        train_one_step(family.pipe, encoded(family), Stage.SHARED)


@pytest.mark.parametrize("name", ["z_image", "qwen_image", "flux2", "lumina2", "pixart_sigma"])
def test_the_denoiser_is_called_as_its_pipeline_calls_it(name: str) -> None:
    """The answer for the latents of the first step is what the scheduler of the stock call receives."""
    family = small_family(name)
    pipe, side = family.pipe, family.side
    side = side if not side % 16 else 64
    prompt = dict(family.prompt)
    if name == "qwen_image":
        prompt = {key: value for key, value in prompt.items() if not key.startswith("negative_")}
    text = text_by_call(pipe, [prompt])
    scale = 0.0 if name == "z_image" else 1.0
    further = {"use_resolution_binning": False} if name == "pixart_sigma" else {}
    plan = build_plan(
        pipe,
        num_inference_steps=4,
        guidance_scale=scale,
        height=side,
        width=side,
        base_hash="base",
        arguments=further,
        conditioning=prompt,
    )
    state = initial_state(pipe, plan, 3, conditioning=prompt)
    stock = first_model_output(pipe, state, prompt, plan)
    form = observed_latents(pipe, side, side)
    latents = form.image(state.latents)[None]
    with torch.no_grad():
        found = predict_by_call(pipe, latents, torch.tensor([plan.timesteps[0]]), text)
    assert torch.equal(found[0], form.image(stock))
    assert torch.equal(form.running(latents[0]), state.latents)
