"""The configuration: validated once, with the nearest name for an unknown key, and sent through Flower as text."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fedaigc.diffusion import model_size, model_steps
from fedaigc.errors import UserError
from fedaigc.federation.config.config_bounds import config_from_server
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, config_from_run, parse_config, read_config
from fedaigc.semantics.policy import Policy

PATHS = {"homes": "homes", "output": "out"}


@pytest.mark.parametrize(
    ("values", "where", "nearest"),
    [
        ({"num_client": 3}, "num_client", "num_clients"),
        ({"training": {"learning_rat": 1e-3}}, "training.learning_rat", "learning_rate"),
        ({"generation": {"num_shared_step": 3}}, "generation.num_shared_step", "num_shared_steps"),
        ({"adapter": {"boundary": 3}}, "adapter.boundary", "boundary_timestep"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest(
    values: dict[str, Any], where: str, nearest: str
) -> None:
    with pytest.raises(UserError, match=f"{where}: unknown key; the nearest known one is '{nearest}'"):
        parse_config({**PATHS, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 4}, "batch_size: unknown key here; it is a key of training$"),
        ({"snr_db": 9.0}, r"snr_db: unknown key here; it is a key of generation\.link$"),
        (
            {"training": {"count": 3}},
            r"training\.count: unknown key here; it is a key of rounds and of edges$",
        ),
        ({"lr": 1e-3}, "lr: unknown key; known here are adapter, backend, .*, training, workers$"),
    ],
)
def test_an_unknown_key_that_no_name_resembles_is_told_where_it_belongs(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        parse_config({**PATHS, **values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_clients": 0}, "num_clients: .*greater than or equal to 1, got 0"),
        ({"backend": "dask"}, "backend: .*'in-process' or 'ray', got 'dask'"),
        ({"training": {"learning_rate": -1}}, "training.learning_rate"),
        ({"rounds": {"clients": 9}}, "rounds.clients is 9: expected at most num_clients, which is 8"),
        ({"generation": {"policy": "everything"}}, "generation.policy"),
        ({"name": "../other"}, "name"),
        (
            {"generation": {"denoiser": "path"}},
            "generation.denoiser: expected a section, whose keys are atlas, calibration, .*, got 'path'",
        ),
        (
            {"rounds": {"early_stopping": "x"}},
            "rounds.early_stopping: expected a section, whose keys are metric",
        ),
        ({"adapter": 5}, "adapter: expected a section, whose keys are alpha, boundary_timestep, .*, got 5"),
        ({"generation": {"negative_prompt": "x" * 1001}}, "generation.negative_prompt: .*at most 1000"),
        (
            {"generation": {"negative_prompt": "blurry", "denoiser": {"atlas": "a.atlas"}}},
            "section denoiser compares prompts without them",
        ),
    ],
)
def test_a_wrong_value_is_an_error_that_names_the_key_and_the_value(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        parse_config({**PATHS, **values})


def test_a_missing_path_is_an_error() -> None:
    with pytest.raises(UserError, match="homes: Field required"):
        parse_config({"output": "out"})


def test_devices_are_told_the_negative_prompt_and_its_scale() -> None:
    asked = {"negative_prompt": "blurry", "true_cfg_scale": 4.0}
    told = parse_config({**PATHS, "generation": asked}).for_devices().generation
    assert (told.negative_prompt, told.arguments) == ("blurry", {"true_cfg_scale": 4.0})
    assert parse_config(PATHS).generation.arguments == {}


def test_the_default_policy_is_not_the_open_one() -> None:
    assert parse_config(PATHS).generation.policy is Policy.KIND


def test_the_config_is_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        parse_config(PATHS).seed = 3


def test_the_whole_config_travels_as_one_string() -> None:
    config = parse_config(
        {**PATHS, "seed": 7, "training": {"batch_size": 2}, "generation": {"strip_steps": [3, 5]}}
    )
    run_config = config.to_run_config()
    assert [type(value) for value in run_config.values()] == [str]
    assert config_from_run(run_config) == config


def test_a_bare_flwr_run_is_told_what_to_do() -> None:
    for run_config in ({}, {"config": ""}):
        with pytest.raises(UserError, match="fedaigc simulate"):
            config_from_run(run_config)
    with pytest.raises(UserError, match="homes: Field required"):
        config_from_run({"config": "{}"})


def test_paths_in_a_file_count_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('homes = "devices"\noutput = "/elsewhere"\n[rounds]\ncount = 1\n')
    config = read_config(tmp_path / "run.toml")
    assert config.homes == tmp_path / "devices"
    assert config.output == Path("/elsewhere")
    assert config.home(3) == tmp_path / "devices" / "03"
    assert config.rounds.count == 1


def test_a_change_replaces_a_value_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('homes = "a"\noutput = "b"\n[rounds]\ncount = 1\nclients = 2\n')
    changes = ["rounds.count=5", "output = elsewhere", "generation.link.snr_db=9", 'name="second"', "seed=-1"]
    config = read_config(tmp_path / "run.toml", changes)
    assert (config.rounds.count, config.rounds.clients, config.name, config.seed) == (5, 2, "second", -1)
    assert config.generation.link is not None
    assert config.generation.link.snr_db == 9
    # a path of a change counts from the working folder
    assert (config.homes, config.output) == (tmp_path / "a", Path.cwd() / "elsewhere")


@pytest.mark.parametrize("text", ["2024", "1.5", "true", "2024-01-01"])
def test_a_key_that_holds_a_text_takes_every_value_as_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.toml").write_text('homes = "a"\noutput = "b"\n')
    named = read_config(tmp_path / "run.toml", [f"name={text.replace('.', '_')}", f"homes={text}"])
    assert (named.name, named.homes) == (text.replace(".", "_"), Path.cwd() / text)
    # an option of a strategy holds what TOML reads
    given = read_config(tmp_path / "run.toml", ["rounds.options.mu=2024", "rounds.strategy='ditto'"])
    assert given.rounds.options == {"mu": 2024}
    assert given.rounds.strategy == "ditto"


def test_a_model_and_a_strategy_count_from_the_file_and_on_the_command_line_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        (folder / "mine").mkdir(parents=True)
    file = there / "run.toml"
    file.write_text(
        'homes = "a"\noutput = "b"\nmodel = { name = "mine" }\nrounds = { strategy = "rule.py:Mine" }\n'
    )
    monkeypatch.chdir(here)
    config = read_config(file)
    assert (config.model.name, config.rounds.strategy) == (str(there / "mine"), str(there / "rule.py:Mine"))
    changed = read_config(Path("../there/run.toml"), ["model.name=./mine", "rounds.strategy=rule.py"])
    assert (changed.model.name, changed.rounds.strategy) == (str(here / "mine"), str(here / "rule.py"))
    (there / "mine").rmdir()
    with pytest.raises(UserError, match=r"model.name = 'mine': no such file or folder in .*there.*here/mine"):
        read_config(file)
    file.write_text('homes = "a"\noutput = "b"\nmodel = { name = "some/hub" }\n')
    assert read_config(file).model.name == "some/hub"
    file.write_text('homes = "a"\noutput = "b"\ngeneration = { scorer = "clip", clip_model = "clip" }\n')
    assert read_config(file).generation.clip_model == "clip"
    (here / "clip").mkdir()
    with pytest.raises(UserError, match=r"generation.clip_model = 'clip': no such .* in .*there.*here/clip"):
        read_config(file)
    (there / "clip").mkdir()
    assert read_config(file).generation.clip_model == str(there / "clip")
    assert read_config(file, ["generation.clip_model=./clip"]).generation.clip_model == str(here / "clip")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("rounds.count", "expected KEY=VALUE, such as rounds.count=5"),
        ("rounds.=5", "expected KEY=VALUE"),
        ("rounds.count.more=5", "count is not a section of the file"),
        ("rounds.cout=5", "the nearest known one is 'count'"),
        ("rounds.count=many", "rounds.count"),
    ],
)
def test_a_change_of_another_form_is_refused(tmp_path: Path, change: str, told: str) -> None:
    (tmp_path / "run.toml").write_text('homes = "a"\noutput = "b"\n[rounds]\ncount = 1\n')
    with pytest.raises(UserError, match=told):
        read_config(tmp_path / "run.toml", [change])


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no configuration .*missing\.toml"):
        read_config(tmp_path / "missing.toml")
    (tmp_path / "broken.toml").write_text("seed = ")
    with pytest.raises(UserError, match="not a TOML file"):
        read_config(tmp_path / "broken.toml")
    (tmp_path / "wrong.toml").write_text('homes = "a"\noutput = "b"\nsed = 1\n')
    with pytest.raises(
        UserError, match=r"wrong\.toml: .*\n  sed: unknown key; the nearest known one is 'seed'"
    ):
        read_config(tmp_path / "wrong.toml")


def test_a_local_model_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    config = parse_config({**PATHS, "model": {"name": "mine"}}).absolute()
    assert config.model.name == str(tmp_path / "mine")
    assert config.homes == tmp_path / "homes"
    assert parse_config({**PATHS, "model": {"name": "some/hub"}}).absolute().model.name == "some/hub"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("rounds.max_norm_ratio=inf", None),
        ("rounds.max_weight_ratio=inf", None),
        ("training.clip_norm=inf", None),
        ("rounds.deadline_s=inf", math.inf),
        ("generation.deadline_s=inf", math.inf),
        ("generation.serve_s=inf", math.inf),
        ("generation.max_distance=inf", math.inf),
    ],
)
def test_a_limit_may_be_infinite_and_stays_so_on_its_way(
    tmp_path: Path, change: str, expected: float | None
) -> None:
    """At f4520cc, JSON wrote null for it, which the other side refused as `plan_refused`."""
    file = tmp_path / "run.toml"
    file.write_text('homes = "homes"\noutput = "out"\n')
    config = read_config(file, [change])
    section, _, key = change.partition("=")[0].partition(".")
    assert getattr(getattr(config, section), key) == expected
    assert config_from_run(config.to_run_config()) == config
    config_from_server(config.for_devices().to_run_config()["config"])


@pytest.mark.parametrize("value", ["inf", "nan"])
@pytest.mark.parametrize(
    "key",
    [
        "training.learning_rate",
        "training.min_snr_gamma",
        "generation.guidance_scale",
        "generation.window_s",
        "adapter.alpha",
        "rounds.options.mu",
    ],
)
def test_a_number_that_is_no_limit_is_finite(tmp_path: Path, key: str, value: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text('homes = "homes"\noutput = "out"\n')
    with pytest.raises(UserError, match=rf"{key}.*finite number, got {value}"):
        read_config(file, [f"{key}={value}"])


def test_an_unknown_key_among_changes_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('homes = "homes"\noutput = "out"\n')
    with pytest.raises(
        UserError, match=r"training.clipnorm: unknown key; the nearest known one is 'clip_norm'"
    ):
        read_config(file, ["training.clipnorm=1"])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_mark_of_the_encoding_is_no_part_of_a_file(tmp_path: Path, encoding: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text('homes = "hömes"\r\noutput = "out"\r\n', encoding=encoding)
    assert read_config(file).homes == tmp_path / "hömes"
    file.write_bytes('homes = "hömes"'.encode("latin-1"))
    with pytest.raises(UserError, match=r"run\.toml is not a UTF-8 text file"):
        read_config(file)


@pytest.mark.parametrize(
    "change", ["training.local_stepz=2", "num_clientz=3", "model.foo=1", "rounds.foo=true"]
)
def test_an_unknown_key_of_a_change_is_named_whatever_its_value(change: str, tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('homes = "h"\noutput = "o"\n')
    with pytest.raises(UserError, match=f"{change.partition('=')[0]}: unknown key"):
        read_config(file, [change])


def test_the_few_step_twin_only_draws() -> None:
    twin = {"homes": "homes", "output": "out", "num_clients": 2, "model": {"name": "embedded-lcm"}}
    with pytest.raises(UserError, match=r"embedded-lcm only draws: set rounds\.count to 0"):
        parse_config(twin)
    assert parse_config({**twin, "rounds": {"count": 0}}).model.name == "embedded-lcm"


@pytest.mark.parametrize(
    ("model", "generation", "steps"),
    [
        ("embedded", {}, (11, 3)),
        ("embedded", {"num_inference_steps": 4}, (4, 1)),
        ("embedded", {"num_inference_steps": 2}, (2, 0)),
        ("embedded", {"num_inference_steps": 4, "num_shared_steps": 3}, (4, 3)),
        ("embedded-lcm", {}, (4, 1)),
        ("embedded-lcm", {"num_inference_steps": 2}, (2, 0)),
        ("embedded-lcm", {"num_inference_steps": 11}, (11, 3)),
    ],
)
def test_steps_that_are_not_given_follow_the_model(
    model: str, generation: dict[str, Any], steps: tuple[int, int]
) -> None:
    values = {"homes": "homes", "output": "out", "model": {"name": model}, "generation": generation}
    found = parse_config({**values, "rounds": {"count": 0}}).generation
    assert (found.num_inference_steps, found.num_shared_steps) == steps


@pytest.mark.parametrize("text", ["5", "[]", "null", '"a"'])
def test_a_message_that_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="the run's configuration"):
        config_from_run({RUN_CONFIG_KEY: text})


def test_a_server_makes_a_device_read_no_file_and_ask_no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes and steps that are not given follow the model where its user says it, and not where a server does."""
    asked: list[str] = []

    def read_part(name: str, file: str) -> dict[str, Any]:
        asked.append(name)
        return {}

    monkeypatch.setattr(model_size, "read_part", read_part)
    monkeypatch.setattr(model_steps, "read_part", read_part)
    values = {"homes": "homes", "output": "out", "model": {"name": "someone/model"}}
    found = config_from_run({RUN_CONFIG_KEY: json.dumps(values)})
    assert asked == []
    assert (found.model.height, found.generation.num_inference_steps) == (64, 11)
    parse_config(values)
    assert set(asked) == {"someone/model"}
