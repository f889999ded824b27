"""Gaussian noise on a mean of conditionings: each member clips its own and adds its share before it is masked.

With the conditioning c of a member, that of the group's public prompt p and of the empty prompt 0,

    d = (c - p) min(1, S / |c - p|),   S = |p - 0|

is what a member gives to the sum, so that another prompt in its place changes the sum by at most 2 S. The n shares add
up to noise of standard deviation sigma 2 S sqrt(n / (n - 1)), where sigma is that of the analytic Gaussian mechanism
[Bal18] at the stated epsilon and delta. The surplus is there because a member can subtract its own share: what is
left has the stated epsilon, for another prompt in place of any one of the others'. Of c members that collude, the
shares of n - c are left: epsilon is larger then.

S depends on public prompts alone. Noise is drawn from the operating system, so a run with noise does not repeat. The
noisy values are rounded to the grid of `fixed_point` before they are sent, which hides how floating-point noise was
made (Mironov 2012).

References:
    [Bal18] Balle and Wang, "Improving the Gaussian mechanism for differential privacy", ICML 2018, arXiv:1805.06530.
"""

import math

import numpy as np
from jaxtyping import Float64

from fedaigc.errors import UserError
from fedaigc.strategy.accountant import DELTA
from fedaigc.strategy.secret_noise import secret_normal


def clipping_norm(public: Float64[np.ndarray, " n"], empty: Float64[np.ndarray, " n"]) -> float:
    """Return S.

    Raises:
        UserError: If the public prompt is as good as empty.
    """
    norm = float(np.linalg.norm(public - empty))
    if not norm > 0 or not math.isfinite(norm):
        raise UserError(
            f"the public prompt of a group has distance {norm:g} from the empty one: no noise fits it"
        )
    return norm


def share_std(epsilon: float, norm: float, members: int) -> float:
    """Return the standard deviation of one member's share of the noise, at delta `DELTA`.

    Args:
        epsilon: Epsilon.
        norm: S.
        members: n, at least 2.
    """
    # imported here: dp-accounting takes a while to load, and most runs have no noise
    from dp_accounting import get_sigma_gaussian

    return float(get_sigma_gaussian(epsilon, DELTA)) * 2 * norm / math.sqrt(members - 1)


def noised(
    values: Float64[np.ndarray, " n"], public: Float64[np.ndarray, " n"], norm: float, std: float
) -> Float64[np.ndarray, " n"]:
    """Return a member's difference to the public prompt, clipped to `norm`, with its share of the noise."""
    difference = values - public
    length = float(np.linalg.norm(difference))
    if length > norm:
        difference *= norm / length
    return difference + std * secret_normal(len(values))
