"""The weights of averaging rules: numbers of examples, or equal weights."""

from typing import Any

import pytest
import torch
from flwr.app import Message

from fedaigc.errors import UserError
from fedaigc.federation.client.client_app import app
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.output.records import read_record
from fedaigc.federation.runtime.launcher import in_process_run
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.server_app import serve
from fedaigc.federation.wire.flat_arrays import array_of, flatten
from fedaigc.federation.wire.messages import ARRAYS, FLAT, values_of
from fedaigc.strategy.registry import describe, load_strategy
from fedaigc.strategy.sources import strategy_names
from tests.small_run import MakeRun


class WatchedGrid(LocalGrid):
    """Records what devices send in a round, by client."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.sent: dict[int, tuple[int, Any]] = {}

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        if message.metadata.message_type == "train":
            client = self._contexts[message.metadata.dst_node_id].node_config["partition-id"]
            count = values_of(reply.content)["num_examples"]
            values = array_of(values_of(reply.content, ARRAYS)[FLAT].data).astype("float64")
            self.sent[int(client)] = (int(count), torch.from_numpy(values))
        return reply


def run(config: FederationConfig) -> WatchedGrid:
    with in_process_run(config) as run_id:
        grid = WatchedGrid(
            app, num_clients=config.num_clients, run_config=config.to_run_config(), run_id=run_id
        )
        serve(grid, config)
    return grid


@pytest.mark.parametrize(
    ("strategy", "weighting", "uniform"),
    [
        ("fedit", None, False),
        ("fedit", "examples", False),
        ("fedit", "uniform", True),
        ("fedavg", None, False),
        ("fedavg", "uniform", True),
        ("rolora", "examples", False),
        ("rolora", None, True),
    ],
)
def test_a_round_averages_by_examples_or_alike(
    make_run: MakeRun, strategy: str, weighting: str | None, uniform: bool
) -> None:
    """Devices with 2, 3 and 4 pictures, and the mean of their updates in double precision."""
    options = {} if weighting is None else {"weighting": weighting}
    section = {"count": 1, "strategy": strategy, "options": options}
    config = make_run(rounds=section, generation={"enabled": False})
    grid = run(config)
    assert sorted(count for count, _ in grid.sent.values()) == [2, 3, 4]
    weights = {client: 1 if uniform else count for client, (count, _) in grid.sent.items()}
    total = sum(weights[client] * values for client, (_, values) in grid.sent.items())
    mean = total / sum(weights.values())
    shared = load_shared_state(config.output)
    rule = load_strategy(strategy, options)
    found = flatten({name: tensor for name, tensor in shared.tensors().items() if rule.sends(name, 1)})
    torch.testing.assert_close(torch.from_numpy(found).double(), mean, rtol=0, atol=1e-6)
    other = {client: count if uniform else 1 for client, (count, _) in grid.sent.items()}
    wrong = sum(other[p] * values for p, (_, values) in grid.sent.items()) / sum(other.values())
    assert (torch.from_numpy(found).double() - wrong).abs().max() > 1e-5
    # what devices said stays in the record
    assert read_record(config.output).rounds[0].num_examples


@pytest.mark.parametrize("name", strategy_names())
def test_a_strategy_names_its_weighting_or_has_no_such_option(name: str) -> None:
    weighting = describe(name).options.get("weighting")
    assert weighting in (None, "examples", "uniform")
    if weighting is None:
        with pytest.raises(UserError, match="no option 'weighting'"):
            load_strategy(name, {"weighting": "uniform"})


@pytest.mark.parametrize("name", ["scaffold", "rolora", "fedex_lora", "fedrep", "multikrum"])
def test_the_papers_that_weigh_all_clients_alike(name: str) -> None:
    assert describe(name).options["weighting"] == "uniform"


def test_a_weighting_that_is_none_is_refused() -> None:
    with pytest.raises(UserError, match="weighting: expected examples or uniform, got 'equal'"):
        load_strategy("fedit", {"weighting": "equal"})
    with pytest.raises(UserError, match="no option 'weighting'"):
        load_strategy(
            "fedavg",
            {"weighting": "uniform", "dp": "server-fixed", "noise_multiplier": 1.0, "clipping_norm": 1.0},
        )
    with pytest.raises(UserError, match=r"no option 'weight'.*'weighting'"):
        load_strategy("fedit", {"weight": "uniform"})
