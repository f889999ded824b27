"""Drawn arrivals keep their rate, and a log of real calls is read or refused by line."""

from pathlib import Path

import numpy as np
import pytest

from experiments.planner.arrivals import Call, bursts, poisson, read_log
from fedaigc.errors import UserError


def dispersion(times: np.ndarray, seconds: float) -> float:
    """Return the variance of counts in intervals by their mean: 1 for a Poisson process."""
    # the last interval is not over
    counts = np.bincount((times / seconds).astype(int))[:-1]
    return float(counts.var() / counts.mean())


def test_bursts_have_the_same_rate_and_far_more_variance() -> None:
    even = poisson(20_000, 5.0, np.random.default_rng(0))
    loud = bursts(20_000, 5.0, np.random.default_rng(0))
    for times in (even, loud):
        assert (np.diff(times) > 0).all()
        assert 20_000 / times[-1] == pytest.approx(5.0, rel=0.15)
    assert dispersion(even, 10.0) == pytest.approx(1.0, abs=0.15)
    assert dispersion(loud, 10.0) > 5


def test_a_log_is_read_by_time_whatever_its_columns(tmp_path: Path) -> None:
    log = tmp_path / "calls.csv"
    log.write_text(
        "prompt,nsfw,user,timestamp\n"
        '"a cup, on a table",0,bob,2024-05-01T12:00:02.5\n'
        "a dog on a road,0,ann,2024-05-01 12:00:00+00:00\n"
        "a dog on a road,1,bob,2024-05-01T14:00:03+02:00\n",
        encoding="utf-8",
    )
    assert read_log(log) == [
        Call(0.0, 0, "a dog on a road"),
        Call(2.5, 1, "a cup, on a table"),
        Call(3.0, 1, "a dog on a road"),
    ]


def test_seconds_are_read_as_well(tmp_path: Path) -> None:
    log = tmp_path / "calls.csv"
    log.write_text("timestamp,user,prompt\n1700000001.5,7,a\n1700000000,8,b\n", encoding="utf-8")
    assert read_log(log) == [Call(0.0, 0, "b"), Call(1.5, 1, "a")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("time,user,prompt\n1,a,b\n", "no column timestamp"),
        ("timestamp,user,prompt\n", "no calls"),
        ("timestamp,user,prompt\n1,a,b\nlater,a,b\n", "line 3: timestamp 'later'"),
        ("timestamp,user,prompt\nnan,a,b\n", "line 2: timestamp 'nan'"),
        ("timestamp,user,prompt\n1,a, \n", "line 2: the prompt is missing"),
        ("timestamp,user,prompt\n1,a\n", "line 2: the prompt is missing"),
    ],
)
def test_what_cannot_be_read_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    log = tmp_path / "calls.csv"
    log.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_log(log)


def test_a_log_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no log .*calls\.csv"):
        read_log(tmp_path / "calls.csv")
