"""Medians of the sizes of updates, by hand."""

from dataclasses import replace

import pytest
import torch

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.federation.server.update_bounds import BeyondBounds, UpdateBounds, effective_change, update_sizes
from fedaigc.strategy.rule import Received, Update


def sizes(*values: float) -> list[dict[str, float]]:
    return [{"change": value} for value in values]


def test_the_first_round_is_bounded_by_its_own_median() -> None:
    bounds = UpdateBounds(5.0)
    assert not bounds.knows({"change"})
    bounds.look(sizes(1, 2, 40))
    bounds.check(0, {"change": 10.0})
    with pytest.raises(BeyondBounds, match="client 1: its change is 20 times the median"):
        bounds.check(1, {"change": 40.0})
    bounds.end_round()
    # 10 and, of the refused one, the bound, 10
    assert bounds.knows({"change"})
    bounds.check(0, {"change": 50.0})


def test_a_minority_moves_the_median_within_the_honest_range() -> None:
    bounds = UpdateBounds(5.0)
    for _ in range(20):
        bounds.look(sizes(1.0, 1.1, 1.2, 1e9, 1e9))
        for client, size in enumerate((1.0, 1.1, 1.2)):
            bounds.check(client, {"change": size})
        for client in (3, 4):
            with pytest.raises(BeyondBounds):
                bounds.check(client, {"change": 1e9})
        bounds.end_round()
        assert bounds.state()["0/change"].max() <= 5 * 1.2


def test_a_scale_that_grows_for_all_is_followed() -> None:
    bounds = UpdateBounds(5.0)
    bounds.look(sizes(1.0, 1.0, 1.0))
    accepted = []
    for number in range(12):
        scale = 1.0 if number < 1 else 20.0
        count = 0
        for client in range(3):
            try:
                bounds.check(client, {"change": scale})
                count += 1
            except BeyondBounds:
                pass
        bounds.end_round()
        accepted.append(count)
    assert accepted[0] == 3
    assert accepted[1] == 0
    assert accepted[-1] == 3


def test_nothing_moved_says_nothing_of_the_scale() -> None:
    bounds = UpdateBounds(5.0)
    bounds.look(sizes(0.0, 0.0, 0.0))
    bounds.check(0, {"change": 0.0})
    bounds.end_round()
    assert not bounds.knows({"change"})


def test_sizes_are_of_a_value_and_of_an_ordered_step() -> None:
    """A moves by 3, B by 1 in both values: sqrt((9 + 9 + 1 + 1) / 4) = sqrt 5, and half of it at twice the steps."""
    state = SharedState("base", {"l": (torch.zeros(1, 2), torch.ones(2, 1))}, 1, 1.0)
    sent = {"l.lora_A": 3 * torch.ones(1, 2), "l.lora_B": 2 * torch.ones(2, 1), "control/l": torch.ones(4)}
    update = Update(0, 1, 1, sent, 1, {"shared_loss": 0.5})
    received = Received(state, 1)
    found = update_sizes(update, received, (), 1.0)
    assert found == pytest.approx({"change": 5**0.5, "control": 1.0})
    assert update_sizes(update, received, ("shared_loss",), 2.0) == pytest.approx(
        {"change": 5**0.5 / 2, "control": 1.0, "shared_loss": 0.5}
    )
    # fewer steps than the median are given no more room
    assert update_sizes(update, received, (), 0.5)["change"] == pytest.approx(5**0.5)


def test_factoring_the_same_product_anew_is_no_change() -> None:
    one = SharedState("base", {"l": (torch.ones(1, 2), torch.ones(2, 1))}, 1, 2.0)
    same = replace(one, lora={"l": (4 * torch.ones(1, 2), torch.ones(2, 1) / 4)})
    assert effective_change(one, same) == 0
    merged = replace(
        one, lora={"l": (torch.ones(1, 2), torch.zeros(2, 1))}, residual={"l": 2 * torch.ones(2, 2)}
    )
    assert effective_change(one, merged) == 0
    # s B A = 2 in each of four values, taken away: sqrt(4 * 4)
    assert effective_change(one, replace(merged, residual={})) == 4


def test_rules_that_move_the_weights_in_every_other_round_are_let() -> None:
    """As in RoLoRA, where the effective change of an A-round was a twentieth of that of a B-round."""

    def state(size: float) -> SharedState:
        return SharedState("base", {}, 1, 1.0, {"l": size * torch.ones(1, 1)})

    bounds, at = UpdateBounds(5.0), 0.0
    for step in (0.139, 0.007, 0.141, 0.011, 0.137, 0.015):
        assert bounds.aggregate_problem(state(at), state(at + step), {}) is None
        bounds.end_round()
        at += step
    problem = bounds.aggregate_problem(state(at), state(at + 10 * 0.141), {})
    assert problem is not None
    assert "10 times the largest of the last rounds" in problem
