"""The noise of ancestral schedulers follows from a seed, however a run is divided."""

from typing import Any

import diffusers
import pytest
import torch

from fedaigc.diffusion.handoff.packing import pack, unpack
from fedaigc.diffusion.sampling.segment import (
    initial_state,
    run_segment,
)
from fedaigc.diffusion.schedule.plan import build_plan
from tests.diffusion.sampling.runs import PROMPT, set_up, stock, whole
from tests.diffusion.tiny_pipelines import SIZE, Tiny


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
