"""A small memoriser: a hostile server attacks a home with two private pictures of one style.

At b8a6c4d there were no limits: every agent behaved as this one does with `limited=False`.
"""

from pathlib import Path

import pytest

from experiments.privacy.private_pictures import (
    Attack,
    carry_out,
    compared,
    open_agent,
    summary,
    target,
)

SAMPLES = 16
PICTURES = 2
MEMORISER = Attack("memoriser", 100, 1, 32, 3e-3, 1.0, 4, None)


@pytest.mark.slow
def test_the_memoriser_gets_pictures_without_limits_and_none_with_the_defaults(tmp_path: Path) -> None:
    """Without limits, both pictures are at least 3 dB closer than the best of 400 others. With limits, the order is
    refused, and as many orders as the limits permit, each from the weights of the previous one, are no better than
    chance.
    """
    private = target("blob", PICTURES, SAMPLES, 0)

    def gain(attack: Attack, name: str, *, limited: bool) -> tuple[int, float, float]:
        outcome = carry_out(attack, open_agent(tmp_path / name, private, limited=limited))
        found = compared(private, outcome.shared, SAMPLES, 0)["without captions"]
        told = summary([value for value, _ in found], private.chance_without, 0)
        return outcome.answered, told["gain_db"]["low"], told["gain_db"]["mean"]

    answered, low, _ = gain(MEMORISER, "free", limited=False)
    assert answered == 1
    assert low >= 3
    answered, _, mean = gain(MEMORISER, "limited", limited=True)
    assert answered == 0
    assert mean < 0
    chained = Attack("many orders", 4, 1000, learning_rate=1e-3)
    answered, _, mean = gain(chained, "chained", limited=True)
    # 54 passes over two pictures are 108: three orders of 4 steps of 8
    assert answered == 3
    assert mean < 1
