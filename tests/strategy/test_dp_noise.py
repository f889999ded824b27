"""The noise of differential privacy: nobody can recompute it, and it is as large as claimed.

At commit b8a6c4d, it was drawn from NumPy's global generator, seeded with the run's seed and the round, which every
device received: `test_a_device_cannot_compute_the_noise` found a correlation of 1.000.
"""

import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import UserError
from fedaigc.rng import numpy_rng, rng
from fedaigc.strategy.flower import privacy as flower_privacy
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Rule, Update
from tests.global_random import global_numbers

CLIENTS, SEED = 5, 7
NORM = 0.5
KINDS = ("server-fixed", "client-fixed", "server-adaptive", "client-adaptive")
FIXED: dict[str, float | int | bool | str] = {
    "dp": "server-fixed",
    "noise_multiplier": 1.0,
    "clipping_norm": NORM,
}


def options_of(dp: str) -> dict[str, float | int | bool | str]:
    return FIXED | {"dp": dp} | ({"clipped_count_stddev": 1.0} if dp.endswith("adaptive") else {})


def state() -> SharedState:
    """32,000 values: a chance correlation has a standard deviation of 0.006."""
    noise = rng(0, "state")
    factors = torch.randn(8, 2000, generator=noise), torch.randn(2000, 8, generator=noise)
    return SharedState("base", {"layer": factors}, 8, 8.0)


def changes(clients: int = CLIENTS, norm: float = 1.0) -> list[dict[str, np.ndarray]]:
    """Return changes of clients that agree in part: vectors of this norm over both factors."""
    found = []
    for client in range(clients):
        drawn = {
            name: torch.randn(tensor.shape, generator=rng(1, name)).numpy()
            + torch.randn(tensor.shape, generator=rng(1, name, client)).numpy()
            for name, tensor in state().tensors().items()
        }
        length = math.sqrt(sum(float((value**2).sum()) for value in drawn.values()))
        found.append({name: value * norm / length for name, value in drawn.items()})
    return found


def after_a_round(
    options: Mapping[str, Any], sent: list[dict[str, np.ndarray]], seed: int = SEED, round: int = 1
) -> tuple[Rule, SharedState]:
    rule, start = load_strategy("fedavg", dict(options)), state()
    rule.seed = seed
    rule.start(start, round)
    for client, change in enumerate(sent):
        tensors = {name: value + torch.from_numpy(change[name]) for name, value in start.tensors().items()}
        if options["dp"] == "client-adaptive":
            tensors["norm_bit"] = torch.tensor([1.0])
        rule.add(Update(client, 1, 1, tensors, start.rank))
    return rule, rule.finish()


def moved(found: SharedState) -> np.ndarray:
    """Return the change of all values, in order."""
    start = state().tensors()
    parts = [(value - start[name]).double().numpy().ravel() for name, value in found.tensors().items()]
    return np.concatenate(parts)


