"""How the measures of a study are named."""

from typing import Any

import numpy as np
import pytest

from fedaigc.study.execute.measures import study_measures
from tests.study.conftest import MakeStudy


def features(images: list[Any]) -> np.ndarray:
    return np.zeros((len(images), 2))


def colours(images: list[Any]) -> np.ndarray:
    return np.zeros((len(images), 3))


@pytest.mark.parametrize(
    ("function", "name"), [(features, "own features"), (colours, "own features colours")]
)
def test_own_features_are_named_once(make_study: MakeStudy, function: Any, name: str) -> None:
    (measure,) = study_measures(make_study(), features=function)
    assert measure.names == (f"Frechet distance in {name}", f"KID in {name}")
