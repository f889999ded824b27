"""The content of a plan, what changes its fingerprint, and the position of the stage boundary."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.diffusion.handoff.packing import check_handoff
from fedaigc.diffusion.schedule.plan import (
    DenoisingPlan,
    boundary_log_snr,
    boundary_step,
    build_plan,
    log_snr,
)
from fedaigc.diffusion.schedule.stock_schedule import named_scheduler
from fedaigc.errors import UserError
from tests.diffusion.schedulers import scheduler_of
from tests.diffusion.tiny_pipelines import SIZE, Tiny
from tests.plans import with_boundary

PLAN = DenoisingPlan(
    scheduler_class="DDIMScheduler",
    scheduler_config='{"num_train_timesteps":1000,"trained_betas":[0.5,0.5,0.5]}',
    timesteps=(2.0, 1.0, 0.0),
    sigmas=None,
    guidance_scale=7.5,
    negative_prompt="",
    height=64,
    width=64,
    dtype="float32",
    base_hash="b" * 64,
    shared_hash="",
    num_inference_steps=3,
)


def plan_of(pipe: Any, **options: Any) -> DenoisingPlan:
    settings: dict[str, Any] = {
        "num_inference_steps": 11,
        "guidance_scale": 7.5,
        "height": SIZE,
        "width": SIZE,
        "base_hash": "b",
    }
    return build_plan(pipe, **(settings | options))


@pytest.mark.parametrize(
    ("name", "steps"),
    [("DDIM", 11), ("PNDM", 12), ("Euler", 11), ("DPM++2M", 11), ("UniPC", 11), ("Heun", 21)],
)
def test_steps_are_denoiser_evaluations(tiny: Tiny, name: str, steps: int) -> None:
    pipe = tiny("sd1")
    pipe.scheduler = scheduler_of("sd1", name)
    plan = plan_of(pipe)
    assert (plan.num_inference_steps, plan.num_steps) == (11, steps)
    pipe.scheduler.set_timesteps(11)
    assert plan.timesteps == tuple(pipe.scheduler.timesteps.tolist())
    assert (len(set(plan.timesteps)) < steps) == (steps > 11)
    # the pipeline was only asked
    assert type(pipe.scheduler) is type(scheduler_of("sd1", name))


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_dynamic_shifting_follows_the_image_size(tiny: Tiny, family: str) -> None:
    """The timesteps of the stock pipeline, which shifts them by the number of image tokens."""
    pipe = tiny(family)
    pipe.scheduler = scheduler_of(family, "FlowMatchEuler-dynamic")
    small, large = plan_of(pipe), plan_of(pipe, height=2 * SIZE, width=2 * SIZE)
    pipe("a cat", num_inference_steps=11, height=SIZE, width=SIZE, output_type="latent")
    assert small.timesteps == tuple(pipe.scheduler.timesteps.tolist())
    assert small.sigmas == tuple(pipe.scheduler.sigmas.tolist())
    assert small.timesteps != large.timesteps


def test_json_round_trip_keeps_every_bit(tiny: Tiny) -> None:
    for family in ("sd1", "sdxl", "sd3", "flux"):
        plan = plan_of(tiny(family), negative_prompt="ü")
        assert DenoisingPlan.from_json(plan.to_json()) == plan
        assert DenoisingPlan.from_json(plan.to_json()).fingerprint() == plan.fingerprint()
        assert hash(plan) == hash(DenoisingPlan.from_json(plan.to_json()))


def test_a_scheduler_config_with_infinities_survives(tiny: Tiny) -> None:
    """DPM-Solver's lambda_min_clipped is minus infinity by default."""
    pipe = tiny("sd1")
    pipe.scheduler = scheduler_of("sd1", "DPM++2M")
    plan = DenoisingPlan.from_json(plan_of(pipe).to_json())
    rebuilt = named_scheduler(plan.scheduler_class).from_config(json.loads(plan.scheduler_config))
    assert rebuilt.config.lambda_min_clipped == -math.inf


