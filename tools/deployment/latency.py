"""Measure the duration of a collaborative generation of three prompts, on warm and cold devices.

    python -m tools.deployment.latency [--repeats 5] [--output FILE]

A server with TLS and keys and three devices run as processes of this machine, with the embedded model. The
measurements are:

    service       from queueing one prompt per device during a run until the last picture is in its gallery
    warm run      from the start to the end of a run, with waiting prompts and running agents
    cold run      from the start of the agents to the end of the run, with waiting prompts and a running server
    in process    the same generation in one process without messages, which measures the computation alone

The output is JSON: seconds as mean and 95 % interval over the repeats, in total and by activity of the server.
"""

import argparse
import json
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.device.provision import provision_scenes, scene_clients
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.output.records import GenerationRecord, read_record, read_services
from fedaigc.federation.runtime.launcher import simulate
from fedaigc.study.results.statistics import t_interval

from .running import Devices, answers, deployment, pictures, start_run, wait_for

PROMPTS = ("a shiny apple on a table", "a green pear on a table", "a lemon on a table")


def configuration(folder: Path, **generation: Any) -> FederationConfig:
    return parse_config(
        {
            "homes": folder / "homes",
            "output": folder / "output",
            "num_clients": len(PROMPTS),
            "rounds": {"count": 0},
            "generation": {"max_distance": 3, "scorer": "none", **generation},
        }
    )


def queue_prompts(config: FederationConfig) -> None:
    for client, prompt in enumerate(PROMPTS):
        PromptQueue(Home.open(config.home(client))).add(prompt)


def in_process(config: FederationConfig) -> dict[str, float]:
    queue_prompts(config)
    began = time.monotonic()
    record = simulate(config)
    return by_phase(record.generation, time.monotonic() - began)


def drawn(config: FederationConfig, number: int) -> Callable[[], bool]:
    return lambda: len(pictures(config.homes)) == number


def recorded(config: FederationConfig, number: int) -> Callable[[], bool]:
    return lambda: len(read_services(config.output)) >= number


def service(devices: Devices, config: FederationConfig, repeats: int) -> list[dict[str, float]]:
    """Measure prompts that arrive during a run."""
    serving = config.model_copy(
        update={"generation": config.generation.model_copy(update={"serve_s": 3600.0})}
    )
    found = []
    running = start_run(devices, serving)
    try:
        wait_for((config.output / "record.json").exists)
        wait_for(lambda: read_record(config.output).generation is not None)
        # the first comes to processes that have not drawn yet
        for _ in range(repeats + 1):
            expected = len(pictures(config.homes)) + len(PROMPTS)
            services = len(read_services(config.output)) + 1
            began = time.monotonic()
            queue_prompts(config)
            wait_for(drawn(config, expected))
            whole = time.monotonic() - began
            wait_for(recorded(config, services))
            found.append(by_phase(read_services(config.output)[-1], whole))
    finally:
        # as Ctrl-C, which also ends the run on the server
        running.send_signal(signal.SIGINT)
        running.wait()
    return found[1:]


def warm_run(devices: Devices, config: FederationConfig) -> dict[str, float]:
    queue_prompts(config)
    began = time.monotonic()
    assert start_run(devices, config).wait() == 0
    return by_phase(read_record(config.output).generation, time.monotonic() - began)


def cold_run(devices: Devices, config: FederationConfig) -> dict[str, float]:
    queue_prompts(config)
    devices.stop()
    began = time.monotonic()
    for client in range(len(PROMPTS)):
        devices.begin(client)
    running = start_run(devices, config)
    wait_for(lambda: all(answers(config.home(client)) for client in range(len(PROMPTS))))
    agents = time.monotonic() - began
    assert running.wait() == 0
    whole = time.monotonic() - began
    return by_phase(read_record(config.output).generation, whole) | {"agents answer after": agents}


def by_phase(generation: GenerationRecord | None, whole: float) -> dict[str, float]:
    assert generation is not None
    assert [task.outcome for task in generation.tasks] == ["shared"] * 3
    seconds = generation.seconds
    return {"whole": whole, **seconds, "all else": whole - sum(seconds.values())}


def interval(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.2f}"
    estimate = t_interval(values)
    return f"{estimate.mean:.2f} ± {estimate.high - estimate.mean:.2f}"


def main(repeats: int, say: Callable[[str], object] = print) -> dict[str, Any]:
    found: dict[str, list[dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as root:
        alone = configuration(Path(root) / "in process")
        config = configuration(Path(root) / "devices")
        for each in (alone, config):
            provision_scenes(each.homes, scene_clients(len(PROMPTS), 8), 0)
        in_process(alone)
        found["in process"] = [in_process(alone) for _ in range(repeats)]
        say("in process: done")
        with deployment(config, Path(root) / "server", len(PROMPTS)) as devices:
            for client in range(len(PROMPTS)):
                devices.start(client)
            found["service"] = service(devices, config, repeats)
            say("service: done")
            found["warm run"] = [warm_run(devices, config) for _ in range(repeats)]
            say("warm run: done")
            found["cold run"] = [cold_run(devices, config) for _ in range(repeats)]
    phases = {
        kind: {name: interval([run[name] for run in runs]) for name in runs[0]}
        for kind, runs in found.items()
    }
    return {"repeats": repeats, "prompts": len(PROMPTS), "seconds": phases}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    options = parser.parse_args()
    report = json.dumps(main(options.repeats), indent=1, ensure_ascii=False)
    print(report)
    if options.output:
        options.output.write_text(report + "\n", encoding="utf-8")
