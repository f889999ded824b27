"""Run training and generation for a long time with unreliable devices, and measure growth and losses.

    python -m tools.deployment.soak [--minutes 30] [--output FILE]

A server with TLS and keys and four devices run as processes of this machine, with the embedded model. One run trains
and serves prompts between its rounds. Prompts are queued at random times, also on devices that are off. Devices are
killed, stopped or suspended at random times, and return 10 to 40 seconds later. Memory, open files and files on disk
are sampled every 10 seconds. At the end, all devices are on and the remaining prompts are served. The output is JSON.
The exit status is 1 if a prompt was lost or answered twice.
"""

import argparse
import contextlib
import json
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from scipy import stats

from fedaigc.data.scenes import scenes_dataset
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, TaskStatus
from fedaigc.device.provision import provision_scenes, scene_clients
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.output.records import read_record, read_services

from .running import Devices, deployment, family, start_run, wait_for

DEVICES = 4
SAMPLE_S, PROMPT_S, FAULT_S = 10.0, 15.0, 45.0
AWAY_S = (10.0, 40.0)


def configuration(folder: Path) -> FederationConfig:
    return parse_config(
        {
            "homes": folder / "homes",
            "output": folder / "output",
            "num_clients": DEVICES,
            "rounds": {"count": 1_000_000, "deadline_s": 30.0},
            "training": {"local_steps": 2, "personal_steps": 1, "batch_size": 2},
            "generation": {
                "num_inference_steps": 10,
                "num_shared_steps": 4,
                "executor": "member",
                "max_distance": 3,
                "scorer": "none",
                "between_rounds": True,
                "window_s": 1.0,
                "deadline_s": 30.0,
            },
        }
    )


class Faults:
    """Interrupts devices and restores them."""

    def __init__(self, devices: Devices, rng: random.Random) -> None:
        self._devices, self._rng = devices, rng
        self._back: dict[int, tuple[float, str]] = {}
        self.done: Counter[str] = Counter()

    def strike(self) -> None:
        """Interrupt a random running device."""
        here = [client for client in range(DEVICES) if client not in self._back]
        if len(here) < 2:
            return
        client, way = self._rng.choice(here), self._rng.choice(("killed", "stopped", "suspended"))
        process = self._devices.running[client]
        if way == "suspended":
            for each in family(process.pid):
                with contextlib.suppress(psutil.Error):
                    each.suspend()
        else:
            process.send_signal(signal.SIGKILL if way == "killed" else signal.SIGTERM)
            process.wait(60)
        self._back[client] = (time.monotonic() + self._rng.uniform(*AWAY_S), way)
        self.done[way] += 1

    def relieve(self, all_of_them: bool = False) -> None:
        """Restore the devices whose interruption is over, or all of them."""
        for client, (when, way) in list(self._back.items()):
            if all_of_them or time.monotonic() > when:
                if way == "suspended":
                    for each in family(self._devices.running[client].pid):
                        with contextlib.suppress(psutil.Error):
                            each.resume()
                else:
                    self._devices.begin(client)
                del self._back[client]


def sample(devices: Devices, config: FederationConfig) -> dict[str, float]:
    """Return the current memory in megabytes, open files and files on disk."""
    found: dict[str, float] = {}
    groups = {"server": devices.state.pid} | {
        f"device {number}": process.pid
        for number, process in devices.running.items()
        if process.poll() is None
    }
    for name, pid in groups.items():
        memory, handles = 0.0, 0
        for process in family(pid):
            with contextlib.suppress(psutil.Error):
                memory += process.memory_full_info().uss / 1e6
                handles += process.num_fds()
        found[f"{name} MB"], found[f"{name} open files"] = memory, handles
    homes = [path for path in config.homes.rglob("*") if path.is_file()]
    # without folders that hold one file per prompt by design
    own = [path for path in homes if not {"prompts", "gallery", "shared_work"} & set(path.parts)]
    found["files of homes"] = len(own)
    found["files of server"] = sum(path.is_file() for path in devices.folder.rglob("*"))
    found["files of run"] = sum(path.is_file() for path in config.output.rglob("*"))
    logs = (*devices.folder.rglob("*.log"), *config.output.rglob("*.log"))
    for name, paths in (("homes", own), ("server", devices.folder.rglob("*")), ("logs", logs)):
        found[f"{name} on disk MB"] = sum(size(path) for path in paths) / 1e6
    found["database MB in use"] = in_use(devices.folder / "superlink.db") / 1e6
    return found


