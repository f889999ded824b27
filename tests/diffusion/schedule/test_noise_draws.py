"""The plans that need a noise stream, compared with what the segments of a real run draw."""

from dataclasses import replace

import pytest
import torch

from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.diffusion.schedule.noise_draws import draws_noise
from fedaigc.rng import derived_seed, noise_generator, wide_noise_seed
from tests.diffusion.handoff.packets import PROMPT, plan_of
from tests.diffusion.tiny_pipelines import Tiny


@pytest.mark.parametrize(
    ("scheduler", "draws"),
    [
        ("DDIM", False),
        ("PNDM", False),
        ("Heun", False),
        ("UniPC", False),
        ("DPM++2M", False),
        ("EulerAncestral", True),
        ("DDPM", True),
        ("LCM", True),
        ("KDPM2Ancestral", True),
        ("DPM++2M-SDE", True),
    ],
)
def test_the_scheduler_is_asked_whether_it_draws(tiny: Tiny, scheduler: str, draws: bool) -> None:
    pipe = tiny("sd1")
    plan = plan_of(pipe, scheduler)
    end = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, plan.num_steps)
    assert (end.draw_count > 1) == draws
    assert draws_noise(plan) == draws


def test_a_scheduler_that_cannot_be_tried_may_draw(tiny: Tiny) -> None:
    assert draws_noise(replace(plan_of(tiny("sd1"), "DDIM"), scheduler_class="UnheardOfScheduler"))


class TestNoiseGenerator:
    def test_a_seed_of_zero_and_more_is_that_of_the_stock_pipelines(self) -> None:
        for seed in (0, 7, 2**63 - 1):
            expected = torch.randn(64, generator=torch.Generator().manual_seed(seed))
            assert torch.equal(torch.randn(64, generator=noise_generator(seed)), expected)

    def test_pytorch_takes_the_low_32_bits_alone(self) -> None:
        """Why there are wide seeds; when this fails, PyTorch takes more, and they can go."""
        one, other = 12345, 12345 + (77 << 32)
        assert torch.equal(
            torch.randn(64, generator=noise_generator(one)), torch.randn(64, generator=noise_generator(other))
        )

    def test_all_bits_of_a_wide_seed_count(self) -> None:
        seeds = [wide_noise_seed(1 << bit) for bit in range(63)] + [wide_noise_seed(0)]
        drawn = {tuple(torch.randn(16, generator=noise_generator(seed)).tolist()) for seed in seeds}
        assert len(drawn) == 64
        assert torch.equal(
            torch.randn(16, generator=noise_generator(seeds[3])),
            torch.randn(16, generator=noise_generator(seeds[3])),
        )

    def test_wide_noise_is_white(self) -> None:
        """Over 100,000 values mean 0 and variance 1 within 5 standard errors, and no two streams alike."""
        count = 100_000
        first, second = (
            torch.randn(count, generator=noise_generator(wide_noise_seed(derived_seed(0, name))))
            for name in ("a", "b")
        )
        for values in (first, second):
            assert abs(values.mean()) < 5 / count**0.5
            assert abs(values.var() - 1) < 5 * (2 / count) ** 0.5
        assert abs((first * second).mean()) < 5 / count**0.5
        assert abs((first[1:] * first[:-1]).mean()) < 5 / count**0.5
