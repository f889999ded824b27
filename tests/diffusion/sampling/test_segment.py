"""Properties of segments besides exactness: counts, batches, precision, embeddings, foreign plans."""

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaigc.diffusion.handoff.packing import pack, unpack
from fedaigc.diffusion.sampling.segment import (
    DenoiserCount,
    decode,
    initial_state,
    run_segment,
)
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.errors import UserError
from tests.diffusion.sampling.runs import OTHER, PROMPT, set_up, stock, whole
from tests.diffusion.tiny_pipelines import Tiny, tiny_pipeline


@pytest.mark.parametrize(
    ("family", "scheduler", "guidance_scale", "calls", "samples"),
    [
        ("sd1", "DDIM", 1.0, 4, 4),
        ("sd1", "DDIM", 4.0, 4, 8),
        ("sd1", "PNDM", 4.0, 5, 10),
        ("sd1", "Heun", 4.0, 7, 14),
        ("sd3", "FlowMatchEuler", 1.0, 4, 4),
        ("sd3", "FlowMatchEuler", 4.0, 4, 8),
        ("flux", "FlowMatchEuler", 4.0, 4, 4),
    ],
)
def test_calls_and_samples_are_counted_apart(
    tiny: Tiny, family: str, scheduler: str, guidance_scale: float, calls: int, samples: int
) -> None:
    pipe = tiny(family)
    plan = set_up(pipe, family, scheduler, guidance_scale=guidance_scale)
    with DenoiserCount(pipe) as count:
        state = run_segment(pipe, initial_state(pipe, plan, 1), PROMPT, plan, 3)
        decode(pipe, state, plan)
        assert count.calls == 3
        run_segment(pipe, state, PROMPT, plan, plan.num_steps)
    assert (count.calls, count.samples) == (calls, samples) == (plan.num_steps, count.samples)
    run_segment(pipe, state, PROMPT, plan, plan.num_steps)
    assert count.calls == calls  # counting has ended


def test_true_guidance_of_flux_runs_the_network_twice_a_step(tiny: Tiny) -> None:
    pipe = tiny("flux")
    plan = set_up(pipe, "flux", "FlowMatchEuler", negative_prompt="blurry")
    with DenoiserCount(pipe) as count:
        whole(pipe, plan, PROMPT | {"true_cfg_scale": 3.0}, 1)
    assert (count.calls, count.samples) == (8, 8)


def test_a_group_costs_its_shared_steps_once(tiny: Tiny) -> None:
    """K + U (N - K) evaluations: 3 + 4 x 1 = 7 for four members, where solo runs take 16."""
    pipe = tiny("sd1")
    plan = set_up(pipe, "sd1", "DDIM", guidance_scale=1.0)
    with DenoiserCount(pipe) as count:
        shared = run_segment(pipe, initial_state(pipe, plan, 1), PROMPT, plan, 3)
        for _ in range(4):
            run_segment(pipe, shared, OTHER, plan, plan.num_steps)
    assert count.samples == 7


@pytest.mark.parametrize("scheduler", ["DDIM", "PNDM", "Heun", "EulerAncestral"])
def test_progress_is_told_in_steps_of_the_plan(tiny: Tiny, scheduler: str) -> None:
    pipe = tiny("sd1")
    plan = set_up(pipe, "sd1", scheduler)
    told: list[int] = []
    state = run_segment(pipe, initial_state(pipe, plan, 1), PROMPT, plan, 2, told.append)
    run_segment(pipe, state, PROMPT, plan, plan.num_steps, told.append)
    assert told == list(range(1, plan.num_steps + 1))


@pytest.mark.parametrize("scheduler", ["PNDM", "EulerAncestral", "UniPC"])
@pytest.mark.parametrize("family", ["sd1", "sdxl"])
def test_a_batch_is_the_batch_of_the_stock_pipeline(tiny: Tiny, family: str, scheduler: str) -> None:
    pipe = tiny(family)
    plan = set_up(pipe, family, scheduler, negative_prompt="blurry")
    both = {"prompt": [PROMPT["prompt"], OTHER["prompt"]]}
    expected = stock(pipe, plan, both, 5, negative_prompt=["blurry"] * 2)
    state = run_segment(pipe, initial_state(pipe, plan, 5, batch=2), both, plan, 2)
    assert torch.equal(run_segment(pipe, state, both, plan, plan.num_steps).latents, expected)


@pytest.mark.parametrize("scheduler", ["DDIM", "PNDM", "DPM++2M", "UniPC", "Heun"])
def test_members_finished_as_one_batch_agree_with_members_finished_alone(tiny: Tiny, scheduler: str) -> None:
    """Across batch sizes the kernels differ, so 5e-6 of the latents' size instead of equality."""
    pipe = tiny("sd1")
    plan = set_up(pipe, "sd1", scheduler)
    shared = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 3)
    prompts = [PROMPT["prompt"], OTHER["prompt"], "a cat"]
    together = run_segment(pipe, shared.repeated(3), {"prompt": prompts}, plan, plan.num_steps).latents
    for row, prompt in zip(together, prompts, strict=True):
        alone = run_segment(pipe, shared, {"prompt": prompt}, plan, plan.num_steps).latents[0]
        assert (row - alone).abs().max() <= 5e-6 * alone.abs().max()


