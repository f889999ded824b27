"""Rules that withstand attackers, and what devices are told of the bounds."""

from typing import Any

import numpy as np
import pytest
import torch
from flwr.serverapp.strategy.fedtrimmedavg import trim_mean

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig, RoundsSection, parse_config
from fedaigc.federation.server.server_rule import server_rule
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Update


def robust(strategy: str, clients: int, attackers: int, **options: float) -> FederationConfig:
    return parse_config(
        {
            "homes": "homes",
            "output": "out",
            "num_clients": clients,
            "rounds": {"strategy": strategy, "attackers": attackers, "options": options},
        }
    )


@pytest.mark.parametrize(
    ("strategy", "least"),
    [
        ("fedmedian", 3),
        ("fedtrimmedavg", 3),
        ("krum", 5),
        ("multikrum", 5),
        pytest.param("bulyan", 7, marks=pytest.mark.slow),
    ],
)
def test_robust_rules_take_their_attackers_from_the_configuration(strategy: str, least: int) -> None:
    rule = server_rule(robust(strategy, least, 1))
    start = SharedState("base", {"l": (torch.zeros(1, 2), torch.zeros(2, 1))}, 1, 1.0)
    for hostile in range(least):
        rule.start(start, 1)
        for client in range(least):
            value = 1e4 if client == hostile else 1.0 + client / 100
            tensors = {name: torch.full_like(tensor, value) for name, tensor in start.tensors().items()}
            rule.add(Update(client, 1, 1, tensors, 1))
        largest = max(float(tensor.abs().max()) for tensor in rule.finish().tensors().values())
        assert 1.0 <= largest < 1.1
    with pytest.raises(UserError, match=f"needs {least} clients a round, there are {least - 1}"):
        server_rule(robust(strategy, least - 1, 1))


def test_an_option_goes_before_and_other_rules_withstand_none() -> None:
    given: Any = server_rule(robust("krum", 3, 1, num_malicious_nodes=0))
    computed: Any = server_rule(robust("krum", 8, 2))
    assert given._strategy.num_malicious_nodes == 0
    assert computed._strategy.num_malicious_nodes == 2
    for strategy in ("fedavg", "fedit"):
        with pytest.raises(UserError, match="withstands none: leave it at 0, or choose one of fedmedian"):
            server_rule(robust(strategy, 8, 1))


@pytest.mark.filterwarnings("ignore:round 1")
def test_too_few_updates_for_the_attackers_change_nothing() -> None:
    rule = server_rule(robust("fedtrimmedavg", 5, 1))
    start = SharedState("base", {"l": (torch.zeros(1, 2), torch.zeros(2, 1))}, 1, 1.0)
    rule.start(start, 1)
    for client in range(2):
        tensors = {name: torch.ones_like(tensor) for name, tensor in start.tensors().items()}
        rule.add(Update(client, 1, 1, tensors, 1))
    assert rule.finish().hash() == start.hash()


@pytest.mark.parametrize("clients", range(3, 40))
def test_a_trimmed_mean_cuts_all_attackers_whatever_is_rounded(clients: int) -> None:
    attackers = (clients - 1) // 2
    for f in range(1, attackers + 1):
        values = np.array([1e6] * f + [1.0] * (clients - f))
        assert trim_mean(values, (f + 0.25) / clients) == 1.0


def test_the_loss_of_qfedavg_is_bounded_by_the_others() -> None:
    assert load_strategy("qfedavg").weighing_metrics == ("shared_loss",)
    assert load_strategy("fedavg").weighing_metrics == ()


def test_devices_are_not_told_how_far_an_update_may_go() -> None:
    config = robust("krum", 8, 2)
    rounds = config.rounds.model_copy(update={"max_norm_ratio": 3.5, "max_weight_ratio": 2.5})
    told = config.model_copy(update={"rounds": rounds}).for_devices().rounds
    default = RoundsSection()
    assert (told.max_norm_ratio, told.max_weight_ratio) == (default.max_norm_ratio, default.max_weight_ratio)
    assert told.attackers == 0
    assert told.count == config.rounds.count


@pytest.mark.parametrize("name", ["fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold", "hetlora"])
def test_a_rule_forgets_a_round_that_was_not_taken(name: str) -> None:
    """Before, `load` of the memory before the first round, which is empty, left the first round's."""
    rule = load_strategy(name)
    start = SharedState("base", {"l": (torch.ones(1, 2), torch.zeros(2, 1))}, 1, 1.0)
    before = rule.state()
    rule.start(start, 1)
    received = rule.download(start, 0, 1, 1)
    tensors = {tensor: torch.ones(shape) for tensor, shape in rule.expected(received, 1).items()}
    rule.add(Update(0, 1, 1, tensors, 1))
    rule.finish()
    assert rule.state()
    rule.load(before)
    assert rule.state() == before == {}
