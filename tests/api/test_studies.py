"""Studies from Python: strategies of any kind, and their table as a data frame."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import fedaigc as fa
from tests.api.test_how_to import blocks


@dataclass
class Mixed(fa.AveragingRule):
    """The mean of what was received and of what the clients send."""

    share: float = 0.5
    traits = fa.Traits(averaging=False)

    def finish(self) -> fa.SharedState:
        """Move by `share` of the way."""
        before, after = self._shared.tensors(), super().finish().tensors()
        share = self.share
        return self._shared.with_tensors(
            {name: (1 - share) * before[name] + share * tensor for name, tensor in after.items()}
        )


@pytest.mark.slow
def test_instances_of_a_class_of_one_s_own_are_compared(
    tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {
        "output": tmp_path / "study",
        "seeds": 1,
        "rounds": 1,
        "workers": 2,
        "progress": False,
        "model": {"name": str(small_model), "height": 32, "width": 32},
        "adapter": {"rank": 2},
        "training": {"batch_size": 2, "local_steps": 1, "learning_rate": 1e-2},
        "clients": {"number": 3, "images": 12, "partitions": {"iid": {"kind": "iid"}}},
        "evaluation": {"triples": 4, "test_images": 2, "validation_images": 2},
    }
    strategies: list[Any] = [Mixed(share=1.0), Mixed(share=0.25)]
    study = fa.compare(strategies, **settings)
    table = study.table()
    assert {"Mixed, share 1.0", "Mixed, share 0.25"} <= set(table["row"])
    assert study.report.is_file()
    assert study.config.reference == "Mixed, share 1.0"
    assert repr(study) == f"<Study 'study': 2 strategies, 1 seed, {tmp_path / 'study'}>"
    # nobody saw the time left, so nothing was measured for it
    assert not (tmp_path / "study" / "work" / "measure").exists()
    # every loss, and its means by round as they are drawn
    losses, curves = study.losses(), study.curves()
    assert set(losses["row"]) == {"base", "pooled", "local only", "Mixed, share 1.0", "Mixed, share 0.25"}
    last = curves[(curves["row"] == "Mixed, share 0.25") & (curves["round"] == 1)].iloc[0]
    each = losses.query("row == 'Mixed, share 0.25' and round == 1 and mode == 'collaborative'")
    assert len(each) == 3
    assert last["loss"] == pytest.approx(each["loss"].mean())
    assert (last["low"], last["high"], last["n"]) == (last["loss"], last["loss"], 1)
    assert set(curves[curves["round"] == 0]["row"]) == set(curves["row"])
    with pytest.raises(fa.Error, match="partition 'other' is unknown: expected one of iid"):
        study.curves(partition="other")
    # the page plots them so
    (tmp_path / "runs" / "python").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    exec(blocks("study.md", "python")[-1], {"study": study})
    assert (tmp_path / "runs" / "python" / "curves.png").is_file()
    # nothing is run again
    records = sorted((tmp_path / "study" / "records").glob("*.json"))
    times = [path.stat().st_mtime_ns for path in records]
    assert fa.compare(strategies, **settings).table().equals(table)
    assert [path.stat().st_mtime_ns for path in records] == times
    with pytest.raises(fa.Error, match=r"no table iid-device\.csv|no table other"):
        study.table(partition="other")
    with pytest.raises(fa.Error, match="no strategies"):
        fa.compare([], **settings)
