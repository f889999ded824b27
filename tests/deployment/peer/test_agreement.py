"""What two devices agree on: the same on either, by a rule that both can check."""

from dataclasses import replace

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.deployment.peer.agreement import Side, agreement, own_cost
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.grouping import Group

GROUP = Group(("one", "other"), "a dog on a bed", None, 0)
DIGESTS = st.text("0123456789abcdef", min_size=64, max_size=64)
SIDES = st.builds(Side, DIGESTS, DIGESTS, st.integers(0, 2), st.just(NodeSignature("0" * 64, 1, 0)))


@given(SIDES, SIDES)
def test_the_cheaper_device_computes_and_ties_go_by_key(calls: Side, answers: Side) -> None:
    found = agreement(calls, answers, GROUP, "plan", 3)
    ranks = {side.certificate: (side.cost, side.certificate) for side in (calls, answers)}
    assert ranks[found.executor] == min(ranks.values())
    # who called does not decide
    assert agreement(answers, calls, GROUP, "plan", 3).executor == found.executor
    assert 0 <= found.noise_seed < 2**63
    assert found.binding.step == 3


@given(SIDES, SIDES, DIGESTS)
def test_whatever_differs_makes_another_agreement(calls: Side, answers: Side, nonce: str) -> None:
    found = agreement(calls, answers, GROUP, "plan", 3)
    others = [
        agreement(calls, replace(answers, cost=3), GROUP, "plan", 3),
        agreement(calls, answers, replace(GROUP, prompt="a cat"), "plan", 3),
        agreement(calls, answers, GROUP, "another", 3),
        agreement(calls, answers, GROUP, "plan", 4),
    ]
    if nonce != calls.nonce:
        others.append(agreement(replace(calls, nonce=nonce), answers, GROUP, "plan", 3))
    for other in others:
        assert other.digest != found.digest
        assert other.noise_seed != found.noise_seed
        assert other.binding.group != found.binding.group


@pytest.mark.parametrize(
    ("battery", "cost"), [(None, 0), ((20.0, True), 0), ((20.0, False), 80), ((100.0, False), 0)]
)
def test_the_cost_of_a_battery(
    monkeypatch: pytest.MonkeyPatch, battery: tuple[float, bool] | None, cost: int
) -> None:
    from collections import namedtuple

    kind = namedtuple("kind", "percent power_plugged")
    monkeypatch.setattr(
        psutil, "sensors_battery", lambda: None if battery is None else kind(*battery), raising=False
    )
    assert own_cost() == cost
