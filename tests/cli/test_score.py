"""Scores of pictures with their captions, through the command line."""

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import Result
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

from fedaigc.cli.main import app
from fedaigc.data.scenes import draw_scenes
from fedaigc.device.home.gallery import Finished, Gallery
from fedaigc.device.home.home import Home
from fedaigc.errors import UserError
from fedaigc.metrics.distribution import kernel_distance
from fedaigc.metrics.judge import Judge
from fedaigc.metrics.perceptual import ClipScore
from tests.metrics.small_clip import save_small_clip


@pytest.fixture(scope="module")
def small_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    save_small_clip(folder)
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder as `datasets` reads it, of four Scenes: the last caption names nothing that Scenes has."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    lines = []
    for number, (scene, image) in enumerate(draw_scenes(4, seed=0)):
        image.save(folder / f"{number}.png")
        text = scene.caption if number < 3 else "[bold]freedom[/bold]"
        lines.append(json.dumps({"file_name": f"{number}.png", "text": text}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


def command(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["score", *map(str, arguments)])


def refused(*arguments: object) -> str:
    done = command(*arguments)
    assert isinstance(done.exception, UserError), done.output
    return str(done.exception)


def captions_of(folder: Path) -> list[str]:
    return [json.loads(line)["text"] for line in (folder / "metadata.jsonl").read_text().splitlines()]


def images_of(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.png"))]


def test_clip_and_judge_score_every_picture_and_their_mean(
    pictures: Path, small_clip: Path, tmp_path: Path
) -> None:
    output = tmp_path / "new" / "scores.json"
    done = command(pictures, "--clip", small_clip, "--judge", "--output", output)
    assert done.exit_code == 0, done.exception
    found = json.loads(output.read_text())
    rows, means = found["pictures"], found["mean"]
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png", "3.png"]
    assert [row["caption"] for row in rows] == captions_of(pictures)

    clip = ClipScore.load(small_clip).score(images_of(pictures), captions_of(pictures))
    assert [row["clip_score"] for row in rows] == clip
    assert means["clip_score"]["mean"] == pytest.approx(np.mean(clip))
    interval = stats.ttest_1samp(clip, 0).confidence_interval(0.95)
    assert means["clip_score"]["low"] == pytest.approx(interval.low)
    assert means["clip_score"]["high"] == pytest.approx(interval.high)
    assert means["clip_score"]["n"] == 4

    verdicts = Judge.load().score(images_of(pictures))
    scenes = [scene for scene, _ in draw_scenes(4, seed=0)]
    for row, verdict, scene in zip(rows[:3], verdicts, scenes, strict=False):
        assert row["object_probability"] == pytest.approx(
            verdict.object_probabilities[scene.object], abs=1e-5
        )
        assert row["place_probability"] == pytest.approx(verdict.place_probabilities[scene.place], abs=1e-5)
    assert (rows[3]["object_probability"], rows[3]["place_probability"]) == (None, None)
    assert means["object_probability"]["n"] == 3

    # every row is printed, and a caption is no markup
    for told in ("0.png", "[bold]freedom[/bold]", "clip score", "4 pictures", f"{np.mean(clip):.3f} ["):
        assert told in done.stdout


def test_the_csv_holds_exact_numbers_and_is_not_replaced_unasked(pictures: Path, tmp_path: Path) -> None:
    output = tmp_path / "scores.csv"
    assert command(pictures, "--judge", "--output", output).exit_code == 0
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == ["0.png", "1.png", "2.png", "3.png", "mean"]
    values = [float(row["object_probability"]) for row in rows[:3]]
    assert float(rows[4]["object_probability"]) == pytest.approx(np.mean(values))
    assert (
        float(rows[4]["object_probability low"]) < np.mean(values) < float(rows[4]["object_probability high"])
    )
    before = output.read_bytes()
    output.write_bytes(b"mine")
    assert "--force" in refused(pictures, "--judge", "--output", output)
    assert output.read_bytes() == b"mine"
    assert command(pictures, "--judge", "--output", output, "--force").exit_code == 0
    assert output.read_bytes() == before


def test_the_gallery_of_a_device_is_scored_by_its_prompts(tmp_path: Path) -> None:
    gallery = Gallery(Home.open(tmp_path / "home"))
    (scene, image), *_ = draw_scenes(1, seed=0)
    gallery.save(Finished("0" * 16, scene.caption, 3, 11, 8, "plan", {}), image)
    output = tmp_path / "scores.json"
    done = command(tmp_path / "home", "--judge", "--output", output)
    assert done.exit_code == 0, done.exception
    found = json.loads(output.read_text())
    (row,) = found["pictures"]
    assert (row["file"], row["caption"]) == (f"{'0' * 16}.png", scene.caption)
    assert row["object_probability"] > 0.5
    # one picture has no interval
    assert found["mean"] == {}


def test_what_is_missing_is_named(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "--clip FOLDER, --judge, or --lpips" in refused(pictures)
    assert "nowhere" in refused(tmp_path / "nowhere", "--judge")
    assert "no pictures" in refused(empty, "--judge")
    assert "gallery" in refused(Home.open(tmp_path / "home").root, "--judge")
    assert str(empty) in refused(pictures, "--clip", empty)
    assert "--references" in refused(pictures, "--lpips", "alex")
    assert "--lpips" in refused(pictures, "--judge", "--references", empty)
    assert "--references" in refused(pictures, "--features", "judge")
    few = ("--features", "judge", "--references", empty)
    assert "4 pictures and 0 references" in refused(pictures, *few)
    weights = ("--features", "inception", "--inception-weights", empty / "none.pth")
    assert "none.pth: download it from" in refused(pictures, *weights, "--references", pictures)
    assert str(empty / "0.png") in refused(pictures, "--lpips", "alex", "--references", empty)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(empty))
    lacking = "omit LPIPS" if find_spec("torchvision") else "fedaigc[perceptual]"
    assert lacking in refused(pictures, "--lpips", "alex", "--references", pictures)
    assert ".csv or .json" in refused(pictures, "--judge", "--output", tmp_path / "scores.xlsx")
    (pictures / "metadata.jsonl").write_text("")
    assert "0.png has no caption" in refused(pictures, "--judge")
    for number in range(4):
        (pictures / f"{number}.txt").write_text("freedom")
    assert "'freedom'" in refused(pictures, "--judge")


def test_distances_to_a_set_of_references_have_no_name_of_theirs(pictures: Path, tmp_path: Path) -> None:
    """Equal sets are at no Frechet distance, and in the judge's features it is no FID."""
    output = tmp_path / "scores.csv"
    same = command(pictures, "--features", "judge", "--references", pictures, "--output", output)
    assert same.exit_code == 0, same.exception
    with output.open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["file"] == "all pictures"
    assert float(rows[-1]["frechet_distance_judge"]) == pytest.approx(0.0, abs=1e-6)
    assert "4 pictures, too few" in same.stdout
    assert "fid" not in same.stdout

    others = tmp_path / "others"
    others.mkdir()
    for number, (_, image) in enumerate(draw_scenes(4, seed=9)):
        image.save(others / f"other-{number}.png")
    far = tmp_path / "scores.json"
    options = ("--features", "judge", "--references", others, "--judge", "--output", far)
    assert command(pictures, *options).exit_code == 0
    found = json.loads(far.read_text())
    both = [Judge.load().features(images_of(folder)).double() for folder in (others, pictures)]
    assert found["distances"]["kid_judge"] == pytest.approx(kernel_distance(*both, min_images=2))
    assert found["distances"]["frechet_distance_judge"] > 1.0
    assert found["mean"]["object_probability"]["n"] == 3
