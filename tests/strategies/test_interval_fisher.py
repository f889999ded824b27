"""The merge with equal weight for each noise interval: objective, solution, control, and bytes."""

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.diffusion.adapters.stages import SharedState, new_adapter
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.rng import rng
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received, Rule, Update
from tests.strategies.conftest import MakeWork
from tests.strategies.test_general_servers import SIZES, close, fold, random_state, updates_for


def with_tables(updates: list[Update], tables: torch.Tensor) -> list[Update]:
    """Return updates with `tables` [clients, intervals, tensors] of F in place of random ones."""
    for update, table in zip(updates, tables, strict=True):
        for interval, row in enumerate(table):
            update.tensors[f"root_fisher/{interval}"] = row.sqrt()  # type: ignore[index]
    return updates


def random_tables(seed: int, clients: int, intervals: int, tensors: int) -> torch.Tensor:
    """Return positive numbers over many orders of magnitude, like those of gradients."""
    return (4 * torch.randn((clients, intervals, tensors), generator=rng(seed, "tables"))).exp()


def slow_merge(updates: list[Update], tables: torch.Tensor, names: list[str]) -> dict[str, torch.Tensor]:
    """Return every sum of the formula as a loop, in double precision."""
    total = sum(update.num_examples for update in updates)
    p = [update.num_examples / total for update in updates]
    clients, intervals, tensors = tables.shape
    F = tables.double().tolist()
    Z = [
        sum(p[k] * F[k][i][layer] for k in range(clients) for layer in range(tensors))
        for i in range(intervals)
    ]
    merged = {}
    for layer, name in enumerate(names):
        w = [p[k] * sum(F[k][i][layer] / Z[i] for i in range(intervals)) for k in range(clients)]
        merged[name] = sum(
            (w[k] / sum(w) * updates[k].tensors[name].double() for k in range(clients)),
            torch.zeros((), dtype=torch.float64),
        )
    return merged


@settings(deadline=None, max_examples=30)
@given(SIZES, st.integers(0, 10**6), st.integers(1, 5))
def test_the_merge_is_the_formula(sizes: list[tuple[int, int]], seed: int, intervals: int) -> None:
    rule, shared = load_strategy("interval_fisher", {"intervals": intervals}), random_state(seed)
    names = list(shared.tensors())
    tables = random_tables(seed, len(sizes), intervals, len(names))
    updates = with_tables(updates_for(rule, shared, sizes, seed), tables)
    close(fold(rule, shared, updates).tensors(), slow_merge(updates, tables, names))


def test_the_merge_minimises_the_objective() -> None:
    """Gradient zero at the solution, by autograd on the objective as the docstring states it."""
    rule, shared = load_strategy("interval_fisher", {"intervals": 3}), random_state(0)
    names = list(shared.tensors())
    tables = random_tables(0, 3, 3, len(names))
    updates = with_tables(updates_for(rule, shared, [(1, 1), (2, 1), (5, 1)], 0), tables)
    p = torch.tensor([1.0, 2.0, 5.0], dtype=torch.float64) / 8
    Z = torch.einsum("k,kil->i", p, tables.double())
    theta = {
        name: t.double().requires_grad_(True) for name, t in fold(rule, shared, updates).tensors().items()
    }
    objective = sum(
        (
            p[k] / Z[i] * tables[k, i, layer] * ((theta[name] - updates[k].tensors[name]) ** 2).sum()
            for k in range(3)
            for i in range(3)
            for layer, name in enumerate(names)
        ),
        torch.zeros((), dtype=torch.float64),
    )
    objective.backward()
    scale = float(objective.detach())
    assert all(float(t.grad.abs().max()) < 1e-5 * scale for t in theta.values() if t.grad is not None)


