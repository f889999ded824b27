"""A calibration: a curve that is monotone in distance and hand-off, and never trusts what was not measured."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.errors import DamagedFile, UserError
from fedaigc.planning.curve import DamageCurve
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.damage import default_handoffs, measure_damage, spread_pairs
from fedaigc.semantics.denoiser.plot import plot_calibration
from tests.semantics.denoiser.test_sharing_distance import plan_of


def calibration(seed: int = 0, pairs: int = 20) -> Calibration:
    random = np.random.default_rng(seed)
    distances = np.sort(random.uniform(0, 10, pairs))
    damages = {
        str(k): tuple((distances * k / 50 + random.normal(0, 0.1, pairs)).clip(0).tolist()) for k in (2, 5, 8)
    }
    return Calibration("s", "p", "DDIMScheduler", 10, 5.0, "c", seed, tuple(distances.tolist()), damages)


@given(st.integers(0, 10))
def test_damage_never_falls_with_distance_or_hand_off(seed: int) -> None:
    found = calibration(seed)
    for row in range(3):
        below = np.zeros(len(found.knots))
        for k in found.handoffs:
            curve = found.curve[k][row]
            if row != 1:
                assert (np.diff(curve) >= -1e-12).all()
            assert (curve >= below - 1e-12).all()
            below = curve
    for k in found.handoffs:
        mean, low, high = found.curve[k]
        assert (low <= high).all()
        assert (mean <= high).all()


def test_the_last_hand_off_is_the_last_at_which_few_pictures_are_beyond_the_tolerance() -> None:
    found = calibration(pairs=60)
    for distance in (0.0, 1.0, 4.0, 9.0):
        for tolerance in (0.0, 0.1, 0.3, 1.0, 5.0):
            for risk in (0.05, 0.1, 0.5, 1.0):
                k = found.last_handoff(distance, tolerance, risk=risk)
                fitting = [k for k in found.handoffs if found.risk(k, distance, tolerance)[1] <= risk]
                assert k == max(fitting, default=0)
    assert found.last_handoff(0.0, 0.0) == 8
    assert found.last_handoff(1.0, 5.0, ladder=(2, 5)) == 5
    # 3 was not measured: its damage is at most that of 5
    assert found.last_handoff(1.0, 5.0, ladder=(3,)) == 3
    assert found.last_handoff(1.0, 5.0, ladder=(9,)) == 0


def test_on_one_prompt_the_way_is_the_last_hand_off() -> None:
    """And a planner that reads the curve of risks holds a member exactly as long as a device shares."""
    found = calibration(pairs=40)
    distances = (0.0, 0.4, 2.0, 5.5, float(found.knots[-1]), 11.0)
    for tolerance in (0.05, 0.4):
        for ladder in ((2, 5, 8), (3, 7)):
            curve = DamageCurve.of_risk(found, tolerance, ladder)
            for distance in distances:
                uppers = [float(curve.damage(rung, np.array([distance]))[0]) for rung in range(len(ladder))]
                for risk in filter(np.isfinite, (0.0, 0.2, *uppers, *(each - 1e-9 for each in uppers))):
                    k = found.last_handoff(distance, tolerance, ladder, risk=risk)
                    way = [distance] * len(ladder)
                    assert found.last_handoff_along(way, tolerance, ladder, risk=risk) == k
                    fitting = [
                        step for step, each in zip(ladder, uppers, strict=True) if each <= risk < np.inf
                    ]
                    assert k == max(fitting, default=0)
    assert found.last_handoff_along([1.0] * 3, 5.0, (2, 5, 9)) == found.last_handoff(1.0, 5.0, (2, 5, 9)) == 5
    with pytest.raises(UserError, match="the risk was measured at"):
        DamageCurve.of_risk(found, 0.4, (5, 9))


def test_a_nearer_prompt_for_later_steps_adds_what_these_steps_add_there() -> None:
    found = calibration(pairs=60)
    tolerance = 0.5

    def upper(k: int, distance: float) -> float:
        return found.risk(k, distance, tolerance)[1]

    way, ladder = (6.0, 3.0, 3.0), (2, 5, 8)
    sums = [
        upper(2, 6.0),
        upper(2, 6.0) + upper(5, 3.0) - upper(2, 3.0),
        upper(2, 6.0) + upper(8, 3.0) - upper(2, 3.0),
    ]
    assert sums[0] <= sums[1] < sums[2]
    for risk in (*sums, *(each - 1e-6 for each in sums)):
        fitting = [k for k, each in zip(ladder, sums, strict=True) if each <= risk + 1e-12]
        taken = found.last_handoff_along(way, tolerance, ladder, risk=risk + 1e-9)
        assert taken == max(fitting, default=0)
    # beyond what was measured nothing is added, and what came before stays
    assert found.last_handoff_along((3.0, 99.0, 3.0), tolerance, ladder, risk=1.0) == 2
    assert found.last_handoff_along((99.0, 3.0, 3.0), tolerance, ladder, risk=1.0) == 0


@pytest.mark.parametrize(("pairs", "upper"), [(10, 0.2589), (29, 0.0981), (60, 0.0950)])
def test_few_pairs_without_damage_do_not_pass_for_none(pairs: int, upper: float) -> None:
    """Of n pairs without damage, at most 30, the exact one-sided 95 % bound is 1 - .05^(1/n)."""
    distances = tuple(range(1, pairs + 1))
    found = Calibration("s", "p", "DDIMScheduler", 10, 5.0, "c", 0, distances, {"2": (0.1,) * pairs})
    share, high = found.risk(2, 1.0, 0.2)
    assert share == 0.0
    assert high == pytest.approx(upper, abs=1e-4)
    # beyond the last pair there is only itself
    assert found.risk(2, pairs, 0.2)[1] == pytest.approx(0.95)
    assert found.risk(2, 1.0, 0.05) == (1.0, 1.0)
    # equal prompts do no damage
    assert found.risk(2, 0.0, 0.05) == (0.0, 0.0)


def test_equal_means_of_damage_are_not_equal_risks() -> None:
    """Every picture changed by .25, or a quarter of them by 1: only the first is within a tolerance of .3."""
    distances = tuple(range(1, 81))
    spread: dict[str, tuple[float, ...]] = {"2": (0.25,) * 80, "3": (1.0, 0.0, 0.0, 0.0) * 20}
    found = Calibration("s", "p", "DDIMScheduler", 10, 5.0, "c", 0, distances, spread)
    assert found.last_handoff(50.0, 0.3) == 2
    assert found.risk(3, 50.0, 0.3)[0] == pytest.approx(0.25, abs=0.03)


@given(st.integers(0, 10), st.sampled_from([0.0, 0.1, 0.3]))
def test_risk_never_falls_with_distance_or_hand_off_and_grows_with_a_smaller_tolerance(
    seed: int, tolerance: float
) -> None:
    found, at = calibration(seed), np.linspace(0, 1, 12)
    below = np.zeros((2, len(at)))
    for k in found.handoffs:
        risks = np.array([found.risk(k, float(x * found.knots[-1]), tolerance) for x in at]).T
        assert (np.diff(risks, axis=1) >= -1e-12).all()
        assert (risks >= below - 1e-12).all()
        assert (risks[0] <= risks[1] + 1e-12).all()
        looser = np.array([found.risk(k, float(x * found.knots[-1]), tolerance + 0.1) for x in at]).T
        assert (looser[0] <= risks[0] + 1e-12).all()
        below = risks


def test_nothing_is_extrapolated() -> None:
    found = calibration()
    assert found.last_handoff(found.knots[-1] * 1.01, 100.0) == 0
    assert found.last_handoff(float("nan"), 100.0) == 0
    with pytest.raises(UserError, match="measured from 0"):
        found.damage(2, 1000.0)
    with pytest.raises(UserError, match="K = 3"):
        found.damage(3, 1.0)


def test_a_file_is_read_back_and_a_damaged_one_refused(tmp_path: Path) -> None:
    found, path = calibration(), tmp_path / "calibration.json"
    found.write(path)
    assert Calibration.read(path) == found
    # as it was written before there was a digest
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}))
    assert Calibration.read(path) == found
    found.write(path)
    path.write_text(path.read_text().replace(str(found.damages["8"][3]), "0.001"))
    with pytest.raises(
        DamagedFile, match=r"calibration\.json was changed after it was measured: calibrate anew"
    ):
        Calibration.read(path)
    wrong = json.loads(path.read_text())
    path.write_text(json.dumps({**wrong, "damages": {"10": wrong["damages"]["8"]}}))
    with pytest.raises(
        DamagedFile, match=r"calibration\.json is no calibration: a calibration has hand-offs"
    ):
        Calibration.read(path)
    found.write(path)
    path.write_text(path.read_text().replace('"steps"', '"stages"'))
    with pytest.raises(DamagedFile, match="no calibration"):
        Calibration.read(path)
    path.write_text("{")
    with pytest.raises(DamagedFile, match="no calibration"):
        Calibration.read(path)
    with pytest.raises(UserError, match="no calibration"):
        Calibration.read(tmp_path / "none.json")
    for change in ({"distances": (1.0,)}, {"damages": {"2": (1.0,)}}, {"damages": {"10": (0.1,) * 20}}):
        with pytest.raises(UserError):
            replace(found, **change)


def test_another_setting_is_refused_by_name(pipe: Any) -> None:
    plan = plan_of(pipe, num_inference_steps=10, guidance_scale=5.0)
    found = calibration()
    found.check_fits("s", plan)
    with pytest.raises(UserError, match=r"guidance \(5.0 there, 3.0 here\)"):
        found.check_fits("s", replace(plan, guidance_scale=3.0))
    named = replace(found, model="some/model")
    with pytest.raises(
        UserError, match=r"^c\.json is .* the model, its dtype or size, .* the model 'some/model'\)"
    ):
        named.check_fits("other", plan, "c.json")
    with pytest.raises(UserError, match=r"N \(10 there, 4 here\)"):
        found.check_fits("s", plan_of(pipe))


def test_pairs_are_spread_and_no_caption_is_used_twice() -> None:
    vectors = np.random.default_rng(0).normal(size=(40, 2))
    pairs = spread_pairs([str(i) for i in range(40)], vectors, 15, seed=1)
    used = [text for pair in pairs for text in (pair.own, pair.other)]
    assert len(set(used)) == 30
    for pair in pairs:
        assert pair.distance == pytest.approx(
            np.linalg.norm(vectors[int(pair.own)] - vectors[int(pair.other)])
        )
    lengths = [pair.distance for pair in pairs]
    assert lengths == sorted(lengths)
    # from the nearest to the farthest, and most of them near
    assert max(np.diff(lengths)) < (lengths[-1] - lengths[0]) / 3
    assert np.median(lengths) < (lengths[0] + lengths[-1]) / 2.5
    with pytest.raises(UserError, match="need 42"):
        spread_pairs([str(i) for i in range(40)], vectors, 21, seed=1)


def test_damage_is_that_of_the_final_latents(pipe: Any) -> None:
    plan = plan_of(pipe)
    texts = ["an apple on a table", "an apple on a table", "a dog near a river", "a lemon on a table"]
    pairs = spread_pairs(texts, np.array([[0.0], [0.0], [9.0], [1.0]]), 2, seed=0)
    assert [pair.distance for pair in pairs] == [0.0, 8.0]
    found = measure_damage(pipe, plan, pairs, [1, 3], seed=0)
    # equal prompts: no damage at any hand-off
    assert [found[k][0] for k in (1, 3)] == [0.0, 0.0]
    assert 0 < found[1][1] < found[3][1]
    with pytest.raises(UserError, match="step"):
        measure_damage(pipe, plan, pairs, [5], seed=0)


def test_default_hand_offs_lie_inside() -> None:
    assert default_handoffs(11) == (2, 4, 6, 7, 9)
    assert default_handoffs(2) == (1,)
    assert default_handoffs(1) == ()
    for steps in range(2, 60):
        assert all(0 < k < steps for k in default_handoffs(steps))


def test_the_picture_is_written(tmp_path: Path) -> None:
    plot_calibration(calibration(), tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes()[:4] == b"\x89PNG"
