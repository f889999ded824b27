"""A refused command leaves no home behind, and `device start` passes on what it is given."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.main import get_command

from tests.cli.conftest import RunCommand


@pytest.mark.parametrize("made", [False, True], ids=["no folder", "an empty folder"])
def test_a_refused_command_leaves_no_home(tmp_path: Path, fedaigc: RunCommand, made: bool) -> None:
    pictures, home = tmp_path / "pictures", tmp_path / "home"
    pictures.mkdir()
    if made:
        home.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    for arguments in (("add-images", str(home), str(pictures)), ("add-prompt", str(home), " ")):
        assert fedaigc("device", *arguments).returncode == 2
        assert home.exists() == made
        assert not made or not list(home.iterdir())
    (pictures / "a.txt").write_text("a dark square")
    assert fedaigc("device", "add-images", str(home), str(pictures)).returncode == 0
    # of a home that was there, nothing is removed
    (pictures / "b.png").write_text("no picture")
    assert fedaigc("device", "add-images", str(home), str(pictures)).returncode == 2
    assert (home / "images" / "000000.png").is_file()
    assert "1 prompt waits in" in fedaigc("device", "add-prompt", str(home), "a cat").stdout
    assert "2 prompts wait in" in fedaigc("device", "add-prompt", str(home), "a dog").stdout


def test_a_seed_repeats_a_new_home_and_differs_by_its_name(tmp_path: Path, fedaigc: RunCommand) -> None:
    from fedaigc.device.home.home import Home

    homes = [tmp_path / name for name in ("a/00", "b/00", "a/01", "a/02", "b/02")]
    for home in homes:
        seed = () if home.name == "02" else ("--seed", "7")
        assert fedaigc("device", "add-prompt", str(home), "a cat", *seed).returncode == 0
    first, again, other, *free = map(Home.open, homes)
    assert (first.seed, first.seeded) == (again.seed, True)
    tasks = [[path.name for path in home.prompts.iterdir()] for home in (first, again, other, *free)]
    assert tasks[0] == tasks[1]
    assert len({str(each) for each in tasks}) == 4
    assert not any(home.seeded for home in free)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (8, 8)).save(pictures / "a.png")
    (pictures / "a.txt").write_text("a dark square")
    # a home that is there goes on with its seed, and takes no other one
    for home, code in ((homes[0], 0), (homes[3], 2)):
        done = fedaigc("device", "add-images", str(home), str(pictures), "--seed", "7")
        assert done.returncode == code, done.stderr
    assert "was not made with --seed 7 under this name" in done.stderr
    assert not list((homes[3] / "images").iterdir())


def test_every_command_that_takes_a_model_takes_its_variant() -> None:
    from fedaigc.cli.main import app

    def commands(found: Any, name: str = "") -> Iterator[tuple[str, Any]]:
        for child, command in getattr(found, "commands", {}).items():
            yield from commands(command, f"{name} {child}")
        if not hasattr(found, "commands"):
            yield name.strip(), found

    options = {
        name: {parameter.name for parameter in command.params} for name, command in commands(get_command(app))
    }
    loading = {name for name, names in options.items() if "model" in names}
    assert {
        "generate",
        "check",
        "profile",
        "calibrate",
        "atlas build",
        "lora export",
        "device share",
    } <= loading
    assert {name for name in loading if "variant" not in options[name]} == set()


def test_the_variant_reaches_the_model(small_model: Path, tmp_path: Path, fedaigc: RunCommand) -> None:
    captions = tmp_path / "captions.txt"
    captions.write_text("".join(f"a cat on {number} chairs\n" for number in range(9)))
    model = ("--model", str(small_model))
    for arguments in (
        ("check", str(small_model)),
        ("profile", *model),
        ("generate", "a cat", *model, "--output", str(tmp_path / "out")),
        ("atlas", "build", str(captions), str(tmp_path / "a.atlas"), *model),
        ("calibrate", str(captions), str(tmp_path / "a.json"), *model),
    ):
        done = fedaigc(*arguments, "--variant", "bf16")
        assert done.returncode == 2, arguments
        assert "lacks the variant 'bf16' and has files without a variant" in done.stderr, arguments


def test_device_start_passes_on_variant_and_permission(
    tmp_path: Path, fedaigc: RunCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedaigc.deployment.agent import resident

    given: list[Any] = []
    monkeypatch.setattr(resident, "run_device", lambda home, settings, **_: given.append(settings))
    done = fedaigc("device", "start", str(tmp_path / "home"), "--variant", "fp16", "--negative-prompt")
    assert done.returncode == 0, done.stderr
    assert given[0].model.variant == "fp16"
    assert given[0].limits.negative_prompt
    assert fedaigc("device", "start", str(tmp_path / "home")).returncode == 0
    assert given[1].model.variant is None
    assert not given[1].limits.negative_prompt