@pytest.mark.parametrize(
    "change",
    [
        {"scheduler_class": "PNDMScheduler"},
        {"scheduler_config": "{}"},
        {"timesteps": (2.0, 1.0, 1e-12)},
        {"sigmas": (1.0, 0.5, 0.1, 0.0)},
        {"guidance_scale": math.nextafter(7.5, 8)},
        {"negative_prompt": "blurry"},
        {"height": 72},
        {"width": 72},
        {"dtype": "bfloat16"},
        {"base_hash": "c" * 64},
        {"shared_hash": "c" * 64},
        {"num_inference_steps": 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_changes_the_fingerprint(change: Any) -> None:
    assert replace(PLAN, **change).fingerprint() != PLAN.fingerprint()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "[" * 100_000,
        '{"timesteps": [1]}',
        json.dumps(json.loads(PLAN.to_json()) | {"personal_hash": ""}),
        json.dumps(json.loads(PLAN.to_json()) | {"timesteps": []}),
        json.dumps(json.loads(PLAN.to_json()) | {"timesteps": [1, "2"]}),
        json.dumps(json.loads(PLAN.to_json()) | {"timesteps": [math.nan]}),
        json.dumps(json.loads(PLAN.to_json()) | {"timesteps": None}),
        json.dumps(json.loads(PLAN.to_json()) | {"sigmas": [1.0]}),
        json.dumps(json.loads(PLAN.to_json()) | {"guidance_scale": math.inf}),
        json.dumps(json.loads(PLAN.to_json()) | {"height": 64.0}),
        json.dumps(json.loads(PLAN.to_json()) | {"width": True}),
        json.dumps(json.loads(PLAN.to_json()) | {"height": 0}),
        json.dumps(json.loads(PLAN.to_json()) | {"base_hash": None}),
        json.dumps(json.loads(PLAN.to_json()) | {"scheduler_config": "[1]"}),
        json.dumps(json.loads(PLAN.to_json()) | {"num_inference_steps": 0}),
    ],
)
def test_what_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(UserError):
        DenoisingPlan.from_json(text)


@pytest.mark.parametrize(
    "name", ["Scheduler", "StableDiffusionPipeline", "os.system", "UNet2DConditionModel"]
)
def test_a_plan_cannot_name_anything_but_a_scheduler(name: str) -> None:
    with pytest.raises(UserError, match="scheduler"):
        log_snr(replace(PLAN, scheduler_class=name))


def test_impossible_settings_are_refused(tiny: Tiny) -> None:
    pipe = tiny("sd1")
    pipe.scheduler = scheduler_of("sd1", "DDIM")
    for options in (
        {"num_inference_steps": 0},
        {"num_inference_steps": 2000},
        {"guidance_scale": math.nan},
        {"height": SIZE + 1},
    ):
        with pytest.raises(UserError):
            plan_of(pipe, **options)


@pytest.mark.parametrize("name", ["DDIMScheduler", "PNDMScheduler", "EulerDiscreteScheduler"])
def test_steps_that_start_before_the_first_timestep_of_training_are_refused(tiny: Tiny, name: str) -> None:
    """Leading spacing: timesteps are 0 to 999 and an offset; where sigmas are kept none is looked up."""
    pipe = tiny("sd1")
    for offset in (0, 1):
        pipe.scheduler = getattr(diffusers, name)(steps_offset=offset)
        if offset and name != "EulerDiscreteScheduler":
            plan_of(pipe, num_inference_steps=900)
            with pytest.raises(UserError, match=r"timestep 1000.* 0 to 999"):
                plan_of(pipe, num_inference_steps=1000)
        else:
            plan_of(pipe, num_inference_steps=1000)


def test_a_scheduler_that_its_config_does_not_describe_is_refused(tiny: Tiny) -> None:
    pipe = tiny("sd3")
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    plan_of(pipe)
    pipe.scheduler.set_shift(3.0)
    with pytest.raises(UserError, match="set_shift"):
        plan_of(pipe)


def test_log_snr_of_a_schedule_computed_by_hand() -> None:
    """betas of 1/2 give alpha^2 = 1/2, 1/4, 1/8 and sigma^2 = 1/2, 3/4, 7/8: ratios 1, 1/3, 1/7."""
    expected = (-math.log(7), -math.log(3), 0.0)
    assert log_snr(PLAN) == pytest.approx(expected, abs=1e-6)
    half_way = replace(PLAN, timesteps=(1.5, 1.0, 0.5))
    expected = (-(math.log(7) + math.log(3)) / 2, -math.log(3), -math.log(3) / 2)
    assert log_snr(half_way) == pytest.approx(expected, abs=1e-6)


def test_log_snr_of_flow_matching_by_hand(tiny: Tiny) -> None:
    """x = (1 - s) x_0 + s e: s = 1 is only noise, s = 3/4 has (1/4 : 3/4)^2 = 1/9, s = 1/2 has 1."""
    pipe = tiny("sd3")
    pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
    plan = replace(plan_of(pipe), timesteps=(1000.0, 750.0, 500.0), sigmas=(1.0, 0.75, 0.5, 0.0))
    assert log_snr(plan) == pytest.approx((-math.inf, -2 * math.log(3), 0.0))
    assert boundary_log_snr(pipe, 750) == pytest.approx(-2 * math.log(3))
    assert boundary_log_snr(pipe, 0) == math.inf


@pytest.mark.parametrize("name", ["DDIM", "PNDM", "Euler", "DPM++2M", "UniPC", "Heun"])
def test_log_snr_rises_and_agrees_with_the_sigmas(tiny: Tiny, name: str) -> None:
    pipe = tiny("sd1")
    pipe.scheduler = scheduler_of("sd1", name)
    plan = plan_of(pipe)
    levels = log_snr(plan)
    assert all(a <= b for a, b in pairwise(levels))
    if plan.sigmas is not None:
        # these schedulers keep sigma / alpha at each step
        by_sigma = [-2 * math.log(sigma) for sigma in plan.sigmas[: plan.num_steps]]
        assert levels == pytest.approx(by_sigma, abs=0.02)


def test_boundary_step_is_the_first_clean_step() -> None:
    """Levels -ln 7 = -1.95, -ln 3 = -1.10, 0."""
    for boundary, step in ((None, 3), (-5.0, 0), (-1.5, 1), (-1.0, 2), (0.5, 3), (math.inf, 3)):
        assert boundary_step(PLAN, boundary) == step
    # a boundary stated by a timestep puts that timestep on the personal side
    scheduler = named_scheduler("DDIMScheduler").from_config(json.loads(PLAN.scheduler_config))
    for timestep, step in ((2, 0), (1, 1), (0, 2)):
        scheduler.config["num_train_timesteps"] = 3
        assert boundary_step(PLAN, boundary_log_snr(scheduler, timestep)) == step


@pytest.mark.parametrize("timestep", [-1, 1000, math.nan])
def test_a_boundary_outside_of_training_is_refused(timestep: float) -> None:
    with pytest.raises(UserError, match="0 to 999"):
        boundary_log_snr(diffusers.DDIMScheduler(), timestep)


@given(k=st.integers(-2, 6), boundary=st.integers(0, 3))
def test_hand_offs_are_legal_up_to_the_boundary(k: int, boundary: int) -> None:
    plan = with_boundary(PLAN, boundary)
    assert plan.boundary == boundary
    if 0 <= k <= boundary:
        check_handoff(plan, k)
    else:
        with pytest.raises(UserError, match=str(k)):
            check_handoff(plan, k)


def test_boundary_agrees_with_training(tiny: Tiny) -> None:
    """What `training` counts as personal timesteps is what a plan runs with the personal adapter."""
    from fedaigc.diffusion.adapters.stages import Stage
    from fedaigc.diffusion.training import TimestepSampler

    pipe = tiny("sd2")
    pipe.scheduler = scheduler_of("sd2", "DDIM")
    plan = plan_of(pipe, num_inference_steps=50)
    for t_star in (999, 500, 481, 1):
        boundary = boundary_log_snr(pipe, t_star)
        personal = set(TimestepSampler(pipe, Stage.PERSONAL, boundary).timesteps.tolist())
        first = replace(plan, boundary_log_snr=boundary).boundary
        assert [timestep in personal for timestep in plan.timesteps] == [
            step >= first for step in range(plan.num_steps)
        ]
        assert torch.tensor(sorted(personal)).equal(torch.arange(t_star + 1.0))
