"""Received latents, resumed at their own noise level."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, PNDMScheduler
from PIL import Image

from fedaigc.diffusion.handoff.packing import number_format_at
from fedaigc.diffusion.sampling.noise_matched import matched_log_snr, resume_noise_matched
from fedaigc.diffusion.sampling.segment import DenoisingState, finish_segment, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan, latents_std, log_snr
from fedaigc.errors import UserError
from fedaigc.rng import numpy_rng, rng

PROMPTS = {"prompt": [f"{noun} on a table" for noun in ("a dog", "a lemon", "a cup", "a tree")]}

Images = list[Image.Image]
Sent = tuple[DenoisingState, DenoisingPlan, Images]


@pytest.fixture(scope="module", params=["ddim", "euler"])
def drawn(request: pytest.FixtureRequest, pipe: Any) -> tuple[Any, Sent]:
    """A scheduler, four states after 5 of its 11 steps, their plan, and the images without any error."""
    stock = pipe.scheduler
    scheduler = EulerDiscreteScheduler.from_config(stock.config) if request.param == "euler" else stock
    pipe.scheduler = scheduler
    plan = build_plan(pipe, num_inference_steps=11, guidance_scale=5.0, height=64, width=64, base_hash="b")
    state = run_segment(pipe, initial_state(pipe, plan, 0, 4), PROMPTS, plan, 5)
    images = finish_segment(pipe, state, PROMPTS, plan)
    pipe.scheduler = stock
    return scheduler, (state, plan, images)


@pytest.fixture
def sent(drawn: tuple[Any, Sent], pipe: Any) -> Iterator[Sent]:
    """States, plan and images, with their scheduler in the pipeline. Tests change none of them."""
    stock, (pipe.scheduler, found) = pipe.scheduler, drawn
    yield found
    pipe.scheduler = stock


def distance(images: Images, expected: Images) -> float:
    pairs = zip(images, expected, strict=True)
    return float(np.mean([np.square(np.asarray(a, float) - np.asarray(b, float)).mean() for a, b in pairs]))


def test_without_errors_it_is_the_plan_itself(pipe: Any, sent: Sent) -> None:
    """Up to a timestep of 1 in 1,000, by which DDIM's own steps miss the next timestep of its list."""
    state, plan, expected = sent
    images, steps = resume_noise_matched(pipe, state, PROMPTS, plan, gain=1.0, error_variance=0.0)
    assert steps == 6
    assert distance(images, expected) < 4.0


def test_gaussian_errors_hurt_less_than_without(pipe: Any, sent: Sent) -> None:
    state, plan, expected = sent
    variance = latents_std(plan, 5) ** 2
    noise = torch.randn(state.latents.shape, generator=rng(0, "errors")) * variance**0.5
    received = replace(state, latents=state.latents + noise)
    naive = finish_segment(pipe, received, PROMPTS, plan)
    matched, steps = resume_noise_matched(pipe, received, PROMPTS, plan, gain=1.0, error_variance=variance)
    assert steps > 6
    assert distance(matched, expected) < distance(naive, expected)


def test_bit_flips_hurt_less_than_without(pipe: Any, sent: Sent) -> None:
    """At 6 % in plain fixed point: gain 1 - 2 p, for a bit keeps its sign 1 - p of the time."""
    state, plan, expected = sent
    number_format = number_format_at("fixed8", plan, 5)
    rates = np.full(8, 0.06)
    gain, variance = number_format.linear_error(latents_std(plan, 5), rates)
    assert gain == pytest.approx(1 - 2 * 0.06, rel=1e-3)
    bits = number_format.to_bits(state.latents.reshape(-1))
    flips = (numpy_rng(0, "flips").random(bits.shape) < rates).astype(np.uint8)
    latents = number_format.from_bits(bits ^ flips).reshape(state.latents.shape)
    measured = float((latents - gain * state.latents).square().mean())
    assert measured == pytest.approx(variance, rel=0.1)
    received = replace(state, latents=latents)
    naive = finish_segment(pipe, received, PROMPTS, plan)
    matched, _ = resume_noise_matched(pipe, received, PROMPTS, plan, gain=gain, error_variance=variance)
    assert distance(matched, expected) < distance(naive, expected)


def test_the_level_by_hand(sent: Sent) -> None:
    """Errors as strong as the noise itself cost ln 2; those of no bound lead to the first step."""
    _, plan, _ = sent
    level = log_snr(plan)[5]
    scale = latents_std(plan, 5)
    noise = (scale**2 / (1 + np.exp(level))) if plan.scheduler_class == "DDIMScheduler" else np.exp(-level)
    assert matched_log_snr(plan, 5, 1.0, float(noise)) == pytest.approx(level - np.log(2), abs=1e-6)


def test_errors_without_bound_cost_all_steps_again(pipe: Any, sent: Sent) -> None:
    state, plan, _ = sent
    _, steps = resume_noise_matched(pipe, state, PROMPTS, plan, gain=1.0, error_variance=1e9)
    assert steps == plan.num_steps


def test_what_is_refused(pipe: Any, sent: Sent) -> None:
    state, plan, _ = sent
    broken = replace(state, latents=torch.full_like(state.latents, float("nan")))
    with pytest.raises(UserError, match="not finite"):
        resume_noise_matched(pipe, broken, PROMPTS, plan, gain=1.0, error_variance=0.1)
    with pytest.raises(UserError, match="gain 0"):
        resume_noise_matched(pipe, state, PROMPTS, plan, gain=0.0, error_variance=0.1)
    stock, pipe.scheduler = pipe.scheduler, PNDMScheduler.from_config(pipe.scheduler.config)
    other = build_plan(pipe, num_inference_steps=11, guidance_scale=5.0, height=64, width=64, base_hash="b")
    pipe.scheduler = stock
    with pytest.raises(UserError, match="PNDMScheduler"):
        resume_noise_matched(pipe, state, PROMPTS, other, gain=1.0, error_variance=0.1)