def test_resuming_a_state_twice_gives_the_same_twice(tiny: Tiny) -> None:
    """Some schedulers add to their stored tensors in place; the state is not theirs."""
    pipe = tiny("sd1")
    for scheduler in ("PNDM", "PNDM-Runge-Kutta", "Heun", "UniPC", "LMS"):
        plan = set_up(pipe, "sd1", scheduler)
        state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 3)
        before = pack(state, plan)
        first = run_segment(pipe, state, PROMPT, plan, plan.num_steps)
        second = run_segment(pipe, state, PROMPT, plan, plan.num_steps)
        assert torch.equal(first.latents, second.latents)
        assert pack(state, plan) == before


@pytest.mark.parametrize("scheduler", ["PNDM", "EulerAncestral"])
def test_bfloat16_is_exact_too(scheduler: str) -> None:
    pipe = tiny_pipeline("sd1").to(torch.bfloat16)
    plan = set_up(pipe, "sd1", scheduler)
    assert plan.dtype == "bfloat16"
    expected = stock(pipe, plan, PROMPT, 5)
    for k in range(plan.num_steps + 1):
        state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, k)
        packet = pack(state, plan, noise_stream=True)
        state = run_segment(pipe, unpack(packet, plan), PROMPT, plan, plan.num_steps)
        assert state.latents.dtype == torch.bfloat16
        assert torch.equal(state.latents, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("scheduler", ["DDIM", "PNDM", "EulerAncestral", "UniPC", "Heun"])
def test_on_a_gpu(scheduler: str) -> None:
    pipe = tiny_pipeline("sd1").to("cuda")
    plan = set_up(pipe, "sd1", scheduler)
    expected = stock(pipe, plan, PROMPT, 5)
    state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 2)
    assert state.latents.device.type == "cuda"
    state = unpack(pack(state, plan), plan)
    assert state.latents.device.type == "cpu"
    assert torch.equal(run_segment(pipe, state, PROMPT, plan, plan.num_steps).latents, expected)


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_embeddings_stand_for_the_prompt(tiny: Tiny, family: str) -> None:
    from fedaigc.diffusion.encoding import encode_text

    pipe = tiny(family)
    plan = set_up(pipe, family, "FlowMatchEuler" if family in ("sd3", "flux") else "DDIM", guidance_scale=1.0)
    embeddings = encode_text(pipe, [PROMPT["prompt"]])
    by_prompt, by_embeddings = whole(pipe, plan, PROMPT, 5), whole(pipe, plan, embeddings, 5)
    assert torch.equal(by_prompt.latents, by_embeddings.latents)
    images = decode(pipe, by_prompt, plan), decode(pipe, by_embeddings.latents, plan, embeddings)
    assert images[0][0].tobytes() == images[1][0].tobytes()


def test_a_plan_from_another_machine_is_followed_to_its_last_bit(tiny: Tiny) -> None:
    """exp and log differ in the last place between processors; then the plan's values are used."""
    pipe = tiny("sd1")
    plan = set_up(pipe, "sd1", "Euler")
    sigmas = plan.sigmas
    assert sigmas is not None
    theirs = replace(plan, sigmas=(math.nextafter(sigmas[0], 99), sigmas[1] * (1 + 1e-6), *sigmas[2:]))
    ours, followed = whole(pipe, plan, PROMPT, 5), whole(pipe, theirs, PROMPT, 5)
    assert not torch.equal(ours.latents, followed.latents)
    assert torch.allclose(ours.latents, followed.latents, rtol=1e-4, atol=1e-3)
    other = replace(plan, sigmas=(sigmas[0] * 1.01, *sigmas[1:]))
    with pytest.raises(UserError, match="steps differ from those of the plan: sigmas"):
        whole(pipe, other, PROMPT, 5)
    with pytest.raises(UserError, match="steps differ from those of the plan: timesteps"):
        whole(pipe, replace(plan, num_inference_steps=5), PROMPT, 5)


@pytest.mark.slow
def test_stable_diffusion_1_4_in_its_true_configuration(tmp_path: Path) -> None:
    """860 M random weights at 128 px, N = 4 (five evaluations of PNDM), from the shipped defaults of v1-4."""
    from tests.diffusion.stable_diffusion_14 import stable_diffusion_14

    pipe = stable_diffusion_14()
    plan = build_plan(
        pipe, num_inference_steps=4, guidance_scale=7.5, height=128, width=128, base_hash="sd14"
    )
    assert plan.num_steps == 5
    latents = []

    def keep(_: Any, __: Any, ___: Any, values: dict[str, torch.Tensor]) -> dict[str, Any]:
        latents.append(values["latents"].clone())
        return {}

    pipe(
        **PROMPT,
        num_inference_steps=4,
        guidance_scale=7.5,
        height=128,
        width=128,
        generator=torch.Generator().manual_seed(5),
        callback_on_step_end=keep,
        output_type="latent",
    )
    assert min(((b - a).norm() / a.norm()).item() for a, b in pairwise(latents)) > 1e-4
    states = [initial_state(pipe, plan, 5)]
    for k in range(1, plan.num_steps + 1):
        states.append(run_segment(pipe, states[-1], PROMPT, plan, k))
        assert torch.equal(states[k].latents, latents[k - 1])
    for k in (1, 2, 3):
        state = unpack(pack(states[k], plan), plan)
        assert torch.equal(run_segment(pipe, state, PROMPT, plan, plan.num_steps).latents, latents[-1])
    other = run_segment(pipe, states[2], OTHER, plan, plan.num_steps).latents
    assert (other - latents[-1]).norm() > 1e-3 * latents[-1].norm()
