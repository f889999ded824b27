"""The CLIP score as the scorer of a run: in its record, and refused before training where weights are missing."""

from pathlib import Path
from typing import Any

import pytest

from fedaigc.device.home.gallery import Gallery
from fedaigc.device.home.home import Home
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import parse_config
from fedaigc.federation.runtime.launcher import simulate
from fedaigc.metrics.perceptual import ClipScore
from tests.metrics.small_clip import save_small_clip
from tests.small_run import MakeRun, run_maker

STEPS = {"num_inference_steps": 2, "num_shared_steps": 1}


@pytest.fixture
def make(small_model: Path, tmp_path: Path) -> MakeRun:
    return run_maker(small_model, tmp_path)


def test_a_run_records_the_clip_scores_of_its_pictures(make: MakeRun, tmp_path: Path) -> None:
    save_small_clip(tmp_path / "clip")
    settings = {**STEPS, "scorer": "clip", "clip_model": str(tmp_path / "clip")}
    long = ("a dog near a river " * 5).strip()
    config = make(
        num_clients=2, prompts=["an apple on a table", long], rounds={"count": 0}, generation=settings
    )
    tasks = simulate(config).tasks
    clip = ClipScore.load(tmp_path / "clip")
    found = {}
    for task in tasks:
        gallery = Gallery(Home.open(config.home(task.client)))
        (entry,) = gallery.all()
        assert task.report is not None
        assert task.report.object_confidence is None
        found[entry.prompt] = task.report.clip_score
        if entry.prompt != long:
            (score,) = clip.score([gallery.image(entry.task_id)], [entry.prompt])
            assert task.report.clip_score == round(score, 1)
    # longer than this CLIP reads: drawn, and without a score
    assert found[long] is None
    assert tasks.to_pandas()["report_clip_score"].count() == 1


def test_missing_weights_are_told_before_anything_runs(make: MakeRun, tmp_path: Path) -> None:
    settings: dict[str, Any] = {**STEPS, "scorer": "clip", "clip_model": str(tmp_path / "nowhere")}
    config = make(num_clients=2, generation=settings)
    with pytest.raises(UserError, match=r"the CLIP model '.*nowhere' is not available: expected the folder"):
        simulate(config)
    assert not config.output.exists()
    with pytest.raises(UserError, match='clip_model: scorer is "scenes", so no CLIP model is used'):
        make("other", generation={"clip_model": "clip"})


def test_devices_of_others_report_no_scores() -> None:
    config = parse_config(
        {"homes": "h", "output": "o", "generation": {"scorer": "clip", "clip_model": "private/folder"}}
    )
    assert "folder" not in config.for_devices().model_dump_json()
    assert config.for_devices().generation.scorer == "none"
