"""The server halves of the general and personal rules, each compared with a second, slow and obvious one."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import UserError
from fedaigc.rng import rng
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Rule, Update, WeightedMean, in_parts

MEANS = ("fedit", "ditto", "fedala", "scaffold", "fedrep", "full_weights")  # on given updates


def random_state(seed: int, rank: int = 2) -> SharedState:
    """A linear layer, a convolution, and a layer that FedRep keeps on the device."""
    noise = rng(seed, "state")

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=noise)

    lora = {
        "down_blocks.0.to_q": (drawn(rank, 3), drawn(4, rank)),
        "mid_block.conv1": (drawn(rank, 3, 3, 3), drawn(5, rank, 1, 1)),
        "up_blocks.0.to_k": (drawn(rank, 2), drawn(3, rank)),
    }
    return SharedState("base", lora, rank, 2.0 * rank, boundary_log_snr=0.5)


def updates_for(rule: Rule, shared: SharedState, sizes: list[tuple[int, int]], seed: int) -> list[Update]:
    """Return one update with random values for each (examples, steps)."""
    found = []
    for client, (num_examples, num_steps) in enumerate(sizes):
        noise = rng(seed, "update", client)
        shapes = rule.expected(rule.download(shared, client, shared.rank, 1), shared.rank)
        tensors = {name: torch.randn(shape, generator=noise) for name, shape in shapes.items()}
        found.append(Update(client, num_examples, num_steps, tensors, shared.rank, {"shared_loss": 0.5}))
    return found


def fold(rule: Rule, shared: SharedState, updates: list[Update], round: int = 1) -> SharedState:
    rule.start(shared, round)
    for update in updates:
        rule.add(replace(update, tensors={name: t.clone() for name, t in update.tensors.items()}))
    return rule.finish()


def close(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].double(), tensor.double(), rtol=1e-4, atol=1e-5)


def slow_mean(updates: list[Update], value: Callable[[Update, str], Tensor], name: str) -> Tensor:
    """sum_k (n_k / sum n) value_k, in double precision."""
    total = sum(update.num_examples for update in updates)
    return torch.stack(
        [update.num_examples / total * value(update, name).double() for update in updates]
    ).sum(0)


def change_from(start: Mapping[str, Tensor]) -> Callable[[Update, str], Tensor]:
    return lambda update, name: update.tensors[name] - start[name]


SIZES = st.lists(st.tuples(st.integers(1, 500), st.integers(1, 40)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=20)
@given(SIZES, st.integers(0, 10**6), st.integers(1, 4))
@pytest.mark.parametrize("name", MEANS)
def test_the_mean_of_what_is_sent(name: str, sizes: list[tuple[int, int]], seed: int, rank: int) -> None:
    rule = load_strategy(name)
    shared = rule.initial(random_state(seed, rank))
    updates = updates_for(rule, shared, sizes, seed)
    found = fold(rule, shared, updates)
    close(
        found.tensors(),
        {n: slow_mean(updates, lambda update, n: update.tensors[n], n) for n in shared.tensors()},
    )
    assert found.header() == shared.header()


@settings(deadline=None, max_examples=20)
@given(SIZES, st.integers(0, 10**6), st.integers(0, 10), st.floats(0.1, 2.0))
def test_scaffold_s_server(sizes: list[tuple[int, int]], seed: int, absent: int, rate: float) -> None:
    """x + eta_g sum p (y - x), and c + (|S| / N) sum p (c_k' - c_k), over two rounds."""
    rule = load_strategy("scaffold", {"server_learning_rate": rate})
    rule.num_clients = len(sizes) + absent
    x = random_state(seed)
    c = {f"control/{name}": torch.zeros_like(value).double() for name, value in x.tensors().items()}
    for round in (1, 2):
        updates, before = updates_for(rule, x, sizes, seed + round), x.tensors()
        expected = {
            name: value.double() + rate * slow_mean(updates, change_from(before), name)
            for name, value in before.items()
        }
        share = len(sizes) / rule.num_clients
        c = {
            name: value + share * slow_mean(updates, lambda u, n: u.tensors[n], name)
            for name, value in c.items()
        }
        x = fold(rule, x, updates, round)
        close(x.tensors(), expected)
        close(rule.state(), c)
    close(rule.download(x, 0, 2, 3).extra, c)
    resumed = load_strategy("scaffold", {"server_learning_rate": rate})
    resumed.load(rule.state())
    assert all(torch.equal(t, rule.state()[n]) for n, t in resumed.download(x, 0, 2, 3).extra.items())


def test_scaffold_by_hand() -> None:
    """Two clients of four, n = 1 and 3, y = 1 and 5, c_k' - c_k = 8 and 0.

    x = 1/4 + 15/4 = 4 and c = 2/4 (1/4 8) = 1; then the same again: c = 2.
    """
    start = SharedState("base", {"l": (torch.zeros(1, 1), torch.zeros(1, 1))}, 1, 1.0)

    def one(client: int, value: float, change: float, num_examples: int) -> Update:
        values = {
            "l.lora_A": value,
            "l.lora_B": value,
            "control/l.lora_A": change,
            "control/l.lora_B": change,
        }
        return Update(client, num_examples, 1, {n: torch.tensor([[v]]) for n, v in values.items()}, 1)

    rule = load_strategy("scaffold")
    rule.num_clients = 4
    for expected in (1.0, 2.0):
        found = fold(rule, start, [one(0, 1.0, 8.0, 1), one(1, 5.0, 0.0, 3)])
        assert found.lora["l"][0].tolist() == [[4.0]]
        assert rule.state()["control/l.lora_B"].tolist() == [[expected]]
    assert fold(rule, start, []).hash() == start.hash()
    assert rule.state()["control/l.lora_A"].tolist() == [[2.0]]


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(0, 10**6))
def test_fednova_s_server(sizes: list[tuple[int, int]], seed: int) -> None:
    rule, x = load_strategy("fednova"), random_state(seed)
    updates = updates_for(rule, x, sizes, seed)
    total = sum(update.num_examples for update in updates)
    tau = sum(update.num_examples * update.num_steps for update in updates) / total
    expected = {
        name: value.double()
        + tau * slow_mean(updates, lambda u, n: (u.tensors[n] - x.tensors()[n]).double() / u.num_steps, name)
        for name, value in x.tensors().items()
    }
    found = fold(rule, x, updates)
    for name, tensor in expected.items():
        torch.testing.assert_close(found.tensors()[name].double(), tensor, rtol=1e-3, atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=6), st.integers(1, 40), st.integers(0, 10**6))
