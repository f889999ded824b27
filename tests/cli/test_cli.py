"""The command line: what a user gives, and what it answers."""

import json
import os
import subprocess
import sys
import time
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from PIL import Image

from fedaigc.federation.config.run_config import FederationConfig, read_config
from tests.cli.conftest import RunCommand

COMMAND = [sys.executable, "-m", "fedaigc.cli.main"]


def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_help_names_every_command_and_loads_nothing_heavy() -> None:
    """Without torch, Flower and diffusers, whose imports take most of the time."""
    probe = (
        "import sys; from typer.testing import CliRunner; from fedaigc.cli.main import app; "
        "helps = [['--help'], ['lora', '--help'], ['lora', 'import', '--help'], ['score', '--help'], "
        "['records', 'show', '--help']]; "
        "print(*(CliRunner().invoke(app, each).output for each in helps)); "
        "heavy = {'torch', 'flwr', 'diffusers', 'transformers', 'datasets', 'ray', 'pandas', 'numpy', 'pydantic'}; "
        "print('HEAVY', sorted(heavy & set(sys.modules)), *sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert "HEAVY []" in shown
    # the words of the concepts are files, which take as long to read as the rest of ours
    assert "fedaigc.cli.main" in shown
    assert "fedaigc.assets" not in shown
    for command in (
        "demo",
        "generate",
        "simulate",
        "compare",
        "strategies",
        "config",
        "disclose",
        "device",
        "records",
    ):
        assert command in shown
    for told in ("export", "--dtype", "--clip"):
        assert told in shown


def test_help_describes_arguments(fedaigc: RunCommand) -> None:
    assert "TOML file" in fedaigc("simulate", "--help").stdout


def test_every_strategy_is_listed_with_its_options() -> None:
    shown = run("strategies").stdout
    for told in (
        "flora",
        "fedadam",
        "FLoRA: the clients",
        "personal_share = 0.5",
        "equals fedit",
        "any_rank",
    ):
        assert told in shown


@pytest.mark.slow
def test_help_answers_in_half_a_second() -> None:
    def seconds() -> float:
        start = time.perf_counter()
        run("--help")
        return time.perf_counter() - start

    # the fastest of several: what else the machine does is not the question
    assert min(seconds() for _ in range(8)) < 0.5


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["demo", "--no-such-option"], "No such option"),
        (["generate", "an apple on a table", "--model", "no/such/model"], "no/such/model"),
        (["generate", ""], "empty"),
        (["generate", "apple " * 2000], "1,000"),
        (["generate", "an apple on a table", "--shared-steps", "12"], "12"),
        (["demo", "--backend", "rays"], "'rays' is not one of 'in-process', 'ray'"),
        (
            ["generate", "an apple on a table", "--policy", "opne"],
            "'open', 'exact', 'kind', 'general', 'silent'",
        ),
        (["generate", "an apple on a table", "--dtype", "bad"], "'float32', 'float16', 'bfloat16'"),
        (["generate", "an apple on a table", "--device", "gpu"], "gpu"),
        (["generate", "an apple on a table", "--output", "file"], "is a file"),
        (["generate", "an apple on a table", "--model", "./odd"], "odd"),
        (["device", "add-prompt", "file/x", "an apple"], "file"),
        (["simulate", "missing.toml"], "missing.toml"),
        (["disclose", "an apple", "--policy", "all"], "'open', 'exact', 'kind', 'general', 'silent'"),
        (["device", "start", "home", "--policy", "all"], "'open', 'exact', 'kind', 'general', 'silent'"),
        (["compare", "missing.toml"], "missing.toml"),
        (["scenes", "homes", "--partition", "styel"], "'style', 'object', 'dirichlet'"),
        (["scenes", "homes", "--column", "colour"], "'object', 'relation', 'place', 'style'"),
        (["scenes", "homes", "--partition", "dirichlet", "--alpha", "0"], "alpha"),
        (["device", "add-images", "home", "missing"], "missing"),
        (["device", "add-prompt", "home", " "], "empty"),
    ],
)
def test_mistakes_end_with_a_clear_message_and_no_traceback(
    arguments: list[str], told: str, tmp_path: Path, fedaigc: RunCommand
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "model_index.json").write_text("{}")
    done = fedaigc(*arguments, cwd=tmp_path)
    assert done.returncode != 0
    assert told in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_process_of_its_own_ends_with_a_message_and_no_traceback(tmp_path: Path) -> None:
    done = run("simulate", "missing.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


def test_a_pool_of_scenes_is_split_as_asked(tmp_path: Path, fedaigc: RunCommand) -> None:
    options = ("--clients", "3", "--images", "8", "--partition", "pathological", "--classes", "4")
    done = fedaigc("scenes", str(tmp_path / "homes"), *options, "--column", "place")
    assert done.returncode == 0
    sizes = [int(line.split(": ")[1].split()[0]) for line in done.stdout.splitlines()]
    assert len(sizes) == 3
    assert sum(sizes) <= 24
    held = [sorted((tmp_path / "homes" / f"{at:02d}" / "images").glob("*.png")) for at in range(3)]
    assert [len(files) for files in held] == sizes


def test_a_file_that_is_no_picture_is_named(tmp_path: Path, fedaigc: RunCommand) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "cat.png").write_bytes(b"not a picture")
    (folder / "cat.txt").write_text("a cat on a sofa")
    done = fedaigc("device", "add-images", str(tmp_path / "home"), str(folder))
    assert done.returncode == 2
    assert "cat.png" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_key_is_answered_with_the_nearest(tmp_path: Path, fedaigc: RunCommand) -> None:
    (tmp_path / "run.toml").write_text('homes = "homes"\noutput = "out"\nnum_cliens = 2\n')
    done = fedaigc("simulate", "run.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "num_cliens" in done.stderr
    assert "num_clients" in done.stderr


def test_an_option_changes_a_key_of_the_file(tmp_path: Path, fedaigc: RunCommand) -> None:
    (tmp_path / "run.toml").write_text('homes = "homes"\noutput = "out"\n')
    done = fedaigc("simulate", "run.toml", "--set", "num_cliens=2", cwd=tmp_path)
    assert done.returncode == 2
    assert "num_clients" in done.stderr
    done = fedaigc("simulate", "run.toml", "--set", "homes=others", cwd=tmp_path)
    assert str(tmp_path / "others") in done.stderr


def test_the_version_is_told() -> None:
    assert run("--version").stdout.strip() == version("fedaigc")


def test_the_printed_configuration_holds_the_defaults_and_is_accepted(
    tmp_path: Path, fedaigc: RunCommand
) -> None:
    shown = fedaigc("config")
    assert shown.returncode == 0
    (tmp_path / "run.toml").write_text(shown.stdout)
    given = read_config(tmp_path / "run.toml")
    assert given == FederationConfig(homes=given.homes, output=given.output)
    done = fedaigc("simulate", "run.toml", cwd=tmp_path)
    # the file is right; what is missing are the devices' homes
    assert done.returncode == 2
    assert "home" in done.stderr


def test_a_printed_run_config_has_the_changes_and_a_printed_study_is_accepted(
    tmp_path: Path, fedaigc: RunCommand
) -> None:
    (tmp_path / "run.toml").write_text('homes = "homes"\noutput = "out"\n[rounds]\ncount = 1\n')
    shown = fedaigc("config", "--flower", "run.toml", "--set", "rounds.count=7", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    (text,) = tomllib.loads(shown.stdout).values()
    assert json.loads(text)["rounds"]["count"] == 7
    for wrong in (("--set", "rounds.count=7"), ("--study", "--flower", "run.toml")):
        done = fedaigc("config", *wrong, cwd=tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert "--set changes the file of --flower" in done.stderr
    (tmp_path / "study.toml").write_text(fedaigc("config", "--study").stdout)
    assert "10 runs, 0 of them done" in fedaigc("compare", "study.toml", "--list", cwd=tmp_path).stdout


def test_a_mistake_does_not_cost_the_pictures_that_are_there(tmp_path: Path, fedaigc: RunCommand) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / ".fedaigc-generate").touch()
    (output / "00.png").write_bytes(b"the last picture")
    for wrong in (("--dtype", "bad"), ("--shared-steps", "20"), ("--model", "./none")):
        done = fedaigc("generate", "an apple on a table", *wrong, "--output", str(output), cwd=tmp_path)
        assert done.returncode == 2
        assert (output / "00.png").read_bytes() == b"the last picture"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out"]


def test_disclose_prints_signatures_as_json_without_words_of_the_prompt(fedaigc: RunCommand) -> None:
    done = fedaigc("disclose", "--json", "a shiny apple on a table", "a zorblax on a table")
    assert done.returncode == 0
    assert "apple" not in done.stdout
    assert "shiny" not in done.stdout
    signature, none = done.stdout.splitlines()
    assert json.loads(signature) == {
        "object": "n07721676",
        "place": "n04386330",
        "policy": "kind",
        "relation": "on",
    }
    assert none == "null"


def test_disclose_says_in_words_what_the_server_sees_and_what_prevents_sharing(fedaigc: RunCommand) -> None:
    done = fedaigc("disclose", "a shiny apple on a table", "an apple on a tabel", "an apple under a table")
    assert done.returncode == 0
    first, second, third = done.stdout.split("“a shiny")[1].split("\n“an apple ")
    assert "the server would see: “a fruit on a table”" in first
    assert "because" not in first
    assert "nothing of what it says" in second
    assert "“tabel” is not in the knowledge graph" in second
    assert "write instead: “table”" in second
    assert ("atlas where" in first, "atlas where" in second) == (False, True)
    assert "“under” is none of the relations" in third
    assert "write instead: “on” or “near” or “above”" in third


def test_the_same_pictures_are_added_once_unless_asked_for(tmp_path: Path, fedaigc: RunCommand) -> None:
    folder, home = tmp_path / "pictures", tmp_path / "home"
    folder.mkdir()
    for name, colour, caption in (
        ("a", "red", "x"),
        ("b", "blue", "x"),
        ("c", "red", "x"),
        ("d", "red", "y"),
    ):
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")
        (folder / f"{name}.txt").write_text(caption)
    # c shows the same as a under the same caption, d under another
    add = ("device", "add-images", str(home), str(folder))
    assert fedaigc(*add).stdout.startswith(f"3 pictures added to {home}; 1 is there already")
    assert fedaigc(*add).stdout.startswith(f"0 pictures added to {home}; 4 are there already")
    assert fedaigc(*add, "--again").stdout == f"4 pictures added to {home}\n"
    assert len(list((home / "images").glob("*.png"))) == 7


@pytest.mark.parametrize("command", [["demo"], ["generate", "an apple on a table"]])
def test_a_folder_with_a_users_homes_is_never_replaced(
    command: list[str], tmp_path: Path, fedaigc: RunCommand
) -> None:
    kept = tmp_path / "mine" / "homes" / "00" / "picture.png"
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"private")
    done = fedaigc(*command, "--output", str(tmp_path / "mine"))
    assert done.returncode == 2
    assert kept.read_bytes() == b"private"
