"""Properties of segments besides exactness: counts, noise streams, batches, refusals, an unchanged pipeline."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.diffusion.handoff.packing import pack, unpack
from fedaigc.diffusion.sampling.segment import (
    DenoiserCount,
    DenoisingState,
    decode,
    initial_state,
    run_segment,
)
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import UserError
from tests.diffusion.schedulers import scheduler_of
from tests.diffusion.tiny_pipelines import SIZE, Tiny, tiny_pipeline

PROMPT = {"prompt": "an apple on a table"}
OTHER = {"prompt": "a lemon near a bed"}
Conditioning = Mapping[str, Any]


def set_up(
    pipe: Any, family: str, scheduler: str, steps: int = 4, guidance_scale: float = 4.0, **options: Any
) -> DenoisingPlan:
    pipe.scheduler = scheduler_of(family, scheduler)
    return build_plan(
        pipe,
        num_inference_steps=steps,
        guidance_scale=guidance_scale,
        height=SIZE,
        width=SIZE,
        base_hash="base",
        **options,
    )


def stock(
    pipe: Any, plan: DenoisingPlan, conditioning: Conditioning, seed: int, **options: Any
) -> torch.Tensor:
    return pipe(
        **conditioning,
        num_inference_steps=plan.num_inference_steps,
        guidance_scale=plan.guidance_scale,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(seed),
        output_type="latent",
        **options,
    ).images


def whole(
    pipe: Any, plan: DenoisingPlan, conditioning: Conditioning, seed: int, batch: int = 1
) -> DenoisingState:
    return run_segment(pipe, initial_state(pipe, plan, seed, batch), conditioning, plan, plan.num_steps)


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


class TestNoiseStreams:
    @pytest.mark.parametrize("scheduler", ["EulerAncestral", "DDPM", "LCM", "KDPM2Ancestral", "DPM++2M-SDE"])
    def test_the_carried_stream_goes_on_where_it_was(self, tiny: Tiny, scheduler: str) -> None:
        pipe = tiny("sd1")
        plan = set_up(pipe, "sd1", scheduler)
        expected = stock(pipe, plan, PROMPT, 5)
        state = initial_state(pipe, plan, 5)
        drawn = [state.draw_count]
        while state.step < plan.num_steps:
            state = run_segment(
                pipe,
                unpack(pack(state, plan, noise_stream=True), plan),
                PROMPT,
                plan,
                state.step + 1,
            )
            drawn.append(state.draw_count)
        assert torch.equal(state.latents, expected)
        assert drawn[0] == 1
        assert drawn[-1] > 1
        assert drawn == sorted(drawn)

    def test_another_member_takes_its_own_stream_after_k(self, tiny: Tiny) -> None:
        """Reference: the stock pipeline, its generator seeded anew in the callback after step K."""
        pipe = tiny("sd1")
        plan = set_up(pipe, "sd1", "EulerAncestral")
        shared = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 2)
        ends = {5: run_segment(pipe, shared, PROMPT, plan, plan.num_steps).latents}
        for own in (6, 7):
            generator = torch.Generator().manual_seed(5)

            def reseed(
                _: Any, index: int, __: Any, ___: Any, generator: torch.Generator = generator, own: int = own
            ) -> dict[str, Any]:
                if index + 1 == 2:
                    generator.manual_seed(own)
                return {}

            expected = pipe(
                **PROMPT,
                num_inference_steps=4,
                guidance_scale=4.0,
                height=SIZE,
                width=SIZE,
                generator=generator,
                callback_on_step_end=reseed,
                output_type="latent",
            ).images
            ends[own] = run_segment(pipe, shared.with_noise_stream(own), PROMPT, plan, plan.num_steps).latents
            assert torch.equal(ends[own], expected)
        for one in ends:
            for other in ends:
                assert torch.equal(ends[one], ends[other]) == (one == other)

    def test_ddim_with_noise(self, tiny: Tiny) -> None:
        pipe = tiny("sd1")
        plan = set_up(pipe, "sd1", "DDIM")
        expected = stock(pipe, plan, PROMPT, 5, eta=0.7)
        for k in range(plan.num_steps):
            state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT | {"eta": 0.7}, plan, k)
            state = run_segment(pipe, state, PROMPT | {"eta": 0.7}, plan, plan.num_steps)
            assert torch.equal(state.latents, expected)

    def test_a_pipeline_that_passes_no_generator_draws_from_the_stream_all_the_same(self, tiny: Tiny) -> None:
        """SD3 leaves a stochastic scheduler to the global stream; here seed and state decide alone."""
        pipe = tiny("sd3")
        pipe.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0, stochastic_sampling=True)
        plan = build_plan(
            pipe, num_inference_steps=4, guidance_scale=4.0, height=SIZE, width=SIZE, base_hash="base"
        )
        torch.manual_seed(1)
        unsplit = whole(pipe, plan, PROMPT, 5)
        torch.manual_seed(2)
        split = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 2)
        split = run_segment(pipe, split, PROMPT, plan, plan.num_steps)
        assert torch.equal(split.latents, unsplit.latents)
        assert unsplit.draw_count == 5
        assert not torch.equal(unsplit.latents, whole(pipe, plan, PROMPT, 6).latents)


@pytest.mark.parametrize("scheduler", ["DDIM", "PNDM", "EulerAncestral", "UniPC"])
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


class TestTheStockPipelineIsLeftAsItWas:
    @given(k=st.integers(0, 4))
    @settings(max_examples=5, deadline=None)
    def test_after_a_segment(self, tiny: Tiny, k: int) -> None:
        pipe = tiny("sd1")
        plan = set_up(pipe, "sd1", "UniPC")
        scheduler, config = pipe.scheduler, json.dumps(pipe.config, default=str)
        inner = {name: str(value) for name, value in vars(scheduler).items()}
        run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, k)
        assert pipe.scheduler is scheduler
        assert {name: str(value) for name, value in vars(scheduler).items()} == inner
        assert json.dumps(pipe.config, default=str) == config

    def test_after_an_error_in_the_middle(self, tiny: Tiny) -> None:
        pipe = tiny("sd1")
        plan = set_up(pipe, "sd1", "PNDM")
        scheduler, bar = pipe.scheduler, dict(pipe._progress_bar_config)

        def stop(_: object) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 3, stop)
        assert pipe.scheduler is scheduler
        assert pipe._progress_bar_config == bar


class TestRefusals:
    def test_a_state_of_another_plan(self, tiny: Tiny) -> None:
        pipe = tiny("sd1")
        plan = set_up(pipe, "sd1", "DDIM")
        other = replace(plan, guidance_scale=2.0)
        state = initial_state(pipe, other, 1)
        for attempt in (
            lambda: run_segment(pipe, state, PROMPT, plan, 1),
            lambda: decode(pipe, state, plan),
            lambda: pack(state, plan),
        ):
            with pytest.raises(UserError, match=f"{other.fingerprint()}.*{plan.fingerprint()}"):
                attempt()

    @pytest.mark.parametrize("stop", [-1, 1, 5])
    def test_a_stop_before_the_state_or_past_the_end(self, tiny: Tiny, stop: int) -> None:
        pipe = tiny("sd1")
        plan = set_up(pipe, "sd1", "DDIM")
        state = run_segment(pipe, initial_state(pipe, plan, 1), PROMPT, plan, 2)
        with pytest.raises(UserError, match=f"from step 2 to {stop}"):
            run_segment(pipe, state, PROMPT, plan, stop)

    @pytest.mark.parametrize(
        ("conditioning", "message"),
        [
            ({}, "prompt"),
            (PROMPT | {"guidance_scale": 3.0}, "guidance_scale, which the plan fixes"),
            (PROMPT | {"callback_on_step_end": print}, "counts steps"),
            (PROMPT | {"colour": "red"}, "does not take colour"),
            ({"prompt": ["a", "b"]}, "2 images, but latents of 1"),
            (PROMPT | {"num_images_per_prompt": 3}, "3 images, but latents of 1"),
        ],
        ids=["none", "fixed", "counting", "unknown", "two", "three"],
    )
    def test_conditioning_that_does_not_fit(self, tiny: Tiny, conditioning: Any, message: str) -> None:
        pipe = tiny("sd1")
        plan = set_up(pipe, "sd1", "DDIM")
        with pytest.raises(UserError, match=message):
            run_segment(pipe, initial_state(pipe, plan, 1), conditioning, plan, 1)

    def test_skipped_layers_of_sd3(self, tiny: Tiny) -> None:
        pipe = tiny("sd3")
        plan = set_up(pipe, "sd3", "FlowMatchEuler")
        with pytest.raises(UserError, match="counts steps"):
            whole(pipe, plan, PROMPT | {"skip_guidance_layers": [0]}, 1)

    def test_another_dtype(self, tiny: Tiny) -> None:
        pipe = tiny("sd1")
        plan = replace(set_up(pipe, "sd1", "DDIM"), dtype="float16")
        with pytest.raises(UserError, match="float32, the plan in float16"):
            initial_state(pipe, plan, 1)

    @pytest.mark.parametrize("name", ["sigmas", "step", "_window", "_internal_dict", "a.b", "__class__"])
    def test_a_history_that_reaches_past_the_running_values(self, tiny: Tiny, name: str) -> None:
        """Histories come from other machines: they may not replace methods, tables or configs."""
        pipe = tiny("sd1")
        plan = set_up(pipe, "sd1", "Euler")
        state = run_segment(pipe, initial_state(pipe, plan, 1), PROMPT, plan, 1)
        assert state.history is not None
        state = replace(state, history={**state.history, name: 0})
        with pytest.raises(UserError, match="not a running value"):
            run_segment(pipe, state, PROMPT, plan, 2)


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
