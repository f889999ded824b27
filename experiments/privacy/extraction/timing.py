"""Test whether reply times distinguish two prompts, with many replies of fresh tasks that alternate between them.

The test uses an agent's default floor, an honest order, and orders that are designed to be slow for one prompt: factors
that overflow for the second prompt and not for the first, and factors of denormal numbers. The same test without the
floor shows what the floor hides. `delay_that_would_be_seen_s` is the sensitivity of the test: the smallest delay of all
replies for one prompt, in an increasing series, that it reports as a difference (p < .001).
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from scipy.stats import ks_2samp, mannwhitneyu

from experiments.privacy.extraction.orders import Genes, Lab
from experiments.privacy.extraction.victim import Victim
from fedaigc.deployment.agent import agent
from fedaigc.deployment.agent.reply_time import RATIO
from fedaigc.federation.wire.messages import Ask, shared_state_record
from fedaigc.rng import numpy_rng

_BATCH = 50


def time_test(folder: Path, replies: int, seed: int) -> dict[str, Any]:
    """Measure `replies` replies in total, the same number for each order, and alternately for both prompts."""
    first = Victim(folder / "first", [])
    lab = Lab(first.pipe, first.agent.base_hash())
    pair = _pair(lab)
    orders = (
        Genes("honest", {"steps": 1}),
        Genes("factors that overflow for the second prompt", {"state": "overflow", "steps": 1}),
        Genes("denormal factors", {"state": "denormal", "steps": 1}),
        Genes("latents of denormals", {"packet": "scaled", "scale": 1e-42, "steps": 1}),
    )
    each = replies // len(orders)
    began = time.monotonic()
    found: list[dict[str, Any]] = []
    for genes in orders:
        seconds = _measure(folder / str(len(found)), lab, genes, pair, each, seed)
        found.append({"order": genes.name, **_tests(seconds)})
        print(found[-1], flush=True)
    with patch.object(agent, "held_back", lambda floor_s: contextlib.nullcontext()):
        seconds = _measure(folder / "bare", lab, orders[1], pair, each, seed)
    return {
        "test": "reply times of two prompts, fresh tasks in turn",
        "prompts": pair,
        "floor_s": first.settings.reply_floor_s,
        "ladder_ratio": RATIO,
        "replies": each * len(orders),
        "by_order": found,
        "smallest_p": min(min(row["mann_whitney_p"], row["kolmogorov_smirnov_p"]) for row in found),
        "tests": 2 * len(found),
        "without_the_floor": {"order": orders[1].name, **_tests(seconds)},
        "load_average": os.getloadavg()[1],
        "seconds": round(time.monotonic() - began, 1),
    }


def _pair(lab: Lab) -> tuple[str, str]:
    """Return two candidates with the same number of tokens, of which the second overflows under the first question."""
    values = (lab.table * lab.question(0)).max(1)
    count = [len(prompt.split()) for prompt in lab.prompts]
    over = int(np.argmax(values))
    under = min((i for i in range(len(count)) if count[i] == count[over]), key=lambda i: values[i])
    return lab.prompts[under], lab.prompts[over]


def _measure(
    folder: Path, lab: Lab, genes: Genes, pair: tuple[str, str], replies: int, seed: int
) -> tuple[list[float], list[float]]:
    """Return the seconds until each reply, by prompt, with a new home every few tasks and a random order of the two."""
    random = numpy_rng(seed, "timing", genes.name)
    seconds: tuple[list[float], list[float]] = ([], [])
    state = lab.state(genes)
    for batch in range(0, replies, _BATCH):
        drawn = np.tile([0, 1], _BATCH // 2)
        random.shuffle(drawn)
        drawn = drawn[: replies - batch]
        victim = Victim(folder / str(batch), [pair[which] for which in drawn])
        config = victim.config(generation=lab.generation(genes))
        if state is not None:
            told = victim.ask(Ask.INSTALL, shared_state_record(state), config).kind
            if told != "done":
                print(f"{genes.name}: the state is refused: {told}", flush=True)
        for which, task in zip(drawn, victim.tasks, strict=True):
            seconds[which].append(victim.ask(Ask.FINISH, lab.finish(genes, task), config).seconds)
    return seconds


def _tests(seconds: tuple[list[float], list[float]]) -> dict[str, Any]:
    one, other = seconds
    return {
        "replies": [len(one), len(other)],
        "median_s": [float(np.median(part)) for part in seconds],
        "largest_s": [float(np.max(part)) for part in seconds],
        "replies_5_percent_over_the_fastest": [
            int((np.array(part) > 1.05 * min(map(min, seconds))).sum()) for part in seconds
        ],
        "mann_whitney_p": float(mannwhitneyu(one, other).pvalue),
        "delay_that_would_be_seen_s": _visible_delay(one, other),
        "kolmogorov_smirnov_p": float(ks_2samp(one, other).pvalue),
    }


def _visible_delay(one: list[float], other: list[float]) -> float | None:
    """Return the smallest delay in a series that the test detects, or None if it detects none up to 10 s."""
    for delay in np.geomspace(1e-5, 10, 61):
        if mannwhitneyu(one, np.array(other) + delay).pvalue < 1e-3:
            return float(delay)
    return None
