"""Fuzz a device or a server for some minutes, and report the longest reply, memory, and all failures.

    python -m experiments.privacy.fuzz --side device --minutes 10 --output device.json

A failure is an exception that crosses the boundary, a reply or record that contains what was sent, a prompt or
picture that is lost, or a message that takes 2 s more than an honest one of its kind. Seconds are those of this
process; the machine may run others.
"""

import argparse
import contextlib
import ctypes
import gc
import json
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from experiments.privacy.fuzzing.device import (
    KINDS,
    DeviceTarget,
    Outcome,
    device_message,
    frame,
    send_bytes,
    served,
)
from experiments.privacy.fuzzing.prompt_messages import PROMPT
from experiments.privacy.fuzzing.server import (
    ASKED,
    PROMPTS,
    READERS,
    SHARING_READERS,
    TWIN_READERS,
    ServerTarget,
    device_reply,
)
from fedaigc.data.scenes import scenes_dataset
from fedaigc.data.sprites import STYLES
from fedaigc.device.device import Device
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.runtime.launcher import in_process_run

BUDGET_S = 2.0
_BATCH = 25


class Tally:
    """Counts, longest times and failures, compared with the honest time of each kind."""

    def __init__(self) -> None:
        self.honest: dict[str, float] = {}
        self.longest: defaultdict[str, float] = defaultdict(float)
        self.counts: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.memory: list[int] = []

    def honest_time(self, outcome: Outcome) -> None:
        """Record the time of an honest message. The longest of several is used."""
        self.honest[outcome.kind] = max(self.honest.get(outcome.kind, 0.0), outcome.seconds)
        self.failures.update(f"honest {outcome.kind}: {text}" for text in outcome.failures)

    def add(self, outcome: Outcome) -> None:
        """Count a message."""
        kind = outcome.kind
        self.counts[kind] += 1
        self.longest[kind] = max(self.longest[kind], outcome.seconds)
        self.failures.update(f"{kind}: {text}" for text in outcome.failures)
        if outcome.seconds > self.honest.get(kind, 0.0) + BUDGET_S:
            self.failures[f"{kind}: more than {BUDGET_S:.0f} s beyond an honest one"] += 1

    def sample_memory(self) -> None:
        """Sample the resident memory after releasing the drawn mutations, which take megabytes."""
        gc.collect()
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        self.memory.append(psutil.Process().memory_info().rss)

    def growth_mb(self) -> float:
        """Return the growth of resident memory in MB, between medians of the first and the last five samples."""
        if len(self.memory) < 2:
            return 0.0
        return (statistics.median(self.memory[-5:]) - statistics.median(self.memory[:5])) / 1e6

    def _quarters(self) -> list[float]:
        """Return the resident memory in MB at the end of each quarter of the run, as medians of five samples."""
        ends = [max(1, len(self.memory) * quarter // 4) for quarter in range(1, 5)]
        return [round(statistics.median(self.memory[max(0, end - 5) : end]) / 1e6, 1) for end in ends]

    def record(self) -> dict[str, Any]:
        """Return everything, as JSON."""
        return {
            "messages": sum(self.counts.values()),
            "by_kind": dict(sorted(self.counts.items())),
            "honest_s": {kind: round(value, 3) for kind, value in sorted(self.honest.items())},
            "longest_s": {kind: round(value, 3) for kind, value in sorted(self.longest.items())},
            "memory_growth_mb": round(self.growth_mb(), 1),
            "memory_by_quarter_mb": self._quarters() if self.memory else [],
            "failures": dict(self.failures.most_common(50)),
        }


def drive(strategy: st.SearchStrategy[Any], act: Callable[[Any], None], number: int, count: int) -> None:
    """Draw `count` examples under this seed and act on each."""

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(example: Any) -> None:
        act(example)

    run()


def fuzz_device(
    config: FederationConfig, seconds: float, first_seed: int = 0, say: Callable[[str], object] = print
) -> Tally:
    """Send messages to an agent, and bytes to its socket, for the given seconds."""
    tally, target = Tally(), DeviceTarget(config)
    for kind in KINDS * 2:
        outcome = target.ask(kind, target.text_of(kind), target.honest(kind)[1])
        if outcome.refused:
            outcome.failures.append("refused")
        tally.honest_time(outcome)
    failures: list[str] = []
    mixed = st.integers(0, 3).flatmap(lambda n: device_message(target) if n else frame(target))
    with served(target, failures):
        tally.honest["bytes"] = max(tally.honest.values())
        end, number = time.monotonic() + seconds, first_seed
        while time.monotonic() < end:

            def act(example: Any) -> None:
                if time.monotonic() < end:
                    sent = isinstance(example, bytes)
                    tally.add(send_bytes(target, example) if sent else target.ask(*example))

            drive(mixed, act, number, _BATCH)
            tally.sample_memory()
            number += 1
            say(f"{sum(tally.counts.values())} messages, {sum(tally.failures.values())} failures")
    tally.failures.update(failures)
    tally.failures.update(target.lost())
    return tally


def fuzz_server(
    config: FederationConfig, seconds: float, first_seed: int = 0, say: Callable[[str], object] = print
) -> Tally:
    """Pass replies to a server's readers for the given seconds, and every tenth also to a whole round or generation."""
    tally = Tally()
    with in_process_run(config):
        target = ServerTarget(config)
        for kind in READERS:
            reply = target.honest(kind)
            tally.honest_time(target.read(kind, reply))
            tally.honest_time(target.run(_whole(kind), ASKED[kind], reply))
        end, number, count = time.monotonic() + seconds, first_seed, 0
        while time.monotonic() < end:

            def act(example: Any) -> None:
                nonlocal count
                if time.monotonic() >= end:
                    return
                kind, reply = example
                count += 1
                tally.add(target.read(kind, reply))
                if count % 10 == 0:
                    tally.add(target.run(_whole(kind), ASKED[kind], reply))

            drive(device_reply(target), act, number, _BATCH)
            tally.sample_memory()
            number += 1
            say(f"{sum(tally.counts.values())} messages, {sum(tally.failures.values())} failures")
    return tally


def _whole(kind: str) -> str:
    sharing, twins = dict.fromkeys(SHARING_READERS, "sharing"), dict.fromkeys(TWIN_READERS, "equality")
    return ({"update": "round"} | sharing | twins).get(kind, "generation")


def make_config(folder: Path) -> FederationConfig:
    """Return a configuration of three devices with the embedded model, a few pictures and prompts each."""
    config = parse_config(
        {
            "homes": folder / "homes",
            "output": folder / "out",
            "num_clients": 3,
            "rounds": {"count": 1},
            "adapter": {"rank": 2},
            "training": {"local_steps": 1, "personal_steps": 1, "batch_size": 2},
            "generation": {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none"},
        }
    )
    pipe, base_hash = base_model(config.model)
    for client in range(3):
        home = config.home(client)
        device = Device(home, pipe, base_hash=base_hash, taxonomy=taxonomy(), seed=client)
        device.add_images(scenes_dataset(2, client, styles=(STYLES[client],)))
        device.add_prompt(PROMPTS[client])
        device.add_prompt(PROMPT)
    return config


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--side", choices=["device", "server"], required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path)
    given_ = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        config = make_config(Path(folder))
        fuzz = fuzz_device if given_.side == "device" else fuzz_server
        tally = fuzz(config, 60 * given_.minutes, given_.seed)
    record = {"side": given_.side, "minutes": given_.minutes, "seed": given_.seed} | tally.record()
    text = json.dumps(record, indent=1, sort_keys=True)
    print(text)
    if given_.output is not None:
        given_.output.parent.mkdir(parents=True, exist_ok=True)
        given_.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
