"""What a run prints: its rounds with their losses, the prompts with what was disclosed, and where the pictures are."""

import re
from pathlib import Path

import pytest

from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import read_record
from tests.cli.conftest import RunCommand
from tests.small_run import MakeRun
from tests.study.conftest import toml

PROMPTS = ("a lemon on a table", "a shiny apple on a table", "an apple on a table", "a zorblax on a table")


@pytest.fixture
def config(make_run: MakeRun) -> FederationConfig:
    # two prompts a client: client 0 has the first and the third
    config: FederationConfig = make_run(num_clients=2, prompts=PROMPTS, rounds={"count": 1})
    values = config.model_dump(mode="json", exclude_defaults=True)
    (config.output.parent / "run.toml").write_text(toml(values))
    return config


def test_a_run_tells_losses_groups_prompts_and_pictures_and_its_rounds_are_kept(
    config: FederationConfig, fedaigc: RunCommand
) -> None:
    file = str(config.output.parent / "run.toml")
    done = fedaigc("simulate", file, "--verbose")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout
    lines = done.stdout.splitlines()
    record = read_record(config.output)
    losses = record.rounds[0].mean_metrics()
    [told] = [line for line in lines if line.startswith("round 1 of 1")]
    assert f"2 of 2 clients, personal loss {losses['personal_loss']:.6g}" in told
    assert f"shared loss {losses['shared_loss']:.6g}" in told
    assert [line for line in lines if line.startswith("own steps")] == [
        f"own steps: {at} of 4" for at in range(1, 5)
    ]
    # of every client in the order of its queue, with the picture of each
    prompts = [line for line in lines if line.startswith("“")]
    assert [line.split("”")[0][1:] for line in prompts] == [PROMPTS[at] for at in (0, 2, 1, 3)]
    for line in prompts:
        assert Path(line.rpartition(", ")[2]).is_file()
    assert all("disclosed “a fruit on a table”, group 1" in line for line in prompts[:3])
    assert re.search(
        r"disclosed nothing, alone \(`fedaigc disclose PROMPT --home \S+01` says why\)", prompts[3]
    )
    shared = "2 shared steps by the edge server; 8 steps, alone 12"
    assert f"group 1: “a fruit on a table”, clients 0, 1: {shared}" in lines
    assert "INFO: " in done.stderr
    # 2 shared steps once, and 2 own steps for each of three; 4 steps alone
    assert "3 of 4 prompts shared their first steps; 4 of 16 steps saved" in lines
    # what --verbose adds
    assert f"shared state {record.shared_hash}" in lines
    assert "torch device: cpu, 1 thread" in lines
    assert "training.local_steps = 2" in lines
    assert any("shared-state.safetensors: " in line and "sha256" in line for line in lines)

    refused = fedaigc("simulate", file)
    assert refused.returncode == 2
    assert "holds a run of 1 round and 4 prompts (finished): --resume" in refused.stderr
    assert read_record(config.output) == record

    again = fedaigc("simulate", file, "--resume")
    assert again.returncode == 0, again.stderr
    galleries = ", ".join(str(config.home(client) / "gallery") for client in range(2))
    assert f"0 prompts wait; 4 were served: gallery at {galleries}" in again.stdout

    forced = fedaigc("simulate", file, "--force", "--set", "generation.enabled=false")
    assert forced.returncode == 0, forced.stderr
    aside = config.output / "earlier" / "001"
    assert f"it is now in {aside}" in forced.stderr
    assert "prompts wait" not in forced.stdout
    assert len(read_record(config.output).tasks) == 0
    # the run that was put aside goes on with its own shared state and adapters
    assert read_record(aside).rounds == record.rounds
    longer = fedaigc("simulate", file, "--resume", "--set", f"output={aside}", "--set", "rounds.count=2")
    assert longer.returncode == 0, longer.stderr
    assert len(read_record(aside).rounds) == 2


def test_prompts_stand_beside_their_pictures_in_the_order_in_which_they_were_given(
    small_model: Path, tmp_path: Path, fedaigc: RunCommand
) -> None:
    options = ("--model", str(small_model), "--size", "32", "--steps", "3", "--shared-steps", "1")
    output = tmp_path / "out"
    command = ("generate", *PROMPTS[:3], *options, "--output", str(output), "--device", "cpu")
    done = fedaigc(*command)
    assert done.returncode == 0, done.stderr
    prompts = [line for line in done.stdout.splitlines() if line.startswith("“")]
    assert [line.split("”")[0][1:] for line in prompts] == list(PROMPTS[:3])
    assert [line.rpartition(", ")[2] for line in prompts] == [
        str(output / f"{at:02d}.png") for at in range(3)
    ]
    assert "3 of 3 prompts shared their first steps; 2 of 9 steps saved" in done.stdout
    assert done.stdout.endswith(f"pictures in {output}\n")
