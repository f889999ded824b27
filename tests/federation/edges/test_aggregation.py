"""Two-level aggregation in whole runs: the state of one level, bytes on both hops, and edges and clients that fail."""

import pytest

from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.output.records import RunRecord, read_record
from fedaigc.federation.runtime.launcher import run_in_process
from tests.small_run import MakeRun
from tests.strategies.quadratic import effective, largest_difference

OFF = {"enabled": False}


def run(config: FederationConfig) -> RunRecord:
    run_in_process(config)
    return read_record(config.output)


def difference(first: FederationConfig, second: FederationConfig) -> float:
    return largest_difference(
        effective(load_shared_state(first.output)), effective(load_shared_state(second.output))
    )


def test_two_levels_end_where_one_level_ends(make_run: MakeRun) -> None:
    one = make_run("one", num_clients=4, generation=OFF)
    two = make_run("two", num_clients=4, generation=OFF, edges={"count": 2})
    first, second = run(one), run(two)
    assert first.rounds[0].backhaul_bytes == {}
    assert second.rounds[0].num_examples == first.rounds[0].num_examples
    assert second.rounds[0].sent_bytes == first.rounds[0].sent_bytes
    print(second.rounds[0].sent_bytes, second.rounds[0].backhaul_bytes)
    assert difference(one, two) < 1e-7
