"""The memoriser in small: two private pictures of one hand, and a server that wants them.

At b8a6c4d there were no limits: what `limited=False` shows here is what every agent did there.
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
    """Without: both pictures 3 dB and more above the best of 400 others. With: no order is answered; and as
    many orders as the limits leave, each from the weights of the one before, are no better than chance.
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