def in_use(database: Path) -> int:
    """Return the number of used bytes in a SQLite file, which itself never shrinks."""
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        page, pages, free = (
            connection.execute(f"PRAGMA {what}").fetchone()[0]
            for what in ("page_size", "page_count", "freelist_count")
        )
    return page * (pages - free)


def size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size if path.is_file() else 0
    return 0


def growth(times: list[float], samples: list[dict[str, float]], name: str) -> dict[str, float]:
    """Return the medians of the first and last third, and the slope over the last two with its 95 % interval.

    The interval is too narrow, because consecutive samples are correlated. A device has no samples while it is off.
    """
    pairs = [(when, each[name]) for when, each in zip(times, samples, strict=True) if name in each]
    at, values = np.array(pairs).T
    third = len(values) // 3
    line = stats.linregress(at[third:], values[third:])
    half = stats.t.ppf(0.975, max(1, len(values) - third - 2)) * line.stderr
    found = {
        "first third": np.median(values[:third]),
        "last third": np.median(values[-third:]),
        "per hour": line.slope * 3600,
        "per hour ±": half * 3600,
    }
    return {name: round(float(value), 2) for name, value in found.items()}


def answers(config: FederationConfig) -> dict[str, Any]:
    """Return how often prompts were answered, according to their devices and to the server's records."""
    served = [task for each in read_services(config.output) for task in each.tasks]
    told = Counter(task.task_id for task in served if task.outcome != "failed")
    tasks = [
        (config.home(client), task)
        for client in range(DEVICES)
        for task in PromptQueue(Home.open(config.home(client))).all()
    ]
    drawn = [len(list((home / "gallery").glob(f"*{task.task_id}.png"))) for home, task in tasks]
    shared = sum(task.outcome == "shared" for task in served)
    return {
        "prompts": len(tasks),
        "finished": sum(task.status is TaskStatus.FINISHED for _, task in tasks),
        "pictures": Counter(drawn)[1],
        "told once": Counter(told[task.task_id] for _, task in tasks)[1],
        "told more often": sum(count > 1 for count in told.values()),
        "shared": shared,
    }


def waiting(config: FederationConfig) -> int:
    return sum(len(PromptQueue(Home.open(config.home(number))).waiting()) for number in range(DEVICES))


def soak(root: Path, seconds: float, seed: int) -> dict[str, Any]:
    rng = random.Random(seed)
    config = configuration(root / "run")
    provision_scenes(config.homes, scene_clients(DEVICES, 6), 0)
    prompts = list(scenes_dataset(1000, seed)["caption"])
    with deployment(config, root / "server", DEVICES) as devices:
        for client in range(DEVICES):
            devices.start(client)
        running = start_run(devices, config)
        wait_for(lambda: (config.output / "record.json").exists(), 300)
        faults, samples, times = Faults(devices, rng), [], []
        began = time.monotonic()
        due = {"sample": began, "prompt": began, "fault": began + FAULT_S}
        while (now := time.monotonic()) < began + seconds:
            assert running.poll() is None, "the run ended"
            if now > due["prompt"]:
                PromptQueue(Home.open(config.home(rng.randrange(DEVICES)))).add(prompts.pop())
                due["prompt"] = now + rng.expovariate(1 / PROMPT_S)
            if now > due["fault"]:
                faults.strike()
                due["fault"] = now + rng.expovariate(1 / FAULT_S)
            faults.relieve()
            if now > due["sample"]:
                times.append(now - began)
                samples.append(sample(devices, config))
                due["sample"] = now + SAMPLE_S
                print(f"{now - began:6.0f} s, {waiting(config)} prompts wait", file=sys.stderr, flush=True)
            time.sleep(0.2)
        faults.relieve(all_of_them=True)
        wait_for(lambda: not waiting(config), 600)
        record = read_record(config.output)
        end(running)
    return {
        "minutes": round(seconds / 60, 1),
        "rounds": len(record.rounds),
        "rounds without a device": sum(bool(entry.refused) for entry in record.rounds),
        "devices taken away": dict(faults.done),
        "answers": answers(config),
        "growth": {name: growth(times, samples, name) for name in samples[0]},
    }


def end(running: "subprocess.Popen[bytes]") -> None:
    """End a run as Ctrl-C does, which also ends it on the server."""
    running.send_signal(signal.SIGINT)
    running.wait(120)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="also write the JSON to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        found = soak(Path(root), 60 * options.minutes, options.seed)
    report = json.dumps(found, indent=1)
    print(report)
    if options.output:
        options.output.write_text(report + "\n", encoding="utf-8")
    told = found["answers"]
    good = told["prompts"] == told["finished"] == told["pictures"] and not told["told more often"]
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
