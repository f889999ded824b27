"""Updates are checked before any strategy sees them, and Flower's FedAvg computes the mean."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import UserError
from fedaigc.federation.wire.flat_arrays import manifest_of
from fedaigc.federation.wire.messages import ARRAYS, BODY, FLAT, METRICS
from fedaigc.federation.wire.messages import update_record as encode_update
from fedaigc.federation.wire.read_update import RefusedUpdate, read_update
from fedaigc.rng import numpy_rng, rng
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received, Rule, Update

RANK, WIDTH = 2, 3


def state(seed: int = 0) -> SharedState:
    noise = rng(seed, "state")
    lora = {
        layer: (torch.randn((RANK, WIDTH), generator=noise), torch.randn((WIDTH, RANK), generator=noise))
        for layer in ("block.to_k", "block.to_q")
    }
    return SharedState("base", lora, RANK, 4.0, boundary_log_snr=0.5)


def update(client: int, num_examples: int = 3, **metrics: float) -> Update:
    tensors = state(client + 1).tensors()
    return Update(client, num_examples, 5, tensors, RANK, metrics or {"shared_loss": 0.5})


EXPECTED = manifest_of(state().tensors())
RECEIVED = Received(state(), 1)


def update_record(sent: Update) -> RecordDict:
    return encode_update(sent, RECEIVED, "float32", numpy_rng(0, "wire"))


def read(record: RecordDict) -> Update:
    return read_update(record, 4, RECEIVED, load_strategy("fedit"), "float32", num_steps=5)


def test_an_update_survives_the_message() -> None:
    found = read(update_record(update(4, 7, shared_loss=0.25)))
    assert (found.client, found.num_examples, found.num_steps, found.metrics) == (
        4,
        7,
        5,
        {"shared_loss": 0.25},
    )
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in update(4).tensors.items())


def with_tensors(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> RecordDict:
    good = update(4)
    return update_record(replace(good, tensors=change(dict(good.tensors))))


def with_array(array: Array) -> RecordDict:
    record = update_record(update(4))
    record[ARRAYS] = ArrayRecord({FLAT: array})
    return record


def with_body(**values: Any) -> RecordDict:
    record = update_record(update(4))
    record[BODY] = ConfigRecord({**record.config_records[BODY], **values})
    return record


def a_rank_1_factor(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tensors, "block.to_k.lora_A": torch.zeros(1, WIDTH)}


def without_a_key(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name != "block.to_k.lora_A"}


def with_a_key(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tensors, "more": torch.zeros(1)}


def transposed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {**tensors, "block.to_k.lora_A": tensors["block.to_k.lora_A"].T.contiguous()}


def in_another_order(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return dict(reversed(tensors.items()))


def not_finite(value: float) -> Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    def change(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        broken = tensors["block.to_q.lora_B"].clone()
        broken[1, 1] = value
        return {**tensors, "block.to_q.lora_B": broken}

    return change


LENGTH = EXPECTED.num_values


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (with_tensors(a_rank_1_factor), r"block.to_k.lora_A has shape \(1, 3\), expected \(2, 3\)"),
        (with_tensors(transposed), r"block.to_k.lora_A has shape \(3, 2\), expected \(2, 3\)"),
        (with_tensors(without_a_key), "block.to_k.lora_A is missing"),
        (with_tensors(with_a_key), "more was not requested"),
        (with_tensors(in_another_order), "another order"),
        (with_tensors(not_finite(float("nan"))), "block.to_q.lora_B has values that are not finite"),
        (with_tensors(not_finite(float("-inf"))), "block.to_q.lora_B has values that are not finite"),
        (with_array(Array(np.zeros(LENGTH))), "bytes, expected|of float64, expected"),
        (with_array(Array(np.zeros(LENGTH, np.float16))), "of float16, expected \\(24,\\) of float32"),
        (with_array(Array(np.zeros(LENGTH - 1, np.float32))), r"\(23,\) of float32, expected \(24,\)"),
        (with_array(Array(np.zeros((1, LENGTH), np.float32))), r"\(1, 24\) of float32, expected \(24,\)"),
        (with_array(Array(np.zeros(10**6, np.float32))), "4000128 bytes, expected 96 and a header"),
        (with_array(Array("float32", (24,), "numpy.ndarray", b"garbage")), "cannot be read"),
        (with_array(Array("float32", (24,), "pickle", b"garbage")), "cannot be read"),
        (with_body(partition=3), "claims to come from client 3"),
        (with_body(num_examples=0), "0 examples"),
        (with_body(num_examples=2.5), "2.5 examples"),
        (with_body(num_examples=10**12), "1000000000000 examples, expected 1 to 10000000"),
        (with_body(num_steps=-1), "-1 steps"),
        (with_body(num_steps=4), "4 steps, expected 5"),
        (with_body(manifest="nonsense"), "not an update"),
        (with_tensors(not_finite(3e38)), r"lora_B has a value of size 3e\+38, beyond 65504"),
        (update_record(update(4, shared_loss=float("nan"))), "outside of 0 to 1e"),
        (update_record(update(4, shared_loss=-0.5)), "outside of 0 to 1e"),
        (update_record(update(4, shared_loss=2e6)), "outside of 0 to 1e"),
        (RecordDict({BODY: ConfigRecord({})}), "not an update"),
        (RecordDict(), "not an update"),
        (
            RecordDict({BODY: MetricRecord({"x": 1}), ARRAYS: MetricRecord(), METRICS: MetricRecord()}),
            "not an update",
        ),
    ],
)
def test_a_wrong_reply_is_refused_with_its_partition_named(record: Any, reason: str) -> None:
    with pytest.raises(RefusedUpdate, match="client 4: ") as caught:
        read(record)
    assert caught.match(reason)


def fold(rule: Rule, updates: Sequence[Update]) -> SharedState:
    rule.start(state(), 1)
    for item in updates:
        rule.add(item)
    return rule.finish()


def test_fedavg_by_hand() -> None:
    """p = 1/4 and 3/4: A = 1/4 [[1, 2]] + 3/4 [[5, 6]] = [[4, 5]], B = 1/4 [[8]] + 3/4 [[0]] = [[2]]."""

    def one(client: int, down: list[list[float]], up: list[list[float]], num_examples: int) -> Update:
        tensors = {"l.lora_A": torch.tensor(down), "l.lora_B": torch.tensor(up)}
        return Update(client, num_examples, 1, tensors, 1)

    start = SharedState("base", {"l": (torch.zeros(1, 2), torch.zeros(1, 1))}, 1, 1.0)
    for name in ("fedavg", "fedit"):
        rule = load_strategy(name)
        rule.start(start, 1)
        rule.add(one(0, [[1.0, 2.0]], [[8.0]], 1))
        rule.add(one(1, [[5.0, 6.0]], [[0.0]], 3))
        down, up = rule.finish().lora["l"]
        assert down.tolist() == [[4.0, 5.0]]
        assert up.tolist() == [[2.0]]


@settings(deadline=None, max_examples=25)
@given(st.lists(st.integers(1, 1000), min_size=1, max_size=6))
def test_flower_s_fedavg_on_factors_is_fedit(sizes: list[int]) -> None:
    """One row in a table: under the client `stage` the two are the same rule, up to rounding."""
    updates = [update(client, size) for client, size in enumerate(sizes)]
    flower, ours = fold(load_strategy("fedavg"), updates), fold(load_strategy("fedit"), updates)
    for name, tensor in flower.tensors().items():
        torch.testing.assert_close(ours.tensors()[name], tensor, rtol=1e-5, atol=1e-6)
    assert flower.header() == ours.header() == state().header()


@pytest.mark.parametrize("name", ["fedavg", "fedit"])
def test_equal_updates_are_a_fixed_point_and_no_update_changes_nothing(name: str) -> None:
    same = [replace(update(0, size), client=client) for client, size in enumerate((3, 5, 11))]
    for name_, tensor in fold(load_strategy(name), same).tensors().items():
        torch.testing.assert_close(tensor, same[0].tensors[name_])
    assert fold(load_strategy(name), []).hash() == state().hash()


@pytest.mark.parametrize("name", ["fedavg", "fedit"])
def test_averaging_factors_is_not_exact(name: str) -> None:
    """The counterexample: two clients whose products cancel, while the product of the means does not."""
    ones = torch.ones(1, 1)
    rule = load_strategy(name)
    rule.start(SharedState("base", {"l": (ones, ones)}, 1, 1.0), 1)
    rule.add(Update(0, 1, 1, {"l.lora_A": ones, "l.lora_B": ones}))
    rule.add(Update(1, 1, 1, {"l.lora_A": 3 * ones, "l.lora_B": -ones / 3}))
    mean = rule.finish().adapter
    down, up = mean.lora["l"]
    delta = mean.scale * up @ down
    assert (1 * 1 - 1 / 3 * 3) / 2 == 0
    assert float(delta) == pytest.approx(2 * (1 / 3))


def test_strategies_are_found_by_name() -> None:
    assert load_strategy("fedit").__class__.__module__ == "fedaigc.strategy.builtin.fedit"
    with pytest.raises(UserError, match=r"'fedti' is unknown; did you mean 'fedit'"):
        load_strategy("fedti")
    for name in ("../fedit", "os", ""):
        with pytest.raises(UserError, match="is unknown"):
            load_strategy(name)