def flat(change: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([change[name].astype(float).ravel() for name in state().tensors()])


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    return float(np.corrcoef(x, y)[0, 1])


def noise_of_b8a6c4d(seed: int, round: int, deviation: float) -> np.ndarray:
    """Return the noise that follows from what a device receives, as the code of that commit drew it."""
    drawn = np.random.RandomState(numpy_rng(seed, "dp", round).integers(2**32, size=8))
    parts = [drawn.normal(0, deviation, tuple(t.shape)).ravel() for t in state().tensors().values()]
    return np.concatenate(parts)


def test_a_device_cannot_compute_the_noise() -> None:
    sent = changes()
    true = NORM * np.mean([flat(change) for change in sent], axis=0)
    _, found = after_a_round(FIXED, sent)
    noise = noise_of_b8a6c4d(SEED, 1, NORM / CLIENTS)
    assert abs(correlation(moved(found), noise)) < 0.03  # 5 deviations
    # the noise is 20 times as large as what it hides, which shows through by a twentieth at most
    assert abs(correlation(moved(found) - noise, true)) < 0.05


def test_the_attack_works_where_the_seed_is_known() -> None:
    """The same with `insecure_seed`: what the tests above cannot find would be found."""
    sent = changes()
    true = NORM * np.mean([flat(change) for change in sent], axis=0)
    _, found = after_a_round(FIXED | {"insecure_seed": 3}, sent)
    drawn = numpy_rng(3, "dp", SEED, 1)
    noise = NORM / CLIENTS * np.concatenate([drawn.standard_normal(16_000) for _ in range(2)])
    assert correlation(moved(found) - noise, true) > 0.999


@pytest.mark.parametrize("dp", KINDS)
def test_noise_repeats_under_an_insecure_seed_alone(dp: str) -> None:
    sent = changes()
    assert after_a_round(options_of(dp), sent)[1].hash() != after_a_round(options_of(dp), sent)[1].hash()
    seeded = options_of(dp) | {"insecure_seed": 3}
    again = after_a_round(seeded, sent)[1].hash()
    assert after_a_round(seeded, sent)[1].hash() == again
    assert after_a_round(seeded | {"insecure_seed": 4}, sent)[1].hash() != again
    assert after_a_round(seeded, sent, seed=SEED + 1)[1].hash() != again
    assert after_a_round(seeded, sent, round=2)[1].hash() != again


@pytest.mark.parametrize("dp", KINDS)
def test_numpy_s_global_generator_draws_nothing(dp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its state follows from some of its values, so a seed from the system's entropy would not be enough."""
    for name in ("normal", "standard_normal", "randn", "rand", "random", "uniform", "seed"):
        monkeypatch.setattr(np.random, name, lambda *a, name=name, **k: pytest.fail(f"np.random.{name}"))
    before = global_numbers()
    after_a_round(options_of(dp), changes())
    assert global_numbers() == before


@pytest.mark.parametrize("dp", KINDS)
def test_noise_that_flower_would_draw_itself_is_an_error(dp: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a release that draws it in a method of another name."""
    base: Any = flower_privacy._WRAPPERS[dp].__mro__[2]
    monkeypatch.setitem(
        flower_privacy._WRAPPERS,
        dp,
        type(
            "Renamed",
            (flower_privacy._OwnNoise, base),
            {
                "_add_noise_to_aggregated_arrays": base._add_noise_to_aggregated_arrays,
            },
        ),
    )
    with pytest.raises(RuntimeError, match="adds its noise elsewhere"):
        after_a_round(options_of(dp), changes())


@pytest.mark.parametrize("clients", [1, 2, 5])
@pytest.mark.parametrize("dp", ["server-fixed", "server-adaptive"])
def test_noise_and_sensitivity_are_those_of_the_updates_that_came(dp: str, clients: int) -> None:
    """Of ten that were asked: every client moves the mean by C / K at most, and the noise is z C / K.

    An attacker among them sends a thousand times C. Adaptive clipping has z' for z, and C is the norm that
    clipped, not the next one, to which Flower's wrapper scales.
    """
    rule, start = load_strategy("fedavg", options_of(dp)), state()
    rule.clients_per_round, rule.num_clients = 10, 10
    quiet = load_strategy(
        "fedavg",
        options_of(dp) | {"noise_multiplier": 0.0, "clipped_count_stddev": 0.0}
        if dp == "server-adaptive"
        else options_of(dp) | {"noise_multiplier": 0.0},
    )
    sent = changes(clients, norm=0.4)
    sent[0] = {name: value * 1000 * NORM / 0.4 for name, value in sent[0].items()}
    found = []
    for each in (rule, quiet):
        each.start(start, 1)
        for client, change in enumerate(sent):
            tensors = {n: value + torch.from_numpy(change[n]) for n, value in start.tensors().items()}
            each.add(Update(client, 1, 1, tensors, start.rank))
        found.append(moved(each.finish()))
    noisy, mean = found
    others = sum((flat(change) for change in sent[1:]), np.zeros(1))
    assert np.linalg.norm(mean - others / clients) == pytest.approx(NORM / clients, rel=1e-3)
    multiplier = 1.0 if dp == "server-fixed" else (1 - 1 / 4) ** -0.5  # z' of z = 1, s = 1
    deviation = multiplier * NORM / clients
    noise = (noisy - mean) / deviation
    # 32,000 values: the deviation of a sample deviation is 0.004
    assert noise.std() == pytest.approx(1, abs=0.02)
    assert stats.kstest(noise, "norm").pvalue > 1e-7
    assert rule.released is not None
    assert rule.released.clients == clients
    assert rule.released.noise_std == pytest.approx(deviation)
    assert rule.released.mu == pytest.approx(1.0)


def test_a_norm_that_clips_too_many_grows() -> None:
    """All ten are clipped where half are wanted: C e^(0.2 (1 - 1/2)); in Flower it shrinks by as much."""
    options = options_of("server-adaptive") | {"noise_multiplier": 0.0, "clipped_count_stddev": 0.0}
    rule, _ = after_a_round(options, changes(10, norm=9.0))
    assert rule.state()["clipping_norm"].item() == pytest.approx(NORM * math.exp(0.1))
    rule, _ = after_a_round(options, changes(10, norm=0.1))
    assert rule.state()["clipping_norm"].item() == pytest.approx(NORM * math.exp(-0.1))


def test_the_count_of_clipped_updates_has_its_noise() -> None:
    """log C' - log C = -0.2 (-(count + N(0, s^2)) / K + 1 / 2), with s = 1 here, over 400 rounds."""
    logs = []
    sent = [{name: value * 9 for name, value in change.items()} for change in changes(4)]
    for _ in range(400):
        rule, _ = after_a_round(options_of("client-adaptive"), sent)
        logs.append(math.log(rule.state()["clipping_norm"].item() / NORM))
    noise = (np.array(logs) / 0.2 - 0.5) * 4
    assert noise.std() == pytest.approx(1.0, abs=5 / math.sqrt(2 * 400))
    assert stats.kstest(noise, "norm").pvalue > 1e-7


@pytest.mark.parametrize("byte", [b"\0", b"\xff"])
def test_the_ends_of_the_entropy_are_finite(byte: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedaigc.strategy import secret_noise

    monkeypatch.setattr(os, "urandom", lambda count: byte * count)
    assert np.abs(secret_noise.secret_normal(3)) == pytest.approx([8.2095] * 3, abs=1e-3)


def test_secret_noise_is_standard_normal_and_never_the_same() -> None:
    from fedaigc.strategy.secret_noise import secret_normal

    drawn = secret_normal(200_001)
    assert stats.kstest(drawn, "norm").pvalue > 1e-7
    assert abs(correlation(drawn[1:], drawn[:-1])) < 5 / math.sqrt(200_000)
    assert len(np.unique(drawn)) == drawn.size
    assert not np.isin(secret_normal(1000), drawn).any()


def test_a_delta_that_gives_one_client_away_is_refused() -> None:
    rule = load_strategy("fedavg", FIXED | {"delta": 0.1})
    rule.num_clients = 10
    with pytest.raises(UserError, match=r"delta is 0\.1 for 10 clients: expected less than 1 / 10"):
        rule.start(state(), 1)
