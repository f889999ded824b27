"""The effect of continuing without the history, and what the history costs."""

from dataclasses import replace

import pytest
import torch

from fedaigc.diffusion.handoff.packing import (
    check_handoff,
    pack,
    packet_layout,
    unpack,
)
from fedaigc.diffusion.sampling.segment import DenoisingState, initial_state, run_segment
from fedaigc.errors import UserError
from tests.diffusion.handoff.packets import LATENTS, PROMPT, plan_of
from tests.diffusion.schedule.test_plan import PLAN
from tests.diffusion.tiny_pipelines import Tiny


class TestHandOffOfLatents:
    """Return the relative error of the result against the stock run if the history is dropped at K."""

    @pytest.mark.parametrize("scheduler", ["DDIM", "Euler", "EulerAncestral", "DDPM", "LCM"])
    def test_one_step_schedulers_lose_nothing(self, tiny: Tiny, scheduler: str) -> None:
        pipe = tiny("sd1")
        plan = plan_of(pipe, scheduler)
        start = initial_state(pipe, plan, 5)
        whole = run_segment(pipe, start, PROMPT, plan, plan.num_steps).latents
        for k in range(plan.num_steps + 1):
            state = run_segment(pipe, start, PROMPT, plan, k)
            state = unpack(pack(state, plan, "latents", noise_stream=True), plan)
            assert torch.equal(run_segment(pipe, state, PROMPT, plan, plan.num_steps).latents, whole)

    @pytest.mark.parametrize(("scheduler", "steps"), [("Heun", 4), ("KDPM2Ancestral", 3)])
    def test_two_evaluation_schedulers_lose_nothing_between_their_steps(
        self, tiny: Tiny, scheduler: str, steps: int
    ) -> None:
        pipe = tiny("sd1")
        plan = plan_of(pipe, scheduler, steps)
        state = start = initial_state(pipe, plan, 5)
        whole = run_segment(pipe, start, PROMPT, plan, plan.num_steps).latents
        for k in range(plan.num_steps):
            state = run_segment(pipe, state, PROMPT, plan, k)
            if k % 2 == 0:
                resumed = unpack(pack(state, plan, "latents", noise_stream=True), plan)
                assert torch.equal(run_segment(pipe, resumed, PROMPT, plan, plan.num_steps).latents, whole)
            else:
                with pytest.raises(UserError, match="inside one of the two-evaluation steps"):
                    pack(state, plan, "latents")

    @pytest.mark.parametrize("scheduler", ["PNDM", "DPM++2M", "UniPC", "DEIS", "DPM++3M-Karras"])
    def test_multistep_schedulers_restart_at_first_order(self, tiny: Tiny, scheduler: str) -> None:
        """The end differs from the unsplit run, and by less than another prompt makes."""
        pipe = tiny("sd1")
        plan = plan_of(pipe, scheduler, steps=8)
        start = initial_state(pipe, plan, 5)
        whole = run_segment(pipe, start, PROMPT, plan, plan.num_steps).latents
        other = run_segment(pipe, start, {"prompt": "a lemon near a bed"}, plan, plan.num_steps).latents
        for k in (2, 4, 6):
            state = run_segment(pipe, start, PROMPT, plan, k)
            exact = run_segment(pipe, unpack(pack(state, plan), plan), PROMPT, plan, plan.num_steps)
            assert torch.equal(exact.latents, whole)
            alone = unpack(pack(state, plan, "latents"), plan)
            restarted = run_segment(pipe, alone, PROMPT, plan, plan.num_steps).latents
            error = (restarted - whole).norm()
            assert 1e-4 * whole.norm() < error < (other - whole).norm()

    def test_the_restarted_step_is_of_first_order(self, tiny: Tiny) -> None:
        """PNDM without history takes DDIM's step, x' = a x - b e(x), from the same latents."""
        pipe = tiny("sd1")
        plan = plan_of(pipe, "PNDM", steps=8)
        state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 4)
        restarted = run_segment(pipe, replace(state, history=None), PROMPT, plan, 5)
        ddim = plan_of(pipe, "DDIM", steps=8)
        assert ddim.timesteps[3] == plan.timesteps[4]
        same_place = DenoisingState(3, state.latents, None, 5, 1, ddim.fingerprint())
        expected = run_segment(pipe, same_place, PROMPT, ddim, 4).latents
        assert torch.allclose(restarted.latents, expected, rtol=1e-4, atol=1e-4)
        exact = run_segment(pipe, state, PROMPT, plan, 5).latents
        assert (exact - expected).abs().max() > 100 * (restarted.latents - expected).abs().max()

    @pytest.mark.parametrize(
        ("scheduler", "step", "reason"),
        [
            ("PNDM", 1, "first, two-evaluation step"),
            ("PNDM-Runge-Kutta", 3, "Runge-Kutta"),
            ("LMS", 2, "nothing is known about LMSDiscreteScheduler"),
            ("DPM-singlestep", 2, "nothing is known"),
        ],
    )
    def test_where_latents_alone_cannot_go_on(
        self, tiny: Tiny, scheduler: str, step: int, reason: str
    ) -> None:
        pipe = tiny("sd1")
        plan = plan_of(pipe, scheduler)
        state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, step)
        for attempt in (
            lambda: check_handoff(plan, step, "latents"),
            lambda: pack(state, plan, "latents"),
            lambda: run_segment(pipe, replace(state, history=None), PROMPT, plan, plan.num_steps),
        ):
            with pytest.raises(UserError, match=reason):
                attempt()
        check_handoff(plan, step, "exact")

    def test_a_lost_history_cannot_be_handed_on_as_exact(self) -> None:
        with pytest.raises(UserError, match="only be handed on as latents"):
            pack(unpack(LATENTS, PLAN), PLAN, "exact")


@pytest.mark.parametrize(
    ("scheduler", "kept"),
    [
        ("DDIM", 0),
        ("Euler", 0),
        ("EulerAncestral", 0),
        ("Heun", 2),
        ("DPM++2M", 2),
        ("UniPC", 3),
        ("PNDM", 4),
    ],
)
def test_what_the_history_costs(tiny: Tiny, scheduler: str, kept: int) -> None:
    """Whole latents beside the latents: none for one-step methods, two inside Heun's pair, four for PNDM."""
    pipe = tiny("sd1")
    plan = plan_of(pipe, scheduler, steps=8)
    state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 7)
    layout = packet_layout(pack(state, plan))
    latents, history = (end - first for first, end in (layout.latents, layout.history))
    assert history == kept * latents
