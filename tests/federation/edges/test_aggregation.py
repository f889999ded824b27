"""Two-level aggregation in whole runs: the state of one level, bytes on both hops, and edges and clients that fail."""

from typing import Any

from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.output.records import RunRecord, read_record
from fedaigc.federation.runtime.launcher import run_in_process
from fedaigc.federation.server.server_app import initial_shared_state
from tests.small_run import MakeRun
from tests.strategies.quadratic import effective, largest_difference

OFF = {"enabled": False}
# sums of float32 in another order, after two rounds of AdamW
SAME = 2e-6


def run(config: FederationConfig) -> RunRecord:
    run_in_process(config)
    return read_record(config.output)


def both(
    make_run: MakeRun, rounds: dict[str, Any], edges: dict[str, Any]
) -> tuple[RunRecord, RunRecord, float]:
    """Return the records of a run without and with edges, and the difference of their states."""
    configs = [
        make_run(folder, num_clients=4, generation=OFF, rounds=rounds, **values)
        for folder, values in (("one", {}), ("two", {"edges": edges}))
    ]
    one, two = (run(config) for config in configs)
    ends = [effective(load_shared_state(config.output)) for config in configs]
    assert largest_difference(ends[0], effective(initial_shared_state(configs[0]))) > 100 * SAME
    return one, two, largest_difference(*ends)


def test_two_levels_end_where_one_level_ends(make_run: MakeRun) -> None:
    """With three of four clients a round, of which some drop out, and lossy formats on the air."""
    rounds = {
        "count": 2,
        "clients": 3,
        "dropout_rate": 0.3,
        "upload_format": "int8",
        "download_format": "float16",
    }
    one, two, difference = both(make_run, rounds, {"count": 2, "clients": [0, 1, 0, 1]})
    assert difference < SAME
    assert sum(len(done.refused) for done in one.rounds) in (1, 2, 3)
    for first, second in zip(one.rounds, two.rounds, strict=True):
        assert second.sampled == first.sampled
        assert second.refused == first.refused
        assert second.num_examples == first.num_examples
        # between devices and edges nothing changes
        assert second.sent_bytes["down"]["weights"] == first.sent_bytes["down"]["weights"]


def test_a_strategy_whose_updates_edges_forward_ends_bit_for_bit_the_same(make_run: MakeRun) -> None:
    rounds = {"count": 1, "strategy": "flexlora"}
    one, two, difference = both(make_run, rounds, {"count": 2})
    assert difference == 0
    assert two.shared_hash == one.shared_hash
    assert one.rounds[0].backhaul_bytes == one.backhaul_bytes == {}
    assert "backhaul_bytes_up" not in one.rounds.to_pandas()
    assert two.rounds[0].backhaul_bytes["up"]["weights"] == one.rounds[0].sent_bytes["up"]["weights"]


def test_the_bytes_of_both_hops_add_up(make_run: MakeRun) -> None:
    config = make_run(num_clients=4, generation=OFF, edges={"count": 2})
    record = run(config)
    for counted in ("sent_bytes", "backhaul_bytes"):
        for direction in ("down", "up"):
            rounds = [getattr(done, counted)[direction] for done in record.rounds]
            total = getattr(record, counted)[direction]
            assert {kind: sum(done[kind] for done in rounds) for kind in total} == total
            assert total["weights"] > 1000
    devices, backhaul = record.sent_bytes, record.backhaul_bytes
    # one update of each of 4 devices, one mean of each of 2 edges; the state to each of them
    assert devices["up"]["weights"] == 2 * backhaul["up"]["weights"]
    assert devices["down"]["weights"] == 2 * backhaul["down"]["weights"]
    table = record.rounds.to_pandas()
    assert table["backhaul_bytes_up"][0] == sum(record.rounds[0].backhaul_bytes["up"].values())


def test_an_edge_that_fails_costs_the_round_its_clients_alone(make_run: MakeRun) -> None:
    config = make_run(
        num_clients=4, generation=OFF, rounds={"count": 4}, edges={"count": 2, "dropout_rate": 0.5}
    )
    record = run(config)
    lost = [set(done.refused) for done in record.rounds]
    assert {0, 1} in lost or {2, 3} in lost
    assert all(each in (set(), {0, 1}, {2, 3}, {0, 1, 2, 3}) for each in lost)
    before = initial_shared_state(config).hash()
    for done, missing in zip(record.rounds, lost, strict=True):
        assert done.sampled == (0, 1, 2, 3)
        assert set(done.num_examples) == {0, 1, 2, 3} - missing
        assert all(reason == f"client {c}: edge {c // 2} failed" for c, reason in done.refused.items())
        # an edge that failed is sent nothing, and its devices neither
        assert (done.backhaul_bytes["down"]["weights"] > 0) == (len(missing) < 4)
        assert (done.shared_hash == before) == (len(missing) == 4)
        before = done.shared_hash
