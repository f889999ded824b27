"""Shared steps of several groups in one batch: what each would be by itself, up to rounding."""

from typing import Any

import pytest
import torch

from fedaigc.device.batched_steps import Tree, run_batched_steps
from fedaigc.device.replies import Failure, SharedSteps
from fedaigc.device.shared_steps import Line, run_shared_steps
from fedaigc.diffusion.handoff.packing import unpack
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.segment import initial_state
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import UserError

TREES = (
    Tree(1, (Line("a fruit on a table", 0, (2,)),)),
    Tree(2, (Line("an animal", 0, (1, 3)), Line("a dog near a river", 1, (2, 4), 0))),
    Tree(3, (Line("a bus on a road", 0, (3,)),)),
)
# of the latents, whose standard deviation is 1
ROUNDING = 1e-4


@pytest.fixture(scope="module")
def small(small_model: Any) -> Any:
    return load_pipeline(str(small_model))


def plan_of(pipe: Any, scheduler: str | None = None) -> DenoisingPlan:
    import diffusers

    if scheduler is not None:
        pipe.scheduler = getattr(diffusers, scheduler).from_config(pipe.scheduler.config)
    return build_plan(
        pipe, num_inference_steps=4, guidance_scale=5.0, height=32, width=32, base_hash=base_fingerprint(pipe)
    )


def alone(pipe: Any, tree: Tree, plan: DenoisingPlan) -> SharedSteps:
    first, *others = tree.lines
    stop, *later = first.stops
    return run_shared_steps(
        pipe, first.prompt, plan, stop, noise_seed=tree.noise_seed, later=later, lines=others
    )


@pytest.mark.parametrize("scheduler", ["DDIMScheduler", "DPMSolverMultistepScheduler"])
def test_a_batch_computes_what_each_group_would_by_itself(small: Any, scheduler: str) -> None:
    """Lines end, divide and go on at different steps, with the history of a multistep sampler."""
    plan = plan_of(small, scheduler)
    together = run_batched_steps(small, TREES, plan, 3)
    for tree, found in zip(TREES, together, strict=True):
        expected = alone(small, tree, plan)
        assert isinstance(found, SharedSteps)
        assert (found.denoiser_calls, found.denoiser_samples) == (
            expected.denoiser_calls,
            expected.denoiser_samples,
        )
        packets, own = (found.packet, *found.later), (expected.packet, *expected.later)
        assert len(packets) == len(own) == sum(len(line.stops) for line in tree.lines)
        for one, other in zip(packets, own, strict=True):
            a, b = unpack(one, plan), unpack(other, plan)
            assert a.step == b.step
            assert (a.latents - b.latents).abs().max() <= ROUNDING
            assert (a.history or {}).keys() == (b.history or {}).keys()
            # a packet of a batch continues as any other
            assert a.latents.shape == b.latents.shape == (1, *a.latents.shape[1:])


def test_a_batch_of_one_is_exact(small: Any) -> None:
    plan = plan_of(small, "DDIMScheduler")
    assert run_batched_steps(small, TREES, plan, 1) == [alone(small, tree, plan) for tree in TREES]


def test_a_group_that_is_not_finite_fails_alone(small: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = plan_of(small, "DDIMScheduler")

    def broken(pipe: Any, plan: DenoisingPlan, seed: int) -> Any:
        state = initial_state(pipe, plan, seed)
        if seed == 2:
            state.latents[0, 0, 0, 0] = torch.inf
        return state

    monkeypatch.setattr("fedaigc.device.batched_steps.initial_state", broken)
    one, other, third = run_batched_steps(small, TREES, plan, 3)
    assert other is Failure.NOT_FINITE
    assert isinstance(one, SharedSteps)
    assert isinstance(third, SharedSteps)


def test_a_sampler_that_draws_noise_is_refused(small: Any) -> None:
    plan = plan_of(small, "EulerAncestralDiscreteScheduler")
    with pytest.raises(UserError, match="draws noise in its steps"):
        run_batched_steps(small, TREES, plan, 3)
