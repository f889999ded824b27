"""Noise of a mean: clipped differences, and shares that add up to what epsilon states."""

import numpy as np
import pytest
from dp_accounting import get_epsilon_gaussian

from fedaigc.collaboration.secure_sum.noise import clipping_norm, noised, share_std
from fedaigc.errors import UserError
from fedaigc.strategy.accountant import DELTA


@pytest.mark.parametrize(("epsilon", "members"), [(1.0, 3), (8.0, 3), (3.0, 10)])
def test_the_others_shares_have_the_stated_epsilon(epsilon: float, members: int) -> None:
    norm = 2.0
    left = share_std(epsilon, norm, members) * np.sqrt(members - 1)
    assert get_epsilon_gaussian(left / (2 * norm), DELTA) == pytest.approx(epsilon, rel=1e-3)


def test_what_a_member_gives_is_clipped_and_noisy() -> None:
    public = np.ones(20_000)
    own = public + 3.0
    plain = noised(own, public, 5.0, 0.0)
    assert np.linalg.norm(plain) == pytest.approx(5.0)
    near = public + 1e-3
    assert np.allclose(noised(near, public, 5.0, 0.0), 1e-3)
    noise = noised(own, public, 5.0, 0.7) - plain
    assert noise.std() == pytest.approx(0.7, rel=0.03)
    assert not np.array_equal(noise, noised(own, public, 5.0, 0.7) - plain)


def test_a_public_prompt_that_says_nothing_has_no_norm() -> None:
    assert clipping_norm(np.array([3.0, 0.0]), np.array([0.0, 4.0])) == 5.0
    with pytest.raises(UserError, match="no noise fits it"):
        clipping_norm(np.ones(3), np.ones(3))
