"""The configuration that a deployment sends to its devices: no seed, no path, no other device.

At b8a6c4d, Flower's run config contained the server's whole configuration. With its seed, every device knew all
noise seeds, the sampling of clients and the noise of differential privacy, and the node ids of all other devices.
"""

import contextlib
import json
import stat
import tomllib
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Context, Message
from typer.testing import CliRunner

from fedaigc.cli.main import app as cli
from fedaigc.deployment.server import runs
from fedaigc.deployment.server.roster_file import known_devices
from fedaigc.deployment.server.runs import run_on_devices
from fedaigc.deployment.server.server import ServerState
from fedaigc.errors import UserError
from fedaigc.federation.client import handlers
from fedaigc.federation.client.client_app import SimulatedHost
from fedaigc.federation.config.run_config import (
    RUN_CONFIG_KEY,
    FederationConfig,
    config_from_run,
    packet_warnings,
    parse_config,
)
from fedaigc.federation.output.records import read_record
from fedaigc.federation.runtime.launcher import in_process_run, run_in_process
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.server_app import serve
from fedaigc.federation.wire.messages import Ask
from tests.small_run import MakeRun, generation_of, images
from tools.deployment.running import deployment

SEED = 7309183746512
NODES = {"8130498130987401": 0, "1209381273981273": 1}


def secrets_of(config: FederationConfig, root: Path) -> tuple[str, ...]:
    """Everything that no device may read: the seed, folders of the server, node ids and homes of other devices."""
    return (str(SEED), str(root), "homes-of-all", "out-of-the-server", *NODES, "37.5", "41.25")


def whole_config(root: Path, **generation: Any) -> FederationConfig:
    return parse_config(
        {
            "homes": root / "homes-of-all",
            "output": root / "out-of-the-server",
            "seed": SEED,
            "num_clients": 2,
            "bindings": NODES,
            "model": {"name": str(root / "model"), "height": 32, "width": 32},
            "rounds": {"count": 2, "dropout_rate": 0.2, "clients": 1, "deadline_s": 100.0},
            "clients": {"local_steps": [11, 13], "ranks": [2, 8]},
            "generation": {"delivery": "tolerant", "link": {"distance_m": [37.5, 41.25]}, **generation},
        }
    )


def test_the_devices_part_names_nothing_of_the_server_s_own(tmp_path: Path) -> None:
    config = whole_config(tmp_path)
    text = config.for_devices().to_run_config()[RUN_CONFIG_KEY]
    for secret in secrets_of(config, tmp_path):
        assert secret not in text
    assert "11" not in json.dumps(json.loads(text)["clients"])
    told = config_from_run({RUN_CONFIG_KEY: text})
    for name in ("name", "training", "adapter"):
        assert getattr(told, name) == getattr(config, name)
    assert (told.model.height, told.model.width) == (32, 32)
    assert told.rounds.strategy == config.rounds.strategy
    assert told.generation.policy == config.generation.policy
    link, whole = told.generation.link, config.generation.link
    assert link is not None
    assert whole is not None
    assert (link.number_format, link.mend, link.known_errors) == (whole.number_format, whole.mend, None)


def test_a_receiver_that_matches_errors_is_told_their_rate(tmp_path: Path) -> None:
    link = {"bit_error_rate": 0.02, "repair": "noise-matched"}
    config = whole_config(tmp_path, link=link)
    told = config.for_devices().generation.link
    assert told is not None
    assert told.known_errors is not None
    assert told.known_errors == (config.generation.link and config.generation.link.known_errors)