def test_by_hand() -> None:
    """Two clients with n = 1, theta = 0 and 10, two intervals whose gradients differ by 10^6, and one tensor.

    F_1 = (1, 3 10^6), F_2 = (3, 1 10^6): Z = (2, 2 10^6), w_1 ~ 1/2 + 3/2 = 2 = w_2: theta = 5. The plain
    Fisher merge adds first: w_1 ~ 3 10^6 + 1, w_2 ~ 10^6 + 3: theta = 2.5, the large interval's wish.
    """
    ones = torch.ones(1, 1)
    start = SharedState("base", {"l": (ones, ones)}, 1, 1.0)

    def merged(tables: list[list[float]]) -> float:
        rule = load_strategy("interval_fisher", {"intervals": len(tables[0])})
        updates = [
            Update(k, 1, 1, {"l.lora_A": value * ones, "l.lora_B": value * ones}, 1)
            for k, value in enumerate((0.0, 10.0))
        ]
        # both tensors have the same table, which doubles Z and nothing else
        table = torch.tensor(tables)[:, :, None].repeat(1, 1, 2)
        return float(fold(rule, start, with_tables(updates, table)).lora["l"][0])

    assert merged([[1.0, 3e6], [3.0, 1e6]]) == pytest.approx(5.0, rel=1e-5)
    assert merged([[1.0 + 3e6], [3.0 + 1e6]]) == pytest.approx(2.5, rel=1e-4)


@settings(deadline=None, max_examples=20)
@given(SIZES, st.integers(0, 10**6))
def test_one_interval_is_the_plain_fisher_merge(sizes: list[tuple[int, int]], seed: int) -> None:
    """w_k ~ p_k F_k: Z cancels."""
    rule, shared = load_strategy("interval_fisher", {"intervals": 1}), random_state(seed)
    names = list(shared.tensors())
    tables = random_tables(seed, len(sizes), 1, len(names))
    updates = with_tables(updates_for(rule, shared, sizes, seed), tables)
    sizes_of = torch.tensor([float(update.num_examples) for update in updates], dtype=torch.float64)
    expected = {}
    for layer, name in enumerate(names):
        w = sizes_of * tables[:, 0, layer].double()
        stacked = torch.stack([update.tensors[name].double() for update in updates])
        expected[name] = torch.einsum("k,k...->...", w / w.sum(), stacked)
    close(fold(rule, shared, updates).tensors(), expected)


def test_equal_tables_are_fedit_and_zero_tables_too() -> None:
    rule, shared = load_strategy("interval_fisher"), random_state(0)
    names = list(shared.tensors())
    updates = updates_for(rule, shared, [(1, 1), (4, 2), (2, 1)], 0)
    fedit = fold(load_strategy("fedit"), shared, [_without_rows(update, names) for update in updates])
    for value in (1.0, 1e-9, 0.0):
        same = with_tables(updates, torch.full((3, 4, len(names)), value))
        close(fold(rule, shared, same).tensors(), fedit.tensors())


def _without_rows(update: Update, names: list[str]) -> Update:
    return Update(update.client, update.num_examples, 1, {n: update.tensors[n] for n in names}, update.rank)


def test_one_zero_table_or_interval_leaves_the_others() -> None:
    rule, shared = load_strategy("interval_fisher", {"intervals": 2}), random_state(0)
    names = list(shared.tensors())
    tables = random_tables(0, 2, 2, len(names))
    tables[0] = 0  # the first client has no curvature at all
    updates = with_tables(updates_for(rule, shared, [(3, 1), (1, 1)], 0), tables)
    close(fold(rule, shared, updates).tensors(), {n: updates[1].tensors[n] for n in names})
    tables = random_tables(0, 2, 2, len(names))
    tables[:, 1] = 0
    found = fold(rule, shared, with_tables(updates, tables))
    one = load_strategy("interval_fisher", {"intervals": 1})
    fewer = [
        Update(u.client, u.num_examples, 1, {n: u.tensors[n] for n in [*names, "root_fisher/0"]}, u.rank)
        for u in with_tables(updates, tables)
    ]
    close(found.tensors(), fold(one, shared, fewer).tensors())


def table_of(rule: Rule, upload: Mapping[str, torch.Tensor]) -> torch.Tensor:
    rows = [name for name in upload if name.startswith("root_fisher/")]
    return torch.stack([upload[name] for name in rows]) ** 2


