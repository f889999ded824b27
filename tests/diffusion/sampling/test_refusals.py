"""States and plans that a segment refuses, and the stock pipeline that it leaves as it was."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.diffusion.handoff.packing import pack
from fedaigc.diffusion.sampling.segment import (
    decode,
    initial_state,
    run_segment,
)
from fedaigc.errors import UserError
from tests.diffusion.sampling.runs import PROMPT, set_up
from tests.diffusion.tiny_pipelines import Tiny


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

    def test_another_dtype(self, tiny: Tiny) -> None:
        pipe = tiny("sd1")
        plan = replace(set_up(pipe, "sd1", "DDIM"), dtype="float16")
        with pytest.raises(UserError, match="float32, the plan in float16"):
            initial_state(pipe, plan, 1)

    @pytest.mark.parametrize("name", ["sigmas", "step", "_fresh", "_internal_dict", "a.b", "__class__"])
    def test_a_history_that_reaches_past_the_running_values(self, tiny: Tiny, name: str) -> None:
        """Histories come from other machines: they may not replace methods, tables or configs."""
        pipe = tiny("sd1")
        plan = set_up(pipe, "sd1", "Euler")
        state = run_segment(pipe, initial_state(pipe, plan, 1), PROMPT, plan, 1)
        assert state.history is not None
        state = replace(state, history={**state.history, name: 0})
        with pytest.raises(UserError, match="not a running value"):
            run_segment(pipe, state, PROMPT, plan, 2)
