"""The measured profile of this machine, and reading profiles back."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedaigc.device.profile import measure_profile
from fedaigc.errors import DamagedFile, UserError
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE, DeviceProfile, read_profile


def measured(pipe: Any, counter: Path) -> DeviceProfile:
    return measure_profile(
        pipe, model="embedded", height=64, width=64, guidance_scale=5.0, watts=20, repeats=1, counter=counter
    )


def test_this_machine(pipe: Any, tmp_path: Path) -> None:
    found = measured(pipe, tmp_path / "no counter")
    assert found.step_s > 0
    assert found.step_j == pytest.approx(20 * found.step_s)
    assert found.sources["step_s"].startswith("measured")
    assert found.sources["step_j"].startswith("assumed: 20 W")
    (tmp_path / "profile.json").write_text(found.to_json())
    assert read_profile(tmp_path / "profile.json") == found


def test_the_phone_takes_what_the_paper_measured() -> None:
    """8 steps take 45 s in Figure 4, and the fitted line is within 2 s of this."""
    assert PHONE.image_s(8) == pytest.approx(45, abs=2)
    assert PHONE.image_s(20) == pytest.approx(103, abs=3)
    assert EDGE_SERVER.shared_s(5) == pytest.approx(5 * 0.05 + 0.01)


def test_every_figure_needs_a_source(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="step_j needs a source"):
        replace(PHONE, sources={k: v for k, v in PHONE.sources.items() if k != "step_j"})
    with pytest.raises(UserError, match="step_s is -1"):
        replace(PHONE, step_s=-1.0)
    with pytest.raises(UserError, match="fedaigc profile"):
        read_profile(tmp_path / "none.json")
    (tmp_path / "cut.json").write_text(PHONE.to_json()[:50])
    with pytest.raises(DamagedFile, match=r"cut\.json is not a profile: Invalid JSON"):
        read_profile(tmp_path / "cut.json")
    values = json.loads(PHONE.to_json())
    for wrong, told in (
        (values | {"step_s": "fast"}, "step_s: .*number"),
        (values | {"watts": 5.0}, "watts: Unexpected"),
        ({name: value for name, value in values.items() if name != "text_j"}, "text_j: .*required"),
        ([], "is not a profile: "),
    ):
        (tmp_path / "wrong.json").write_text(json.dumps(wrong))
        with pytest.raises(DamagedFile, match=told):
            read_profile(tmp_path / "wrong.json")
