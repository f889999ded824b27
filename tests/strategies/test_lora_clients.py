"""The client halves of the LoRA-aware rules on a real pipeline: what is trained, sent, kept and pruned."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaigc.device.training.local_round import SharedStageWork
from fedaigc.diffusion.adapters.stages import SharedState, Stage, read_adapter, read_shared, remove
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received
from tests.strategies.conftest import MakeWork


def kinds(tensors: Iterable[str]) -> set[str]:
    return {name.rpartition(".")[2] for name in tensors}


def moved(before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> set[str]:
    """Which kinds of tensor differ at all, and of those that do, that every layer's does."""
    found = {name for name, tensor in before.items() if not torch.equal(after[name], tensor)}
    for kind in kinds(found):
        assert all(name in found for name in before if name.endswith(kind)), f"some {kind} moved, some not"
    return kinds(found)


def without_factors(pipe: Any) -> None:
    """The pipeline as it came: no LoRA layer is there when a round begins."""
    for stage in Stage:
        if stage is not Stage.BASE:
            remove(pipe, stage)
    assert not any("lora" in name for name, _ in pipe.unet.named_parameters())


def in_the_pipeline(pipe: Any, received: SharedState) -> dict[str, Tensor]:
    """The factors that training left behind in the network, whatever was sent."""
    return dict(read_adapter(pipe, Stage.SHARED).tensors())


@pytest.mark.parametrize(
    ("name", "round", "trained"),
    [
        ("ffa_lora", 1, {"lora_B"}),
        ("ffa_lora", 2, {"lora_B"}),
        ("fedsvd", 1, {"lora_B"}),
        ("fedsvd", 2, {"lora_B"}),
        ("rolora", 1, {"lora_B"}),
        ("rolora", 2, {"lora_A"}),
        ("rolora", 3, {"lora_B"}),
        ("fedex_lora", 1, {"lora_A", "lora_B"}),
        ("lora_fair", 1, {"lora_A", "lora_B"}),
        ("flexlora", 1, {"lora_A", "lora_B"}),
    ],
)
def test_what_is_not_trained_does_not_move_in_the_network(
    pipe: Any, start: SharedState, make_work: MakeWork, name: str, round: int, trained: set[str]
) -> None:
    """Into a pipeline without LoRA layers: a freeze that runs before they are there freezes nothing.

    Read from the network itself, since a factor that changes and is not sent would spoil the one that is sent.
    """
    without_factors(pipe)
    rule = load_strategy(name)
    received = rule.download(rule.initial(start), 0, start.rank, round)
    result = rule.client(make_work(3, round=round, optimizer="adamw"), received, {})
    before, after = received.shared.tensors(), in_the_pipeline(pipe, received.shared)
    assert moved(before, after) == trained
    assert kinds(result.upload) == trained
    assert all(torch.equal(after[sent], tensor) for sent, tensor in result.upload.items())
    assert result.memory == {}


def test_fedsa_keeps_b_on_the_device_and_goes_on_from_it(
    pipe: Any, start: SharedState, make_work: MakeWork
) -> None:
    rule = load_strategy("fedsa_lora")
    shared = rule.initial(start)
    first = rule.client(make_work(3, optimizer="adamw"), Received(shared, 1), {})
    assert kinds(first.upload) == {"lora_A"}
    assert kinds(first.memory) == {"lora_B"}
    assert any(float(tensor.abs().max()) > 0 for tensor in first.memory.values())
    # the next round: the server's A, the device's B
    averaged = shared.with_tensors(first.upload)
    received = Received(averaged, 2)
    begins = rule.own(received, first.memory)
    assert all(torch.equal(begins.tensors()[name], value) for name, value in first.memory.items())
    assert all(torch.equal(begins.tensors()[name], value) for name, value in first.upload.items())
    second = rule.client(make_work(3, round=2, optimizer="adamw"), received, first.memory)
    expected = make_work(3, round=2, optimizer="adamw").train(begins, trained=lambda name: True)
    assert all(torch.equal(expected.tensors()[name], value) for name, value in second.memory.items())
    assert all(torch.equal(expected.tensors()[name], value) for name, value in second.upload.items())
    forgetful = rule.client(make_work(3, round=2, optimizer="adamw"), received, {})
    assert any(not torch.equal(forgetful.memory[name], value) for name, value in second.memory.items())


def test_flora_trains_from_the_merged_weights_and_leaves_them(
    pipe: Any, start: SharedState, make_work: MakeWork
) -> None:
    """After a round R is in the network, and what a client trains on top starts at B = 0."""
    rule = load_strategy("flora")
    shared = rule.initial(start)
    for round in (1, 2):
        rule.start(shared, round)
        for client, rank in enumerate((1, 2)):
            received = rule.download(shared, client, rank, round)
            assert not any(up.any() for _, up in received.shared.lora.values())
            work = make_work(2, round=round, optimizer="adamw")
            result = rule.client(work, received, {})
            assert kinds(result.upload) == {"lora_A", "lora_B"}
            after = read_shared(pipe, received.shared)
            assert all(
                torch.equal(after.tensors()[name], tensor)
                for name, tensor in received.shared.tensors().items()
                if "residual" in name
            )
            rule.add(update(client, result.upload, rank))
        shared = rule.finish()
    assert set(shared.residual) == set(shared.lora)


