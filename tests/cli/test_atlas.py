"""An atlas and a calibration through the command line, with the small model."""

import json
import math
import os
import re
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from fedaigc.cli.atlas import _why_alone
from fedaigc.cli.main import app
from fedaigc.errors import UserError
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import Calibration

CAPTIONS = [f"{thing} on {place}" for thing in ("a dog", "a cat", "a cup") for place in ("a table", "a road")]


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def captions(tmp_path: Path) -> Path:
    path = tmp_path / "captions.txt"
    path.write_text("\n".join([*CAPTIONS, CAPTIONS[0], ""]), encoding="utf-8")
    return path


def test_from_captions_to_what_a_prompt_discloses(captions: Path, small_model: Path) -> None:
    atlas, curve = captions.with_name("small.atlas"), captions.with_name("curve.json")
    model = ("--model", small_model, "--size", 32, "--steps", 4)
    built = command("atlas", "build", captions, atlas, *model, "--min-captions", 2, "--note", "ours, CC0")
    assert built.exit_code == 0, built.output
    assert "6 captions" in built.output
    assert not captions.with_name("small.atlas.parts").exists()
    read = Atlas.read(atlas)
    assert sorted(read.captions) == sorted(CAPTIONS)
    assert read.hash[:16] in built.output
    shown = command("atlas", "show", atlas, "--depth", 9)
    assert shown.exit_code == 0, shown.output
    assert "note ours, CC0" in shown.output
    assert shown.output.count(" apart, ") == len(read)
    measured = command("calibrate", captions, curve, *model, "--pairs", 2, "--handoff", 1, "--handoff", 3)
    assert measured.exit_code == 0, measured.output
    assert set(json.loads(curve.read_text())["damages"]) == {"1", "3"}
    assert curve.with_suffix(".png").stat().st_size > 1000
    told = command(
        "atlas",
        "where",
        "--atlas",
        atlas,
        CAPTIONS[0],
        *model,
        "--min-captions",
        2,
        "--calibration",
        curve,
        "--tolerance",
        9,
        "--risk",
        1,
    )
    assert told.exit_code == 0, told.output
    node = read.disclosed(read.vectors[read.captions.index(CAPTIONS[0])], 2)
    assert node is not None
    assert f"discloses node {node} of {len(read)}, as {read.counts[node]} captions do" in told.output
    assert f"this counts at most {math.log2(read.answers(2, lifted=True)):.1f} bits" in told.output
    assert "it can share 3 of 4 steps with it" in told.output
    found = Calibration.read(curve)
    inside = _why_alone(found, float(found.knots[-1]) / 2, 0.0, 0.1)
    assert re.search(r"already at K = 1, up to \d+ % .* tolerance 0, and the risk is 0\.1.* 2 pairs", inside)
    assert "are at most" in _why_alone(found, float(found.knots[-1]) * 2, 0.0, 0.1)
    few = command("atlas", "where", "--atlas", atlas, "a dog", *model, "--min-captions", 7)
    assert "discloses nothing: the atlas has fewer than 7 captions" in few.output


def test_what_does_not_fit_is_refused(captions: Path, small_model: Path) -> None:
    atlas = captions.with_name("small.atlas")
    model = ("--model", small_model, "--size", 32, "--steps", 4)
    command("atlas", "build", captions, atlas, *model, "--min-captions", 2)
    before = atlas.read_bytes()
    for arguments, message in (
        (("build", captions, atlas, *model), "is there"),
        (("where", "--atlas", atlas, "a dog", *model, "--noises", 2), "another space"),
        (("where", "--atlas", atlas, "a dog", *model[:-1], 5), "--size, --steps, --noises"),
        (("where", "--atlas", captions, "a dog", *model), "damaged"),
        (("show", captions.with_name("none")), "no tensor file"),
        (("where", atlas, "a dog", *model), "with --atlas"),
        (("where", "a dog", *model), "no atlas ships for the model"),
    ):
        result = command("atlas", *arguments)
        assert isinstance(result.exception, UserError)
        assert message in str(result.exception)
    few = command("calibrate", captions, captions.with_name("c.json"), *model, "--pairs", 4)
    assert "4 pairs need 8" in str(few.exception)
    assert "a .json file" in str(
        command("calibrate", captions, captions.with_name("c.txt"), *model).exception
    )
    assert atlas.read_bytes() == before
    assert sorted(os.listdir(captions.parent)) == ["captions.txt", "small.atlas"]
