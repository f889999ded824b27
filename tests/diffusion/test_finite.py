"""Values that are not finite: no picture is kept, the task says why, and it can be drawn again."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from fedaigc.diffusion.loading import base_fingerprint
from fedaigc.diffusion.sampling.segment import finish_segment, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.errors import NotFinite, UserError
from fedaigc.generation import GenerateSettings, run_generate
from tests.diffusion.tiny_pipelines import SIZE, tiny_pipeline
from tests.small_run import save_small_model

ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing", "clip_sample": False}


def plan_of(pipe: Any) -> Any:
    base = base_fingerprint(pipe)
    return build_plan(
        pipe, num_inference_steps=3, guidance_scale=3.0, height=SIZE, width=SIZE, base_hash=base
    )


def test_epsilon_at_a_signal_to_noise_ratio_of_zero_is_refused_by_name() -> None:
    pipe = tiny_pipeline("sd1")
    pipe.scheduler = DDIMScheduler(prediction_type="epsilon", **ZERO_SNR)
    plan = plan_of(pipe)
    state = initial_state(pipe, plan, 0)
    for run in (
        lambda: run_segment(pipe, state, {"prompt": "a cat"}, plan, 2),
        lambda: finish_segment(pipe, state, {"prompt": "a cat"}, plan),
    ):
        with pytest.raises(NotFinite, match="rescale_betas_zero_snr"):
            run()
    pipe.scheduler = DDIMScheduler(prediction_type="v_prediction", **ZERO_SNR)
    plan = plan_of(pipe)
    assert finish_segment(pipe, initial_state(pipe, plan, 0), {"prompt": "a cat"}, plan)


def test_an_overflow_of_the_decoder_is_no_picture() -> None:
    """The latents are finite, and only the picture is not."""
    pipe = tiny_pipeline("sd1")
    with torch.no_grad():
        pipe.vae.decoder.conv_out.bias.fill_(torch.inf)
    plan = plan_of(pipe)
    state = initial_state(pipe, plan, 0)
    latents = run_segment(pipe, state, {"prompt": "a cat"}, plan, 3)
    assert bool(latents.latents.isfinite().all())
    for begun in (state, latents):
        with pytest.raises(NotFinite, match="computed pictures that are not finite"):
            finish_segment(pipe, begun, {"prompt": "a cat"}, plan)
    assert "postprocess" not in vars(pipe.image_processor)


def test_generate_draws_nothing_and_says_why(tmp_path: Path) -> None:
    """Alone and in a group, whose shared steps the edge server cannot compute."""
    from fedaigc.device.home.gallery import Gallery
    from fedaigc.device.home.home import Home
    from fedaigc.federation.output.records import read_record
    from fedaigc.federation.runtime.launcher import simulate

    save_small_model(tmp_path / "model")
    wrong: Any = DDIMScheduler(prediction_type="epsilon", **ZERO_SNR)
    wrong.save_pretrained(tmp_path / "model/scheduler")
    settings = GenerateSettings(
        tmp_path / "out",
        model={"name": str(tmp_path / "model"), "height": 32, "width": 32},
        generation={"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none"},
    )
    prompts = ["an apple on a table", "a lemon on a table"]
    with pytest.raises(UserError, match=r"2 of 2 prompts were not drawn.*not_finite.*rescale_betas_zero_snr"):
        run_generate(prompts, settings)
    config = settings.config(2)
    record = read_record(config.output)
    assert [task.failure for task in record.tasks] == ["not_finite", "not_finite"]
    assert [group.share_failure for group in record.tasks and record.generation.groups] == ["not_finite"]  # type: ignore[union-attr]
    assert not list(tmp_path.rglob("gallery/*.png"))
    # with a scheduler that fits the model, the same prompts are drawn
    right: Any = DDIMScheduler(prediction_type="v_prediction", clip_sample=False)
    right.save_pretrained(tmp_path / "model/scheduler")
    from fedaigc.federation.preloaded import base_model

    base_model.cache_clear()
    again = simulate(config)
    assert [task.failure for task in again.tasks] == [None, None]
    assert len(Gallery(Home(config.home(0))).all()) == 1