def test_fresh_factors_are_those_of_the_run_s_seed_the_round_and_the_client(start: SharedState) -> None:
    def fresh(seed: int, round: int, client: int) -> Tensor:
        rule = load_strategy("flora")
        rule.seed = seed
        down, _ = rule.download(rule.initial(start), client, 2, round).shared.lora[next(iter(start.lora))]
        assert float(down.abs().max()) <= down[0].numel() ** -0.5
        return down

    assert torch.equal(fresh(0, 1, 0), fresh(0, 1, 0))
    for other in ((1, 1, 0), (0, 2, 0), (0, 1, 1)):
        assert not torch.equal(fresh(0, 1, 0), fresh(*other))


def update(client: int, upload: Mapping[str, Tensor], rank: int, size: int = 3) -> Any:
    from fedaigc.strategy.rule import Update

    return Update(client, size, 2, dict(upload), rank)


def test_hetlora_prunes_what_shrinks_and_gets_no_more_afterwards(
    start: SharedState, make_work: MakeWork
) -> None:
    """A strong penalty shrinks the last row: the rank falls from 2 to 1, and stays there after a resume."""
    rule = load_strategy("hetlora", {"gamma": 0.5, "regularisation": 1e3})
    received = rule.download(start, 3, 2, 1)
    result = rule.client(make_work(4, rate=1e-4), received, {})
    assert result.rank == 1
    assert {n: tuple(t.shape) for n, t in result.upload.items()} == rule.expected(received, 1)
    assert all(min(tensor.shape[:2]) == 1 for tensor in result.upload.values())
    rule.start(start, 1)
    rule.add(update(3, result.upload, result.rank))
    rule.add(update(5, start.tensors(), 2))
    shared = rule.finish()
    resumed = load_strategy("hetlora", {"gamma": 0.5, "regularisation": 1e3})
    resumed.load(rule.state())
    for half in (rule, resumed):
        assert half.download(shared, 3, 2, 2).shared.rank == 1
        assert half.download(shared, 3, 2, 2).shared.adapter.scale == start.adapter.scale
        assert half.download(shared, 5, 2, 2).shared.rank == 2


@pytest.mark.parametrize(
    ("options", "from_zero"),
    [({"gamma": 1.0, "regularisation": 1e3}, False), ({"gamma": 0.5, "regularisation": 0.0}, True)],
)
def test_hetlora_keeps_its_rank_without_gamma_and_in_the_first_round(
    start: SharedState, make_work: MakeWork, options: dict[str, Any], from_zero: bool
) -> None:
    rule = load_strategy("hetlora", options)
    if from_zero:  # the last row grows from nothing
        start = replace(start, lora={layer: (a, torch.zeros_like(b)) for layer, (a, b) in start.lora.items()})
    result = rule.client(make_work(2, optimizer="adamw"), rule.download(start, 0, 2, 1), {})
    assert result.rank == 2
    assert all(bool(tensor.isfinite().all()) for tensor in result.upload.values())


def test_hetlora_s_penalty_is_the_product_of_the_last_rows_norms(
    start: SharedState, make_work: MakeWork
) -> None:
    """One SGD step by hand: the gradient of |a| |b| in a is a |b| / |a|, where row and column are cut."""
    strength, rate = 0.7, 0.05
    rule = load_strategy("hetlora", {"gamma": 0.5, "regularisation": strength})
    found = rule.client(make_work(rate=rate), Received(start, 1), {})
    plain = make_work(rate=rate).train(start, trained=lambda name: True).tensors()
    layer = next(iter(start.lora))
    a, b = start.lora[layer][0][1:], start.lora[layer][1][:, 1:]
    if found.rank == 2:
        torch.testing.assert_close(
            found.upload[f"{layer}.lora_A"][1:],
            plain[f"{layer}.lora_A"][1:] - rate * strength * a * b.norm() / a.norm(),
        )
        torch.testing.assert_close(
            found.upload[f"{layer}.lora_B"][:, 1:],
            plain[f"{layer}.lora_B"][:, 1:] - rate * strength * b * a.norm() / b.norm(),
        )
    torch.testing.assert_close(found.upload[f"{layer}.lora_A"][:1], plain[f"{layer}.lora_A"][:1])


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("hetlora", {"gamma": 0.0}),
        ("hetlora", {"gamma": 1.5}),
        ("hetlora", {"regularisation": -1.0}),
        ("lora_fair", {"regularisation": 0.0}),
        ("fedsvd", {"period": 0}),
    ],
)
def test_options_that_cannot_be_are_refused(name: str, options: dict[str, Any]) -> None:
    from fedaigc.errors import UserError

    with pytest.raises(UserError, match=f"'{name}'.*{next(iter(options))}"):
        load_strategy(name, options)


def test_the_work_of_these_tests_is_the_device_s(make_work: MakeWork) -> None:
    assert isinstance(make_work(), SharedStageWork)
