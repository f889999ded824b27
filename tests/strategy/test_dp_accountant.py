"""Epsilon: against its definition, against known values, and in the output and the record of a run.

At commit b8a6c4d none of it existed: nothing distinguished z = 0.01 (epsilon 51,348) from z = 1 (17.9).
"""

import math
from dataclasses import replace
from typing import Any

import pytest
from scipy import stats
from scipy.integrate import quad

from fedaigc.cli.follow_run import _tell_run as tell_run
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import read_record
from fedaigc.federation.runtime.launcher import run_in_process
from fedaigc.strategy.accountant import Release, Spent, account, epsilon, told
from fedaigc.strategy.registry import load_strategy
from tests.small_run import MakeRun

DP: dict[str, float | int | bool | str] = {
    "dp": "server-fixed",
    "noise_multiplier": 1.0,
    "clipping_norm": 0.1,
}
QUIET = {"enabled": False}


def delta_of(found: float, mu: float) -> float:
    """The definition: the largest P(S) - e^epsilon Q(S), for P = N(mu, 1) and Q = N(0, 1), by quadrature.

    p exceeds e^epsilon q to the right of epsilon / mu + mu / 2.
    """
    begin = found / mu + mu / 2
    p, q = stats.norm(mu), stats.norm()
    area, _ = quad(
        lambda x: p.pdf(x) - math.exp(found + q.logpdf(x)),
        begin,
        max(begin, mu) + 40,
        limit=500,
        epsabs=0.0,
        points=[max(begin, mu)],
    )
    return area


@pytest.mark.parametrize("z", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("delta", [1e-3, 1e-5, 1e-8])
def test_one_release_is_the_definition(z: float, delta: float) -> None:
    assert delta_of(epsilon([1 / z], delta), 1 / z) == pytest.approx(delta, rel=1e-5)


def test_one_release_by_balle_and_wang() -> None:
    """Their equation: Phi(1 / (2 z) - epsilon z) - e^epsilon Phi(-1 / (2 z) - epsilon z) = delta."""
    for z in (0.3, 1.0, 10.0):
        found = epsilon([1 / z], 1e-5)
        left = stats.norm.cdf(0.5 / z - found * z)
        right = math.exp(found + stats.norm.logcdf(-0.5 / z - found * z))
        assert left - right == pytest.approx(1e-5, rel=1e-6)


@pytest.mark.parametrize(
    ("z", "rounds", "exact", "renyi"), [(1.0, 10, 17.857, 20.174), (0.01, 10, 51_347.7, 51_517.4)]
)
def test_the_values_of_the_audit(z: float, rounds: int, exact: float, renyi: float) -> None:
    """It found 20 and 51,500 at delta 1e-5: ten rounds, by the bound of Renyi DP that is common.

    min over a of a mu^2 / 2 + log(1 / delta) / (a - 1) = mu^2 / 2 + mu sqrt(2 log(1 / delta)), with mu^2 =
    10 / z^2.
    The exact value lies below.
    """
    mu = math.sqrt(rounds) / z
    assert mu**2 / 2 + mu * math.sqrt(2 * math.log(1e5)) == pytest.approx(renyi, rel=1e-4)
    assert epsilon([1 / z] * rounds, 1e-5) == pytest.approx(exact, rel=1e-4)
    accountant = pytest.importorskip("dp_accounting").rdp.RdpAccountant(
        orders=[1 + factor * math.sqrt(2 * math.log(1e5)) / mu for factor in (0.7, 0.8, 0.9, 1.0, 1.1)]
    )
    accountant.compose(pytest.importorskip("dp_accounting").GaussianDpEvent(z), rounds)
    assert exact < accountant.get_epsilon(1e-5) < renyi


def test_rounds_compose_whatever_their_noise() -> None:
    """mu = 3, 4 and 12 are together 13."""
    assert epsilon([3.0, 4.0, 12.0], 1e-5) == pytest.approx(epsilon([13.0], 1e-5))
    assert epsilon([], 1e-5) == 0.0


RELEASE = Release(5, 1.0, 0.2, 1.0, 1e-5)


def test_another_client_in_the_place_counts_twice() -> None:
    found = account([RELEASE])
    assert found is not None
    assert found.epsilon_replace_one == pytest.approx(epsilon([2.0], 1e-5))


def test_one_round_without_a_bound_leaves_the_run_without() -> None:
    found = account([RELEASE, replace(RELEASE, no_epsilon="the clients clip")])
    assert found is not None
    assert found.epsilon is None
    assert found.epsilon_replace_one is None
    assert told(found) == "no epsilon holds for the noise of this run: the clients clip"
    assert account([]) is None
    assert told(None) == ""


def spent_by(config: FederationConfig) -> Spent:
    spent = read_record(config.output).dp
    assert spent is not None
    return spent


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"insecure_seed": 3}, "under insecure_seed = 3 whoever knows it can subtract the noise"),
        ({"noise_multiplier": 0.0}, "noise_multiplier is 0"),
        ({"dp": "client-fixed"}, 'under dp = "client-fixed" the clients clip, and one that does not'),
    ],
)
def test_a_run_without_a_bound_says_why_and_calls_nothing_private(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str], options: dict[str, Any], reason: str
) -> None:
    rounds = {"count": 1, "strategy": "fedavg", "options": DP | options}
    config = make_run(rounds=rounds, generation=QUIET)
    run_in_process(config)
    record = read_record(config.output)
    spent, noise = record.dp, record.rounds[0].dp
    assert spent is not None
    assert noise is not None
    assert spent.epsilon is None
    assert spent.no_epsilon.startswith(reason)
    assert noise.epsilon is None
    tell_run(config, own_homes=False)
    out, err = capsys.readouterr()
    assert f"warning: no epsilon holds for the noise of this run: {reason}" in err
    assert "privat" not in (out + err).replace("no epsilon", "").lower()
    assert "privac" not in record.model_dump_json().lower()


