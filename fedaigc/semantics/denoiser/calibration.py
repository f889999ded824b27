"""How much sharing costs: the damage to a picture as a function of hand-off and sharing distance.

The damage of K shared steps on another prompt is label-free: the distance of the final latents to those of the run
alone from the same noise, as a share of their norm. `damage.py` measures it on pairs of public captions. Two curves are
fitted for each K, by isotonic regression over the distance [Bar72], and then the largest of all smaller K, since more
shared steps on the same prompt cannot cost less:

- the mean damage, with a 95 % interval, bootstrap over pairs: what a person looks at;
- the *risk*: the share of pictures whose damage exceeds a tolerance. By it a device decides. The same mean damage can
  be a small change of every picture, or another layout in a few: at few shared steps on a distant prompt it is the
  latter. The upper end is that of the exact 95 % one-sided interval [Clo34] over the 30 pairs that are next in
  distance, at least as far away: their risk is not smaller, and few pairs without damage do not pass for none.

Nothing is extrapolated: beyond the largest measured distance no hand-off is within any tolerance.

References:
    [Bar72] Barlow et al., "Statistical Inference under Order Restrictions", Wiley 1972.
    [Clo34] Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 26 (4), 1934.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from pydantic import ConfigDict, ValidationError, with_config

from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import DamagedFile, UserError
from fedaigc.rng import numpy_rng
from fedaigc.storage.atomic_file import write_json
from fedaigc.validation import first_mistake, typed_json

RESAMPLES = 400
TOLERANCE, RISK = 0.5, 0.2
"""Largest damage of a picture, and largest share of pictures beyond it, unless asked otherwise."""
_CONFIDENCE = 0.95
_WINDOW = 30
_TAIL = 2.5
_DIGEST = "sha256"


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
@dataclass(frozen=True)
class Calibration:
    """Measured pairs, and all that they hold for.

    Attributes:
        space: Hash of the space of the distances.
        plan: Fingerprint of the plan with which the pictures were drawn.
        scheduler: Its scheduler, for people.
        steps: N.
        guidance_scale: Guidance scale.
        captions: SHA-256 of the captions file.
        seed: Seed of the draw of pairs and of the noises.
        distances: Sharing distance of each pair.
        damages: For each hand-off K, as text, the damage of each pair.
        model: Name of the model, for people; "" if it is not known.
    """

    space: str
    plan: str
    scheduler: str
    steps: int
    guidance_scale: float
    captions: str
    seed: int
    distances: tuple[float, ...]
    damages: dict[str, tuple[float, ...]]
    model: str = ""

    def __post_init__(self) -> None:
        lengths = {len(values) for values in self.damages.values()}
        if len(self.distances) < 2 or lengths != {len(self.distances)}:
            raise UserError(
                "a calibration needs at least two pairs, and the damage of each at every hand-off"
            )
        if not all(key.isdecimal() and 0 < int(key) < self.steps for key in self.damages):
            raise UserError(
                f"a calibration has hand-offs from 1 to {self.steps - 1}, got {list(self.damages)}"
            )

    @property
    def handoffs(self) -> tuple[int, ...]:
        """The measured hand-offs K, ascending."""
        return tuple(sorted(map(int, self.damages)))

    @cached_property
    def knots(self) -> Float[np.ndarray, " knots"]:
        """Distances at which the curve is given, ascending, from 0."""
        return np.unique([0.0, *self.distances])

    @cached_property
    def curve(self) -> dict[int, Float[np.ndarray, "3 knots"]]:
        """For each K, the fitted damage and the ends of its interval at the knots."""
        random = numpy_rng(self.seed, "bootstrap")
        number = len(self.distances)
        fits = {k: [self._fitted(k, np.arange(number))] for k in self.handoffs}
        for _ in range(RESAMPLES):
            rows = random.integers(number, size=number)
            for k, fitted in fits.items():
                fitted.append(self._fitted(k, rows))
        found: dict[int, Float[np.ndarray, "3 knots"]] = {}
        below = np.zeros((RESAMPLES + 1, len(self.knots)))
        for k, fitted in fits.items():
            below = np.maximum(below, np.array(fitted))
            low, high = np.percentile(below[1:], [_TAIL, 100 - _TAIL], axis=0)
            # an upper end below a neighbour's would allow more at a larger distance
            found[k] = np.array([below[0], low, np.maximum.accumulate(np.maximum(high, below[0]))])
        return found

    def _fitted(self, k: int, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, " knots"]:
        from scipy.optimize import isotonic_regression

        # equal prompts do no damage
        x = np.array([0.0, *np.asarray(self.distances)[rows]])
        y = np.array([0.0, *np.asarray(self.damages[str(k)])[rows]])
        order = np.lexsort((y, x))
        return np.interp(self.knots, x[order], isotonic_regression(y[order]).x)

    def damage(self, k: int, distance: float) -> tuple[float, float, float]:
        """Return the expected damage at a hand-off and a distance, and the ends of its interval.

        Raises:
            UserError: If K was not measured, or the distance lies beyond the measured ones.
        """
        if k not in self.curve:
            raise UserError(f"no damage was measured for K = {k}: expected one of {self.handoffs}")
        if not 0 <= distance <= self.knots[-1]:
            raise UserError(f"distance {distance:.3g}: measured from 0 to {self.knots[-1]:.3g}")
        mean, low, high = (float(np.interp(distance, self.knots, row)) for row in self.curve[k])
        return mean, low, high

    def risk(self, k: int, distance: float, tolerance: float) -> tuple[float, float]:
        """Return the expected share of pictures whose damage exceeds a tolerance, and the upper end of its interval.

        Raises:
            UserError: As `damage`.
        """
        if k not in self.handoffs:
            raise UserError(f"no damage was measured for K = {k}: expected one of {self.handoffs}")
        if not 0 <= distance <= self.knots[-1]:
            raise UserError(f"distance {distance:.3g}: measured from 0 to {self.knots[-1]:.3g}")
        share, high = (float(np.interp(distance, self.knots, row)) for row in self.risks(tolerance)[k])
        return share, high

    def risks(self, tolerance: float) -> dict[int, Float[np.ndarray, "2 knots"]]:
        """For each K, the fitted share of pictures beyond a tolerance and its upper end, at the knots."""
        if tolerance not in self._risk_curves:
            found: dict[int, Float[np.ndarray, "2 knots"]] = {}
            below = np.zeros((2, len(self.knots)))
            for k in self.handoffs:
                below = np.maximum(below, self._exceeding(k, tolerance))
                found[k] = below
            self._risk_curves[tolerance] = found
        return self._risk_curves[tolerance]

    @cached_property
    def _risk_curves(self) -> dict[float, dict[int, Float[np.ndarray, "2 knots"]]]:
        return {}

    def _exceeding(self, k: int, tolerance: float) -> Float[np.ndarray, "2 knots"]:
        """Return the fitted share of damages beyond the tolerance at the knots, and its upper end."""
        from scipy.optimize import isotonic_regression
        from scipy.stats import beta

        beyond = np.asarray(self.damages[str(k)]) > tolerance
        distances = np.asarray(self.distances)
        order = np.lexsort((beyond, distances))
        x, y = distances[order], beyond[order].astype(float)
        fit = isotonic_regression(y)
        high = np.zeros(len(x))
        for start in range(len(x)):
            window = y[start : start + _WINDOW]
            hits, number = window.sum(), len(window)
            high[start] = 1.0 if hits == number else beta.ppf(_CONFIDENCE, hits + 1, number - hits)
        high = np.maximum(high, fit.x)
        # equal prompts do no damage
        return np.array(
            [
                np.interp(self.knots, [0.0, *x], [0.0, *fit.x]),
                np.interp(self.knots, [0.0, *x], [0.0, *np.maximum.accumulate(high)]),
            ]
        )

    def last_handoff(
        self,
        distance: float,
        tolerance: float,
        ladder: Sequence[int] | None = None,
        *,
        risk: float = RISK,
    ) -> int:
        """Return the last hand-off of a ladder at which a picture is within a tolerance, at a given risk.

        A hand-off that was not measured counts as the next one that was, whose damage is not smaller.

        Args:
            distance: Sharing distance of the own prompt and the one of the shared steps.
            tolerance: The largest damage of a picture.
            ladder: The hand-offs that are offered. Default: all measured.
            risk: The largest share of pictures beyond the tolerance, by the upper end of its interval.

        Returns:
            K; 0 if the prompt should run alone.
        """
        if not 0 <= distance <= self.knots[-1]:
            return 0
        allowed = max((k for k in self.handoffs if self.risk(k, distance, tolerance)[1] <= risk), default=0)
        return max((k for k in (self.handoffs if ladder is None else ladder) if k <= allowed), default=0)

    def last_handoff_along(
        self, distances: Sequence[float], tolerance: float, ladder: Sequence[int], *, risk: float = RISK
    ) -> int:
        """Return the last hand-off of a ladder within the tolerance, where shared steps change their prompt.

        What the steps from K_a to K_b add on a prompt at distance d is R(K_b, d) - R(K_a, d), where R is the upper end
        of `risk`, and the sum stays within the given one. At equal distances this is `last_handoff`. Otherwise it
        is an assumption: that risks of successive steps add up.

        Args:
            distances: For each hand-off, the distance of the own prompt to the one of the steps that end there.
            tolerance: The largest damage of a picture.
            ladder: The hand-offs that are offered, ascending.
            risk: The largest share of pictures beyond the tolerance.

        Returns:
            K; 0 if the prompt should run alone.
        """
        # what the steps on earlier prompts cost, and where those on the current one began
        before, began, found = 0.0, 0, 0
        for number, (k, distance) in enumerate(zip(ladder, distances, strict=True)):
            if number and distance != distances[number - 1]:
                before += self._upper(found, distances[number - 1], tolerance)
                before -= self._upper(began, distances[number - 1], tolerance)
                began = found
            added = self._upper(k, distance, tolerance) - self._upper(began, distance, tolerance)
            if not before + added <= risk:
                break
            found = k
        return found

    def _upper(self, k: int, distance: float, tolerance: float) -> float:
        """Return the upper end of the risk at the next measured hand-off; infinite beyond what was measured."""
        measured = [each for each in self.handoffs if each >= k]
        if not k:
            return 0.0
        if not measured or not 0 <= distance <= self.knots[-1]:
            return math.inf
        return float(np.interp(distance, self.knots, self.risks(tolerance)[measured[0]][1]))

    def check_fits(self, space: str, plan: DenoisingPlan, name: str = "the calibration") -> None:
        """Check that the calibration was measured for a space and a plan.

        Args:
            space: Hash of the space of the distances.
            plan: The plan of the pictures.
            name: What the message calls it, such as its file.

        Raises:
            UserError: If it was not; the message names what differs.
        """
        told: Mapping[str, tuple[object, object]] = {
            "N": (self.steps, plan.num_steps),
            "guidance": (self.guidance_scale, plan.guidance_scale),
            "the scheduler": (self.scheduler, plan.scheduler_class),
        }
        different = [
            f"{what} ({one} there, {other} here)" for what, (one, other) in told.items() if one != other
        ]
        if self.space != space:
            of = f" (it was measured with the model {self.model!r})" if self.model else ""
            different.append(f"the model, its dtype or size, --noises or --dimensions{of}")
        if different:
            raise UserError(f"{name} is for another setting: {'; '.join(different)}; calibrate anew")

    def write(self, path: Path) -> None:
        """Write the calibration as JSON with its digest, atomically."""
        values = asdict(self)
        write_json(path, {**values, _DIGEST: _digest(values)})

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        """Read a calibration.

        Raises:
            UserError: If there is no such file.
            DamagedFile: If it is no calibration, or was changed after it was measured.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise UserError(f"no calibration {path}: {error.strerror or error}") from None
        try:
            values = json.loads(content)
            digest = values.pop(_DIGEST, None) if isinstance(values, dict) else None
            found = typed_json(cls, json.dumps(values))
        except UserError as error:
            raise DamagedFile(f"{path} is no calibration: {error}") from None
        except ValidationError as error:
            raise DamagedFile(f"{path} is no calibration: {first_mistake(error)}") from None
        except ValueError as error:
            raise DamagedFile(f"{path} is no calibration: {error}") from None
        if digest is not None and digest != _digest(values):
            raise DamagedFile(f"{path} was changed after it was measured: calibrate anew")
        return found


def _digest(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of what was measured."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
