"""The launcher of Flower's own simulation: app package, environment, true status, no leftovers."""

import contextlib
import io
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from flwr.cli.build import build_fab_from_disk
from flwr.common.config import parse_config_args
from flwr.supercore.utils import simulation_config_from_json

from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import parse_config
from fedaigc.federation.output.records import read_record
from fedaigc.federation.progress import Progress, Stage
from fedaigc.federation.runtime.environment import flower_environment
from fedaigc.federation.runtime.flower_runtime import LOG, backend_sizes, run_with_flower, stage_app
from fedaigc.federation.runtime.launcher import run_in_process, simulate
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server import roster
from tests.federation.runtime.surroundings import hiding_folder, hostile_environment
from tests.federation.test_run import personal
from tests.small_run import MakeRun, images


def test_the_app_package_carries_no_code(tmp_path: Path) -> None:
    """Flower's own builder accepts the app, which does not shadow the library by a copy."""
    stage_app(tmp_path / "app")
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(tmp_path / "app"))) as package:
        names = set(package.namelist())
    assert {name.split("/")[0] for name in names} == {"pyproject.toml", ".info"}


@pytest.mark.parametrize(
    ("device", "gpus", "workers", "given", "expected"),
    [
        ("cpu", 2, 4, None, None),
        ("auto", 0, 4, None, None),
        ("auto", 1, 4, None, (1, 0.25)),
        ("cuda", 2, 4, None, (2, 0.5)),
        ("cuda", 8, 4, None, (8, 1.0)),
        ("cuda", 1, 4, 0.1, (1, 0.1)),
        ("cuda", 8, 4, 2.0, (8, 2.0)),
    ],
)
def test_the_backend_is_given_the_gpus_of_the_clients(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    device: str,
    gpus: int,
    workers: int,
    given: float | None,
    expected: tuple[int, float] | None,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    config = parse_config(
        {
            "homes": tmp_path,
            "output": tmp_path / "out",
            "num_clients": 3,
            "workers": workers,
            "client_gpus": given,
            "model": {"device": device},
        }
    )
    sizes = backend_sizes(config)
    assert (sizes["num-supernodes"], sizes["init-args-num-cpus"]) == (3, workers)
    found = (sizes.get("init-args-num-gpus"), sizes.get("client-resources-num-gpus"))
    assert found == (expected or (None, None))
    # Flower's own parser takes them, fractions included
    text = [f"{name.replace('-', '_')}={value}" for name, value in sizes.items()]
    parsed = simulation_config_from_json(parse_config_args(text))
    assert parsed.client_resources_num_gpus == pytest.approx(expected[1] if expected else 0)


def test_gpus_that_are_not_there_are_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, make_run: MakeRun
) -> None:
    config = make_run(num_clients=1, prompts=[])
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    for device, share, told in (("cuda", 2.0, "client_gpus is 2"), ("cuda:0", None, "CUDA_VISIBLE_DEVICES")):
        model = config.model.model_copy(update={"device": device})
        changed = config.model_copy(update={"model": model, "client_gpus": share})
        with pytest.raises(UserError, match=told):
            run_with_flower(changed)
    assert not (config.output / LOG).exists()


def test_fewer_nodes_than_clients_are_told_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    assert roster._SETTLED_S < 10
    monkeypatch.setattr(roster, "_SETTLED_S", 0.3)
    monkeypatch.setattr(roster, "_POLL_S", 0.1)
    grid = LocalGrid(lambda message, context: message, num_clients=3, run_config={}, run_id=1)
    began = time.monotonic()
    with pytest.raises(UserError, match=r"3 of 8 clients connected.*num-supernodes=8"):
        roster.open_roster(grid, num_clients=8, base_hash="0" * 64)
    assert time.monotonic() - began < 5


def test_flower_installs_nothing_reports_nothing_and_stays_offline(tmp_path: Path) -> None:
    environment = flower_environment(tmp_path, threads=1)
    expected = {
        "FLWR_HOME": str(tmp_path / "flwr"),
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    assert {name: environment[name] for name in expected} == expected


MARK = "FEDAIGC_TEST"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Callable[[], set[int]]:
    """Return the running processes that this test started, including detached ones."""
    mark = uuid.uuid4().hex
    monkeypatch.setenv(MARK, mark)

    def found() -> set[int]:
        pids = set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(MARK) == mark:
                    pids.add(process.pid)
        return pids

    return found


def test_one_ray_worker_gives_the_run_that_this_process_gives(
    make_run: MakeRun, monkeypatch: Any, tmp_path: Path, started: Callable[[], set[int]]
) -> None:
    """Adapters and images agree bit for bit, every reply is reported as progress, and no process or folder remains.

    So they do where the environment names proxies and a cluster that do not exist, a folder for temporary files that
    is too long for a socket, no home, and where the working folder holds modules with the names of libraries.
    """
    local, ray = make_run("local"), make_run("ray", backend="ray")
    run_in_process(local)
    for name, value in hostile_environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.chdir(hiding_folder(tmp_path))
    steps: list[Progress] = []
    seen: set[int] = set()

    def note(told: Progress) -> None:
        steps.append(told)
        seen.update(started())

    record = simulate(ray, note)
    assert record.status == "finished"
    assert record.shared_hash == read_record(local.output).shared_hash
    assert images(ray) == images(local)
    assert personal(ray) == personal(local)
    assert Progress(Stage("hello"), 3, 3) in steps
    assert Progress(Stage("round 2 of 2", 2), 3, 3) in steps
    assert seen
    assert not started()
    log = (ray.output / LOG).read_text()
    assert "shiny" not in log
    home = next(word for word in log.split() if "/flwr/apps/" in word).partition("/flwr/apps/")[0]
    assert not Path(home).exists()


@pytest.mark.slow
def test_two_ray_workers_give_the_same_run_over_edges(make_run: MakeRun) -> None:
    edges = {"count": 2}
    local, ray = make_run("local", edges=edges), make_run("ray", backend="ray", workers=2, edges=edges)
    run_in_process(local)
    record, expected = simulate(ray), read_record(local.output)
    assert record.shared_hash == expected.shared_hash
    assert record.rounds[1].backhaul_bytes == expected.rounds[1].backhaul_bytes
    assert images(ray) == images(local)
    assert personal(ray) == personal(local)


@pytest.mark.slow
def test_a_run_that_fails_is_an_error_with_the_server_s_reason(
    make_run: MakeRun, started: Callable[[], set[int]]
) -> None:
    """`flwr run` itself exits with 0 here."""
    settings = {"num_inference_steps": 4, "num_shared_steps": 4, "scorer": "none"}
    config = make_run(backend="ray", rounds={"count": 0}, generation=settings)
    with pytest.raises(UserError, match="4"):
        simulate(config)
    assert read_record(config.output).status == "failed"
    assert not started()


@pytest.mark.slow
def test_a_run_that_breaks_is_an_error_with_the_lines_that_tell_why(
    make_run: MakeRun, monkeypatch: Any
) -> None:
    config = make_run(num_clients=1, backend="ray", rounds={"count": 0}, generation={"enabled": False})
    good = config.to_run_config()

    def broken(_: object) -> dict[str, str]:
        return {name: text.replace('"seed":0', '"sead":0') for name, text in good.items()}

    monkeypatch.setattr(type(config), "to_run_config", broken)
    with pytest.raises(UserError, match="sead: unknown key; the nearest known one is 'seed'"):
        simulate(config)
