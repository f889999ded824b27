"""EDM models (as Playground v2.5): noise levels, t*, the objective, and the scale of the latents."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler, EDMEulerScheduler, IPNDMScheduler
from PIL import Image
from torch import Tensor, nn

from fedaigc.diffusion.adapters.stages import (
    SharedState,
    Stage,
    install,
    install_personal,
    new_adapter,
)
from fedaigc.diffusion.encoding import encode_images, encode_text, predict
from fedaigc.diffusion.objective import TimestepSampler
from fedaigc.diffusion.sampling.segment import finish_segment, initial_state, run_segment
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr, is_flow
from fedaigc.diffusion.schedule.plan import boundary_step, build_plan, latents_std, log_snr
from fedaigc.diffusion.training import TrainingSettings, train_stage
from fedaigc.errors import UserError
from fedaigc.rng import rng
from tests.diffusion.tiny_pipelines import SIZE, tiny_pipeline

SCHEDULERS = [EDMEulerScheduler(), EDMDPMSolverMultistepScheduler(prediction_type="v_prediction")]


@pytest.fixture(scope="module", params=SCHEDULERS, ids=["euler", "dpm"])
def pipe(request: Any) -> Any:
    found = tiny_pipeline("sdxl")
    found.scheduler = request.param
    return found


def test_noise_levels_are_those_of_the_sigmas(pipe: Any) -> None:
    plan = build_plan(pipe, num_inference_steps=5, guidance_scale=1.0, height=SIZE, width=SIZE, base_hash="b")
    assert plan.sigmas is not None
    assert log_snr(plan) == pytest.approx([-2 * math.log(sigma) for sigma in plan.sigmas[:5]])
    assert not is_flow(pipe.scheduler)
    assert boundary_log_snr(pipe, 999) == pytest.approx(-2 * math.log(80), abs=0.1)
    middle = boundary_log_snr(pipe, 500)
    assert -2 * math.log(80) < middle < -2 * math.log(0.002)
    assert 0 < boundary_step(plan, middle) < 5
    assert latents_std(plan, 0) == pytest.approx(math.hypot(80, 1), rel=1e-4)
    with pytest.raises(UserError, match="outside of training"):
        boundary_log_snr(pipe, 1000)


def test_the_target_is_what_the_scheduler_turns_into_the_clean_latents(pipe: Any) -> None:
    sampler = TimestepSampler(pipe, Stage.SHARED, boundary_log_snr(pipe, 500))
    clean, noise = torch.randn((2, 6, 4, 4, 4), generator=rng(0, "x"))
    drawn = sampler.draw(6, rng(0, "t"))
    for row, at in enumerate(drawn.tolist()):
        sigma = sampler.noise[at]
        assert sigma > math.exp(-boundary_log_snr(pipe, 500) / 2)
        state = clean[row] + sigma * noise[row]
        answer = sampler.target(clean, noise, drawn)[row]
        found = pipe.scheduler.precondition_outputs(state, answer, sigma)
        torch.testing.assert_close(found, clean[row], rtol=1e-3, atol=1e-3)
        received = pipe.scheduler.precondition_inputs(state, sigma)
        torch.testing.assert_close(sampler.noisy(clean, noise, drawn)[row], received)
        assert float(sampler.timesteps[at]) == pytest.approx(0.25 * math.log(sigma), abs=1e-5)


def test_the_denoiser_is_called_as_the_pipeline_calls_it(pipe: Any) -> None:
    calls: list[tuple[Tensor, Tensor, Tensor]] = []

    def record(module: nn.Module, inputs: Any, options: Any, output: Any) -> None:
        calls.append((inputs[0], torch.as_tensor(inputs[1]), output[0]))

    hook = pipe.unet.register_forward_hook(record, with_kwargs=True)
    pipe("a cat", num_inference_steps=2, guidance_scale=1.0, height=SIZE, width=SIZE, output_type="latent")
    hook.remove()
    text = encode_text(pipe, ["a cat"])
    for sample, timestep, expected in calls[:2]:
        with torch.no_grad():
            found = predict(pipe, sample, timestep.reshape(1).float(), text)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_both_stages_train_and_a_divided_run_is_the_undivided_one(pipe: Any) -> None:
    images = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    data = encode_images(pipe, images, ["a cat", "a dog"], height=SIZE, width=SIZE)
    adapter = new_adapter(pipe, generator=rng(0, "a"))
    install(pipe, SharedState("base", adapter.lora, adapter.rank, adapter.alpha))
    install_personal(pipe, adapter)
    for stage in (Stage.SHARED, Stage.PERSONAL):
        losses = train_stage(
            pipe,
            stage,
            data,
            steps=12,
            settings=TrainingSettings(batch_size=2, learning_rate=5e-3, min_snr_gamma=5.0),
            boundary_log_snr=boundary_log_snr(pipe, 500),
            generator=rng(0, "train"),
        )
        assert np.isfinite(losses).all()
    plan = build_plan(pipe, num_inference_steps=4, guidance_scale=3.0, height=SIZE, width=SIZE, base_hash="b")
    whole = finish_segment(pipe, initial_state(pipe, plan, 0), {"prompt": "a cat"}, plan)[0]
    half = run_segment(pipe, initial_state(pipe, plan, 0), {"prompt": "a cat"}, plan, 2)
    assert np.array_equal(np.array(finish_segment(pipe, half, {"prompt": "a cat"}, plan)[0]), np.array(whole))


@pytest.mark.parametrize("scaled", [True, False])
def test_the_latents_have_the_scale_that_the_pipeline_undoes(scaled: bool) -> None:
    """What the pipeline hands to the decoder for encoded latents is what the encoder answered."""
    pipe = tiny_pipeline("sdxl")
    if scaled:
        pipe.vae.register_to_config(latents_mean=[-1.6, 1.1, 3.2, -0.7], latents_std=[8.4, 5.9, 7.0, 0.5])
    pipe.vae.register_to_config(shift_factor=None)
    pictures = [Image.new("RGB", (SIZE, SIZE), "teal")]
    latents = encode_images(pipe, pictures, ["a cat"], height=SIZE, width=SIZE).latents
    raw = pipe.vae.encode(pipe.image_processor.preprocess(pictures)).latent_dist.mode()
    received: list[Tensor] = []
    decode = pipe.vae.decode

    def recorded(latents: Tensor, **options: Any) -> Any:
        received.append(latents)
        return decode(latents, **options)

    pipe.vae.decode = recorded
    plan = build_plan(pipe, num_inference_steps=2, guidance_scale=1.0, height=SIZE, width=SIZE, base_hash="b")
    from fedaigc.diffusion.sampling.segment import decode as decode_latents

    decode_latents(pipe, latents, plan)
    torch.testing.assert_close(received[0], raw, rtol=1e-4, atol=1e-5)


def test_a_scale_that_the_pipeline_ignores_is_refused() -> None:
    pipe = tiny_pipeline("sd1")
    pipe.vae.register_to_config(latents_mean=[0.0] * 4, latents_std=[2.0] * 4)
    with pytest.raises(
        UserError, match="latents_mean and latents_std, which StableDiffusionPipeline does not"
    ):
        encode_images(pipe, [Image.new("RGB", (SIZE, SIZE))], ["a cat"], height=SIZE, width=SIZE)


def test_a_schedule_of_another_kind_is_refused_by_name() -> None:
    pipe = tiny_pipeline("sd1")
    pipe.scheduler = IPNDMScheduler()
    for call in (lambda: boundary_log_snr(pipe, 500), lambda: TimestepSampler(pipe, Stage.SHARED, None)):
        with pytest.raises(UserError, match="IPNDMScheduler"):
            call()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"in_channels": 9}, "9 channels"),
        ({"time_cond_proj_dim": 8}, "time_cond_proj_dim"),
        ({"class_embed_type": "timestep"}, "class labels"),
        ({"addition_embed_type": "image"}, "addition_embed_type"),
    ],
)
def test_a_unet_that_needs_more_than_text_is_refused_for_training(change: dict[str, Any], told: str) -> None:
    pipe = tiny_pipeline("sd1")
    pipe.unet.register_to_config(**change)
    with pytest.raises(UserError, match=told):
        predict(pipe, torch.randn(1, 4, 8, 8), torch.tensor([500.0]), encode_text(pipe, ["a cat"]))


def test_a_learned_variance_is_refused_for_training() -> None:
    pipe = tiny_pipeline("sd1")
    pipe.unet.conv_out = nn.Conv2d(8, 8, 3, padding=1)
    with pytest.raises(UserError, match="also predicts a variance"):
        predict(pipe, torch.randn(1, 4, 8, 8), torch.tensor([500.0]), encode_text(pipe, ["a cat"]))
