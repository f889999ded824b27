"""What scores the pictures of a figure: the judge, CLIP, or nothing."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.paper import fig2, setting
from experiments.paper.record import report
from fedaigc.errors import UserError
from tests.metrics.small_clip import save_small_clip


def options(*given: str) -> Any:
    return setting.arguments(None).parse_args(["--pairs", "2", *given])


def test_clip_scores_the_pictures_of_a_figure(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fig2, "LOCAL", 1)
    monkeypatch.setattr(fig2, "SHARED", 1)
    save_small_clip(tmp_path / "clip")
    target = tmp_path / "record.json"
    asked = [
        "--model",
        str(small_model),
        "--size",
        "32",
        "--scorer",
        "clip",
        "--clip",
        str(tmp_path / "clip"),
    ]
    report(options(*asked, "--record", str(target)), fig2.measure, fig2.COMPARISONS)
    record = json.loads(target.read_text())
    for row in record["rows"]:
        assert row["judge"] == {}
        assert len(row["each"]["CLIP score"]) == 2
        assert 0 <= row["CLIP score"]["mean"] <= 100
    assert len(record["comparisons"]) == len(fig2.COMPARISONS)
    assert {one["value"] for one in record["comparisons"]} == {"CLIP score"}


def test_a_scorer_that_cannot_score_is_refused_before_drawing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"CLIP model .*nowhere' is not available"):
        setting.open_setting(options("--scorer", "clip", "--clip", str(tmp_path / "nowhere")))
    with pytest.raises(UserError, match="add --scorer clip"):
        setting.open_setting(options("--clip", str(tmp_path)))
