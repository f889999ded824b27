"""The section `edges`: who belongs to which edge, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from fedaigc.deployment.server.runs import run_on_devices
from fedaigc.deployment.server.server import ServerState
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.output.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.strategies.quadratic import random_state


def config(**values: Any) -> FederationConfig:
    return parse_config({"homes": "homes", "output": "out", "num_clients": 5, **values})


def test_clients_are_divided_in_blocks_or_as_given() -> None:
    assert [config(edges={"count": 2}).edge(client) for client in range(5)] == [0, 0, 0, 1, 1]
    assert [config(edges={"count": 5}).edge(client) for client in range(5)] == [0, 1, 2, 3, 4]
    given = config(edges={"count": 3, "clients": [2, 0, 1, 0, 2]})
    assert [given.edge(client) for client in range(5)] == [2, 0, 1, 0, 2]
    assert [config().edge(client) for client in range(5)] == [0] * 5


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"edges": {"count": 6}}, "at most num_clients, which is 5"),
        ({"edges": {"count": 0}}, "edges.count"),
        ({"edges": {"count": 2, "clients": [0, 1]}}, "2 values for 5 clients"),
        (
            {"edges": {"count": 2, "clients": [0, 1, 2, 0, 1]}},
            r"the edges \[2\]: for 2 edges expected 0 to 1",
        ),
        ({"edges": {"count": 3, "clients": [0, 1, 0, 0, 1]}}, r"gives the edges \[2\] no client"),
        ({"edges": {"dropout_rate": 1.0}}, "dropout_rate"),
        ({"generation": {"topology": "edges"}}, "there is no section edges"),
        ({"edges": {}, "generation": {"topology": "ring"}}, "'edge', 'edges', 'pair' or 'cluster'"),
    ],
)
def test_what_cannot_work_is_refused(values: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        config(**values)


def test_a_checkpoint_belongs_to_a_run_with_the_same_edges(tmp_path: Path) -> None:
    run = config(output=str(tmp_path), rounds={"count": 2}, edges={"count": 2})
    save_checkpoint(Checkpoint(1, random_state(0, 2), {}), run)
    assert load_checkpoint(run) is not None
    with pytest.raises(UserError, match="another configuration"):
        load_checkpoint(config(output=str(tmp_path), rounds={"count": 2}))


def test_separate_machines_refuse_edges(tmp_path: Path) -> None:
    state = ServerState(pid=1, began=0.0, host="127.0.0.1", port=1, superlink="127.0.0.1:1", tls=True)
    with pytest.raises(UserError, match="every device talks to the server itself"):
        run_on_devices(tmp_path, state, config(edges={"count": 2}))