def test_fednova_at_equal_steps_is_fedit(sizes: list[int], steps: int, seed: int) -> None:
    x = random_state(seed)
    updates = updates_for(load_strategy("fedit"), x, [(size, steps) for size in sizes], seed)
    nova, fedit = (fold(load_strategy(name), x, updates) for name in ("fednova", "fedit"))
    close(nova.tensors(), fedit.tensors())


def test_fednova_by_hand() -> None:
    """From x = 0, n alike: y = 2 after 1 step, y = 4 after 4. tau = 5/2, steps 2 and 1: x = 5/2 3/2 = 15/4.

    The mean would be 3. Two equal updates y = 2 after 1 and 4 steps: 5/2 (2 + 1/2) / 2 = 25/8, not 2.
    """
    start = SharedState("base", {"l": (torch.zeros(1, 1), torch.zeros(1, 1))}, 1, 1.0)

    def one(client: int, value: float, steps: int) -> Update:
        tensors = {name: torch.tensor([[value]]) for name in ("l.lora_A", "l.lora_B")}
        return Update(client, 7, steps, tensors, 1)

    for second, expected in ((4.0, 15 / 4), (2.0, 25 / 8)):
        found = fold(load_strategy("fednova"), start, [one(0, 2.0, 1), one(1, second, 4)])
        assert found.lora["l"][0].tolist() == [[expected]]


def test_full_weights_are_exact_and_start_at_zero() -> None:
    """The weight of each layer moves by sum_k p_k R_k."""
    rule = load_strategy("full_weights")
    shared = rule.initial(random_state(0))
    assert {n: tuple(t.shape) for n, t in shared.tensors().items()} == {
        "down_blocks.0.to_q.residual": (4, 3),
        "mid_block.conv1.residual": (5, 3, 3, 3),
        "up_blocks.0.to_k.residual": (3, 2),
    }
    assert not any(tensor.any() for tensor in shared.tensors().values())


def test_local_only_changes_nothing() -> None:
    rule, shared = load_strategy("local_only"), random_state(0)
    updates = updates_for(rule, shared, [(3, 1), (4, 2)], 0)
    assert all(not update.tensors for update in updates)
    assert fold(rule, shared, updates).hash() == shared.hash()
    with pytest.raises(ValueError, match="rank 3: expected 1 to 2"):
        rule.download(shared, 0, 3, 1)


def test_fedrep_s_global_state_has_no_personal_layers() -> None:
    rule = load_strategy("fedrep")
    shared = rule.initial(random_state(0))
    assert list(shared.lora) == ["down_blocks.0.to_q", "mid_block.conv1"]
    found = fold(rule, shared, updates_for(rule, shared, [(1, 1), (2, 1)], 0))
    assert list(found.lora) == list(shared.lora)


@pytest.mark.parametrize(
    ("name", "option", "value", "reason"),
    [
        ("scaffold", "server_learning_rate", 0.0, "above 0"),
        ("scaffold", "server_rate", 1.0, "did you mean 'server_learning_rate'"),
        ("fedrep", "personal_share", 1.0, "between 0 and 1"),
        ("fedrep", "personal", 3, "personal: expected str, got 3"),
        ("ditto", "mu", -1.0, "start at 0"),
        ("ditto", "mu", float("nan"), "start at 0"),
        ("fedala", "rate", 0.0, "above 0"),
        ("fedala", "steps", -1, "start at 0"),
        ("fedala", "steps", 1.5, "steps: expected int, got 1.5"),
        ("interval_fisher", "intervals", 0, "start at 1"),
        ("interval_fisher", "shuffled", 1, "shuffled: expected bool"),
    ],
)
def test_options_are_checked(name: str, option: str, value: Any, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        load_strategy(name, {option: value})


def test_parts_are_whole_words_of_a_name() -> None:
    name = "up_blocks.1.attentions.0.to_q"
    assert in_parts(name, "up_blocks")
    assert in_parts(name, "mid_block attentions")
    assert in_parts(name, "up_blocks.1")
    for parts in ("", "up", "blocks.1", "up_blocks.0", "attention", "down_blocks"):
        assert not in_parts(name, parts)


def test_a_weighted_mean_refuses_other_shapes() -> None:
    mean = WeightedMean()
    mean.add(1, {"x": torch.zeros(2, 2)})
    with pytest.raises(ValueError, match="names or shapes of the tensors differ"):
        mean.add(1, {"x": torch.zeros(1, 2)})