def test_epsilon_is_in_the_record_and_in_the_last_line(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = {"count": 3, "strategy": "fedavgm", "options": DP | {"noise_multiplier": 2.0, "delta": 1e-6}}
    config = make_run(rounds=rounds, generation=QUIET)
    run_in_process(config)
    record = read_record(config.output)
    by_round = [done.dp.epsilon if done.dp is not None else None for done in record.rounds]
    assert by_round == pytest.approx([epsilon([0.5] * n, 1e-6) for n in (1, 2, 3)])
    dp = record.dp
    assert dp is not None
    assert (dp.epsilon, dp.delta, dp.means, dp.repeated) == (by_round[-1], 1e-6, 3, 0)
    assert dp.adjacency.startswith("zero-out")
    assert dp.sampling.startswith("no amplification")
    tell_run(config, own_homes=False)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line == (
        f"differential privacy: epsilon {by_round[-1]:.4g} at delta 1e-06 for one client's updates against "
        f"none ({epsilon([1.0] * 3, 1e-6):.4g} against any others), over 3 noisy means"
    )


def test_an_epsilon_that_bounds_nothing_is_told_as_one(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    rounds = {"count": 1, "strategy": "fedavg", "options": DP | {"noise_multiplier": 0.01}}
    config = make_run(rounds=rounds, generation=QUIET)
    run_in_process(config)
    tell_run(config, own_homes=False)
    line = capsys.readouterr().out.splitlines()[-1]
    assert line.startswith("epsilon 5,426 at delta 1e-05")
    assert line.endswith(": above 10 this protects nobody in practice")
    assert "over 1 noisy mean:" in line
    assert "privacy" not in line


def test_rounds_that_are_run_again_are_paid_again(
    make_run: MakeRun, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run of two rounds whose checkpoint falls back to the first: the second is run again."""
    rounds = {"count": 1, "strategy": "fedavg", "options": DP}
    config = make_run(rounds=rounds, generation=QUIET)
    run_in_process(config)
    checkpoint = config.output / "checkpoint.safetensors"
    first = checkpoint.read_bytes()
    more = config.model_copy(update={"resume": True, "rounds": config.rounds.model_copy(update={"count": 2})})
    run_in_process(more)
    assert spent_by(config).means == 2  # nothing is repeated in a run that goes on
    checkpoint.write_bytes(first)
    run_in_process(more)
    record = read_record(config.output)
    assert [done.round for done in record.rounds] == [1, 2]
    spent = spent_by(config)
    assert (spent.means, spent.repeated) == (3, 1)
    assert spent.epsilon == pytest.approx(epsilon([1.0] * 3, 1e-5))
    # once more, from nothing at all
    for path in config.output.glob("checkpoint*"):
        path.unlink()
    run_in_process(more)
    assert spent_by(config).means == 5
    tell_run(config, own_homes=False)
    assert "over 5 noisy means, 3 of them of rounds that were run again" in capsys.readouterr().out


def test_a_round_in_which_nobody_answers_costs_nothing() -> None:
    rule = load_strategy("fedavg", DP)
    from tests.strategies.test_general_servers import random_state, updates_for

    x = random_state(0)
    rule.start(x, 1)
    for update in updates_for(rule, x, [(1, 1)] * 3, 0):
        rule.add(update)
    rule.finish()
    assert rule.released is not None
    rule.start(x, 2)
    rule.finish()
    assert rule.released is None


def test_rules_without_noise_leave_no_trace(make_run: MakeRun) -> None:
    config = make_run(rounds={"count": 1, "strategy": "fedavg"}, generation=QUIET)
    run_in_process(config)
    record = read_record(config.output)
    assert record.dp is None
    assert record.rounds[0].dp is None