def test_a_client_sends_its_mean_squared_gradients_of_each_interval(
    make_work: MakeWork, start: SharedState
) -> None:
    rule = load_strategy("interval_fisher", {"intervals": 3, "batches": 2})
    received = Received(start, 1)
    result = rule.client(make_work(2), received, {})
    fedit = load_strategy("fedit").client(make_work(2), received, {}).upload
    names = list(start.tensors())
    assert all(torch.equal(result.upload[name], fedit[name]) for name in names)
    assert {n: tuple(t.shape) for n, t in result.upload.items()} == rule.expected(received, 2)
    trained = start.with_tensors({name: fedit[name] for name in names})
    for interval in range(3):
        gradients = make_work().gradients(
            trained,
            wanted=lambda name: True,
            batches=2,
            band=(interval / 3, (interval + 1) / 3),
            stream=f"fisher-{interval}",
        )
        found = torch.tensor([[float((g[n] ** 2).sum()) for n in names] for g in gradients]).mean(0)
        torch.testing.assert_close(table_of(rule, result.upload)[interval], found, rtol=1e-4, atol=1e-12)


def test_shuffled_counts_the_same_batches_for_other_intervals(
    make_work: MakeWork, start: SharedState
) -> None:
    options = {"intervals": 2, "batches": 3}
    plain, shuffled = (load_strategy("interval_fisher", {**options, "shuffled": s}) for s in (False, True))
    first = table_of(plain, plain.client(make_work(), plain.download(start, 0, 2, 1), {}).upload)
    tables = {}
    for client in range(4):
        received = shuffled.download(start, client, 2, 1)
        tables[client] = table_of(shuffled, shuffled.client(make_work(), received, {}).upload)
        torch.testing.assert_close(tables[client].sum(0), first.sum(0), rtol=1e-4, atol=1e-12)
    assert any(not torch.allclose(table, first, rtol=1e-3) for table in tables.values())
    assert len({tuple(table[0].tolist()) for table in tables.values()}) > 1  # each client its own permutation
    again = shuffled.client(make_work(), shuffled.download(start, 3, 2, 1), {})
    assert torch.equal(table_of(shuffled, again.upload), tables[3])
    # the permutation is one, whatever a number format made of it
    rounded = Received(start, 1, {"order": shuffled.download(start, 3, 2, 1).extra["order"].mul(4).round()})
    table = table_of(shuffled, shuffled.client(make_work(), rounded, {}).upload)
    torch.testing.assert_close(table.sum(0), first.sum(0), rtol=1e-4, atol=1e-12)


def test_shuffled_tends_to_the_plain_fisher_merge() -> None:
    """Of many permuted batches every interval has the same table, and the weights are those of M = 1."""
    intervals, batches, tensors, clients = 3, 2000, 6, 2
    noise = rng(0, "shuffled")
    sizes = torch.tensor([[[[1.0]]], [[[3.0]]]])
    means = (3 * torch.randn((clients, intervals, 1, tensors), generator=noise)).exp()
    squares = means * torch.rand((clients, intervals, batches, tensors), generator=noise)
    flat = squares.reshape(clients, intervals * batches, tensors)
    order = torch.stack([torch.randperm(intervals * batches, generator=noise) for _ in range(clients)])
    permuted = torch.stack([flat[k, order[k]] for k in range(clients)]).reshape(squares.shape)

    def weights(batched: torch.Tensor) -> torch.Tensor:
        F = (sizes * batched).mean(2)
        w = (F / F.sum((0, 2), keepdim=True)).sum(1)
        return w / w.sum(0)

    plain = weights(flat[:, None])
    torch.testing.assert_close(weights(permuted), plain, rtol=0.1, atol=0.01)
    assert float((weights(squares) - plain).abs().max()) > 0.1  # unshuffled it is another merge


@pytest.mark.parametrize("rank", [2, 8])
def test_the_table_costs_less_than_one_percent_of_the_shipped_model_s_factors(rank: int) -> None:
    adapter = new_adapter(load_pipeline(), generator=rng(0, "a"), rank=rank)
    shared = SharedState("base", adapter.lora, rank, float(rank))
    rule = load_strategy("interval_fisher")
    sizes = {name: math.prod(shape) for name, shape in rule.expected(Received(shared, 1), rank).items()}
    table = sum(size for name, size in sizes.items() if name.startswith("root_fisher/"))
    assert table == 4 * len(shared.tensors())
    assert table < 0.01 * (sum(sizes.values()) - table)
