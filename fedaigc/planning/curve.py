r"""The damage curve: how much the picture of a member changes, by hand-off and sharing distance.

D(K, d) is the upper end of the calibrated interval for K shared steps on a conditioning at distance d: of the mean
damage, or of the *risk*, the share of pictures that are damaged beyond a tolerance. Devices decide by the risk, and so
do planners in runs. A member of a tree takes part in several nodes. Each node that runs the steps from K_a to K_b adds
what these steps add at the member's distance to that node:

    damage = sum over its nodes of  D(K_b, d) - D(K_a, d)

For one node from the first step on, this is D(K, d). For several it is an assumption: that damages of successive steps
add up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from fedaigc.errors import UserError


@runtime_checkable
class MeasuredDamage(Protocol):
    """What a curve is taken from; `fedaigc.semantics.denoiser.calibration.Calibration` is one."""

    @property
    def steps(self) -> int:
        """N."""
        ...

    @property
    def handoffs(self) -> tuple[int, ...]:
        """The measured hand-offs, ascending."""
        ...

    @property
    def knots(self) -> Float[np.ndarray, " knots"]:
        """Distances, ascending from 0."""
        ...

    @property
    def curve(self) -> Mapping[int, Float[np.ndarray, "3 knots"]]:
        """For each hand-off, the damage and the ends of its interval."""
        ...


@runtime_checkable
class MeasuredRisk(Protocol):
    """What a curve of risks is taken from; the same `Calibration` is one."""

    @property
    def steps(self) -> int:
        """N."""
        ...

    @property
    def handoffs(self) -> tuple[int, ...]:
        """The measured hand-offs, ascending."""
        ...

    @property
    def knots(self) -> Float[np.ndarray, " knots"]:
        """Distances, ascending from 0."""
        ...

    def risks(self, tolerance: float) -> Mapping[int, Float[np.ndarray, "2 knots"]]:
        """For each hand-off, the share of pictures beyond a tolerance, and its upper end."""
        ...


@dataclass(frozen=True, eq=False)
class DamageCurve:
    """Damage by hand-off and distance, linear between knots; beyond the last knot no sharing is allowed.

    Attributes:
        steps: N, the number of denoising steps.
        ladder: The hand-offs K_1 < K_2 < ... that a plan may use, all below N. The steps up to the next one are a rung.
        knots: Distances, ascending from 0.
        upper: Damage at each hand-off and knot, at least 0, that falls along neither axis.

    Raises:
        UserError: If the arrays do not describe such a curve.
    """

    steps: int
    ladder: tuple[int, ...]
    knots: Float[np.ndarray, " knots"]
    upper: Float[np.ndarray, "rungs knots"]

    def __post_init__(self) -> None:
        rising = list(self.ladder) == sorted(set(self.ladder))
        if not self.ladder or not rising or not 0 < self.ladder[0] <= self.ladder[-1] < self.steps:
            raise UserError(
                f"the ladder is {self.ladder}: expected rising hand-offs from 1 to {self.steps - 1}"
            )
        if len(self.knots) < 2 or self.knots[0] != 0 or not (np.diff(self.knots) > 0).all():
            raise UserError("the knots of a damage curve must rise from 0")
        if self.upper.shape != (len(self.ladder), len(self.knots)) or not np.isfinite(self.upper).all():
            raise UserError(f"damages of shape {self.upper.shape}: expected finite ones, a row each hand-off")
        if (
            (self.upper < 0).any()
            or (np.diff(self.upper) < 0).any()
            or (np.diff(self.upper, axis=0) < 0).any()
        ):
            raise UserError("a damage curve may fall neither with the distance nor with the hand-off")

    @classmethod
    def of(cls, measured: MeasuredDamage, ladder: Sequence[int] | None = None) -> "DamageCurve":
        """Return the upper ends of a calibration.

        Args:
            measured: The calibration.
            ladder: The hand-offs to offer, all of them measured. Default: every measured one.

        Raises:
            UserError: If one of them was not measured.
        """
        chosen = measured.handoffs if ladder is None else tuple(ladder)
        if not set(chosen) <= set(measured.handoffs):
            raise UserError(f"the ladder is {chosen}: damage was measured at {measured.handoffs}")
        return cls(measured.steps, chosen, measured.knots, np.array([measured.curve[k][2] for k in chosen]))

    @classmethod
    def of_risk(
        cls, measured: MeasuredRisk, tolerance: float, ladder: Sequence[int] | None = None
    ) -> "DamageCurve":
        """Return the upper ends of the risk; the tolerance of the setting is then the largest risk.

        A plan of one node holds a member at distance d until K exactly if a device there takes K.

        Args:
            measured: The calibration.
            tolerance: The largest damage of a picture.
            ladder: The hand-offs to offer. One that was not measured counts as the next one that was. Default: every
                measured one.

        Raises:
            UserError: If one of them lies past the last measured one.
        """
        chosen = measured.handoffs if ladder is None else tuple(ladder)
        if not chosen or max(chosen) > max(measured.handoffs):
            raise UserError(f"the ladder is {chosen}: the risk was measured at {measured.handoffs}")
        risks = measured.risks(tolerance)
        rows = [risks[min(each for each in measured.handoffs if each >= k)][1] for k in chosen]
        return cls(measured.steps, chosen, measured.knots, np.array(rows))

    @property
    def rungs(self) -> tuple[int, ...]:
        """Number of steps of each rung."""
        return tuple(int(each) for each in np.diff([0, *self.ladder]))

    def damage(self, rung: int, distances: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return D at the hand-off that ends a rung; infinite beyond the last knot."""
        return np.interp(distances, self.knots, self.upper[rung], right=np.inf)

    def added(self, rung: int, distances: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
        """Return what the steps of one rung add to the damage; infinite beyond the last knot."""
        below = self.upper[rung - 1] if rung else np.zeros(len(self.knots))
        return np.interp(distances, self.knots, self.upper[rung] - below, right=np.inf)

    def radius(self, rung: int, tolerance: float) -> float:
        """Return the largest distance at which all steps up to the end of a rung stay within a tolerance.

        It is negative if not even a member at distance 0 may share them.
        """
        row = self.upper[rung]
        if row[0] > tolerance:
            return -1.0
        last = int(np.searchsorted(row, tolerance, side="right")) - 1
        if last == len(row) - 1:
            return float(self.knots[-1])
        share = (tolerance - row[last]) / (row[last + 1] - row[last])
        return float(self.knots[last] + share * (self.knots[last + 1] - self.knots[last]))
