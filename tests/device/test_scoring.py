"""The embedded judge as a device's scorer, and the closed set of its scores."""

from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError

from fedaigc.data.scene_words import PLACE_NOUNS
from fedaigc.data.scenes import Scene, render
from fedaigc.device.replies import FinishReport, coarse
from fedaigc.device.scoring import SceneScorer
from fedaigc.rng import numpy_rng

APPLE, CAR, GALAXY = "n07755101", "n02961779", "n08288753"


@pytest.fixture(scope="module")
def scorer() -> SceneScorer:
    return SceneScorer()


def test_clean_scenes_are_recognised_by_their_own_concepts_only(scorer: SceneScorer) -> None:
    table = next(noun.concept for noun in PLACE_NOUNS if noun.word == "table")
    road = next(noun.concept for noun in PLACE_NOUNS if noun.word == "road")
    pictures = [render(Scene("apple", "on", "table", "noto"), numpy_rng(i, "scene")) for i in range(8)]
    right = [scorer(picture, APPLE, table) for picture in pictures]
    wrong = [scorer(picture, CAR, road) for picture in pictures]
    assert np.mean([found.object for found in right]) > 0.8
    assert np.mean([found.place for found in right]) > 0.8
    assert np.mean([found.object for found in wrong]) < 0.1
    assert np.mean([found.place for found in wrong]) < 0.1


def test_a_concept_that_the_judge_does_not_know_has_no_score(scorer: SceneScorer) -> None:
    picture = render(Scene("apple", "on", "table", "noto"), numpy_rng(0, "scene"))
    found = scorer(picture, GALAXY, None)
    assert (found.object, found.place) == (None, None)


@given(st.floats(0, 1))
def test_a_coarse_score_is_the_nearest_of_eleven_values(score: float) -> None:
    assert coarse(score) in {step / 10 for step in range(11)}
    assert abs(coarse(score) - score) <= 0.05 + 1e-9


@pytest.mark.parametrize(
    "wrong",
    [
        {"object_confidence": 0.123456},
        {"place_confidence": float("nan")},
        {"object_confidence": 1.1},
        {"clip_score": 25.123456},
        {"clip_score": 100.1},
        {"denoiser_calls": -1},
        {"denoiser_calls": 1.0},
        {"denoiser_samples": True},
    ],
)
def test_a_report_holds_counts_and_tenths_only(wrong: dict[str, Any]) -> None:
    values = {"shared_stage_steps": 1, "personal_stage_steps": 2, "denoiser_calls": 3, "denoiser_samples": 6}
    report = FinishReport(**values, object_confidence=0.3)
    fields = asdict(report) | wrong
    # the second is what the checks of signatures raise under pytest, before the report's own
    with pytest.raises((ValueError, TypeCheckError), match=next(iter(wrong))):
        FinishReport(**fields)
    with pytest.raises(TypeError, match="prompt"):
        FinishReport(**asdict(report), prompt=1)  # type: ignore[call-arg]
