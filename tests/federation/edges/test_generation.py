"""Edges that serve their own devices: groups do not cross edges, and little crosses the backhaul."""

from typing import Any

from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import RunRecord, read_record
from fedaigc.federation.output.run_summary import generation_lines
from fedaigc.federation.runtime.launcher import run_in_process
from tests.small_run import MakeRun, generation_of, images


def drawn(make_run: MakeRun, folder: str, topology: str, **values: Any) -> tuple[FederationConfig, RunRecord]:
    """Draw the prompts of four devices: fruit on 0 and 1, animals on 2 and 3."""
    generation = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none", "topology": topology}
    config = make_run(folder, num_clients=4, rounds={"count": 0}, generation=generation, **values)
    run_in_process(config)
    return config, read_record(config.output)


def members(record: RunRecord) -> set[tuple[int, ...]]:
    return {tuple(sorted(task.client for task in group.tasks)) for group in generation_of(record).groups}


def test_each_edge_groups_the_prompts_of_its_own_devices(make_run: MakeRun) -> None:
    one, without = drawn(make_run, "one", "edge")
    near, own = drawn(make_run, "near", "edges", edges={"count": 2})
    far, apart = drawn(make_run, "far", "edges", edges={"count": 2, "clients": [0, 1, 0, 1]})
    assert members(without) == members(own) == {(0, 1), (2, 3)}
    # with the same groups, the same pictures bit for bit
    assert images(near) == images(one)
    assert {group.edge for group in generation_of(without).groups} == {None}
    assert [group.edge for group in generation_of(own).groups] == [
        group.tasks[0].client // 2 for group in generation_of(own).groups
    ]
    # similar prompts on different edges do not meet
    assert members(apart) == {(0,), (1,), (2,), (3,)}
    assert sorted(group.edge or 0 for group in generation_of(apart).groups) == [0, 0, 1, 1]
    assert len(images(far)) == 4
    assert any("2 shared steps by edge 1" in line for line in generation_lines(own))
    assert any("2 shared steps by the edge server" in line for line in generation_lines(without))

    # each edge gets the state, and sends reports: no signature, no packet
    backhaul, devices = own.backhaul_bytes, own.sent_bytes
    assert devices["down"]["weights"] == 2 * backhaul["down"]["weights"] > 0
    assert devices["up"]["metrics"] == backhaul["up"]["metrics"] > 0
    for kind in ("signatures", "packets"):
        assert devices["up"][kind] + devices["down"][kind] > 0
        assert backhaul["up"][kind] + backhaul["down"][kind] == 0


def test_with_one_edge_server_the_edges_forward_every_message(make_run: MakeRun) -> None:
    _, record = drawn(make_run, "one", "edge", edges={"count": 2, "clients": [0, 1, 0, 1]})
    assert members(record) == {(0, 1), (2, 3)}
    assert record.backhaul_bytes == record.sent_bytes
    assert record.sent_bytes["down"]["packets"] > 0