def test_the_run_config_of_a_deployment_holds_the_devices_part_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`run_on_devices` up to the command that starts the run. The whole configuration is in a private file."""
    seen: dict[str, Any] = {}

    def stream_run(command: list[str], *_: Any) -> list[str]:
        told = tomllib.loads(Path(command[-1]).read_text())
        seen["text"] = Path(command[-1]).read_text()
        seen["told"] = told
        seen["files"] = {
            str(path.relative_to(tmp_path)): (stat.S_IMODE(path.stat().st_mode), path.read_text())
            for path in (tmp_path / "server").rglob("*.json")
        }
        from fedaigc.federation.config.server_config import FOLDER_VARIABLE, server_config

        monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "server" / "run-configs"))
        seen["server"] = server_config(told)
        return []

    monkeypatch.setattr(runs, "stream_run", stream_run)
    monkeypatch.setattr(runs, "run_ids", lambda *_: set())
    monkeypatch.setattr(runs, "runs_going_on", lambda *_: set())
    monkeypatch.setattr(runs, "run_status", lambda *_: ("finished:completed", ""))
    monkeypatch.setattr(runs, "check_ended_well", lambda *_: None)
    (tmp_path / "server").mkdir()
    config = whole_config(tmp_path)
    state = ServerState(1, 1.0, "127.0.0.1", 1, "127.0.0.1:2", False)
    # b8a6c4d has no such module, and the text was seen by then
    with contextlib.suppress(ModuleNotFoundError):
        run_on_devices(tmp_path / "server", state, config)
    for secret in secrets_of(config, tmp_path):
        assert secret not in seen["text"]
    assert seen["server"].seed == SEED
    assert seen["server"].bindings == NODES
    # noise that nobody can guess, unless the configuration asks for that of a simulation
    assert seen["server"].seeded_noise is False
    ((name, (mode, _)),) = seen["files"].items()
    assert mode == 0o600
    assert stat.S_IMODE((tmp_path / name).parent.stat().st_mode) == 0o700
    assert not (tmp_path / name).exists()


def test_a_server_without_the_file_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedaigc.federation.config.server_config import FOLDER_VARIABLE, keep_config, server_config

    config = whole_config(tmp_path)
    told = keep_config(config, tmp_path / "configs")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "configs"))
    assert server_config(told) == config
    for name in ("../configs/x", "0" * 32, "x"):
        with pytest.raises(UserError):
            server_config({**told, "server_config": name})
    monkeypatch.delenv(FOLDER_VARIABLE)
    with pytest.raises(UserError, match="fedaigc server run"):
        server_config(told)
    # a simulation names no file
    assert server_config(config.to_run_config()) == config


def test_devices_that_know_their_part_alone_end_where_a_simulation_ends(make_run: MakeRun) -> None:
    """With dropouts, steps by client, stochastic rounding of uploads and a random choice of clients. All of these
    follow from a seed that the devices do not have.
    """
    settings: dict[str, Any] = {
        "seed": SEED,
        "num_clients": 3,
        "rounds": {"count": 3, "upload_format": "int8", "dropout_rate": 0.4, "clients": 2},
        "clients": {"local_steps": [1, 2, 3]},
    }
    simulated, deployed = make_run("simulated", **settings), make_run("deployed", **settings)
    run_in_process(simulated)
    told = config_from_run(deployed.for_devices().to_run_config())
    assert told.seed != SEED

    def client(message: Message, context: Context) -> Message:
        host = SimulatedHost(int(context.node_config["partition-id"]), deployed)
        kind = Ask(message.metadata.message_type)
        return Message(handlers.answer(kind, message.content, host, told), reply_to=message)

    with in_process_run(deployed) as run_id:
        grid = LocalGrid(client, num_clients=3, run_config={RUN_CONFIG_KEY: ""}, run_id=run_id)
        serve(grid, deployed)
    one, other = (read_record(config.output).timeless() for config in (simulated, deployed))
    assert one == other.model_copy(update={"config": one.config})
    assert any(entry.refused for entry in one.rounds)
    assert images(simulated) == images(deployed)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"generation": {"policy": "open"}}, ["the prompt of one member", "history"]),
        ({"generation": {"policy": "open", "handoff": "latents"}}, ["the prompt of one member"]),
        ({"generation": {"policy": "open", "enabled": False}}, []),
        ({"seeded_noise": True}, ["whoever guesses it"]),
    ],
)
def test_what_packets_disclose_is_said_when_a_run_starts(
    tmp_path: Path, changes: dict[str, Any], words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    values = {"homes": str(tmp_path / "homes"), "output": str(tmp_path / "out"), **changes}
    warnings = packet_warnings(parse_config(values))
    assert len(warnings) == len(words)
    assert all(word in warning for word, warning in zip(words, warnings, strict=True))
    file = tmp_path / "run.toml"
    lines = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not isinstance(value, dict)]
    for section, entries in changes.items():
        if isinstance(entries, dict):
            lines += [f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in entries.items())]
    file.write_text("\n".join(lines) + "\n")
    # the run itself ends at once: there are no homes
    result = CliRunner().invoke(cli, ["simulate", str(file)])
    assert result.exit_code != 0
    assert result.stderr.count("warning:") == len(words)


@pytest.mark.slow
def test_a_real_deployment_runs_without_telling_its_devices(make_run: MakeRun, tmp_path: Path) -> None:
    """Server, door and two devices as processes: the run finishes, and no file of Flower contains the seed."""
    config = make_run("told", num_clients=2, seed=SEED, rounds={"count": 1})
    with deployment(config, tmp_path / "server", 2) as devices:
        for client in range(2):
            devices.start(client)
        nodes = [str(device.node_id) for device in known_devices(devices.folder)]
        run_on_devices(devices.folder, devices.state, config)
        kept = b"".join(path.read_bytes() for path in devices.folder.glob("superlink.db*"))
        app = b"".join(p.read_bytes() for p in (devices.folder / "flower").rglob("*") if p.is_file())
        for client in range(2):
            relay = config.home(client) / "relay"
            app += b"".join(p.read_bytes() for p in relay.rglob("*") if p.is_file())
    assert len(kept) > 10_000
    for secret in (str(SEED), str(config.homes), str(config.output)):
        assert secret.encode() not in kept
        assert secret.encode() not in app
    record = read_record(config.output)
    assert record.status == "finished"
    assert len(record.client_versions) == len(nodes) == 2
    assert record.config["seed"] == SEED
    assert all(group.noise_seed < 0 for group in generation_of(record).groups)
