"""One hostile device: its update is not used, the run continues, and honest devices are not affected.

At b8a6c4d, each of `ATTACKS` was aggregated: 3e38 ended the run in the next round, and the others changed the state
as far as they claimed. Newer code is imported where it is used, so that the first tests run, and fail, there.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from fedaigc.data.partition import PartitionSettings
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig, RoundsSection, parse_config
from fedaigc.federation.output.checkpoint import load_checkpoint
from fedaigc.federation.output.recorder import refusals
from fedaigc.federation.output.records import read_record
from fedaigc.federation.runtime.launcher import run_in_process
from fedaigc.federation.wire.messages import Ask
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received, Update
from fedaigc.strategy.sources import strategy_module
from tests.federation.hostile import Change, run_with, with_loss, with_values, with_weights
from tests.small_run import MakeRun

QUIET = {"enabled": False}
HOSTILE, CLIENTS = 1, 4


def flip(times: float) -> Change:
    """Return x - times (y - x) in place of y."""

    def change(content: RecordDict, client: int, kind: str, order: RecordDict) -> RecordDict:
        if kind != Ask.TRAIN or client != HOSTILE:
            return content
        return with_weights(content, order, lambda x, y: x - times * (y - x))

    return change


def on_train(**values: object) -> Change:
    def change(content: RecordDict, client: int, kind: str, order: RecordDict) -> RecordDict:
        return with_values(content, **values) if kind == Ask.TRAIN and client == HOSTILE else content

    return change


def huge(content: RecordDict, client: int, kind: str, order: RecordDict) -> RecordDict:
    if kind != Ask.TRAIN or client != HOSTILE:
        return content
    return with_weights(content, order, lambda x, y: np.full_like(y, 3e38))


def lossy(content: RecordDict, client: int, kind: str, order: RecordDict) -> RecordDict:
    return with_loss(content, 1e30) if kind == Ask.TRAIN and client == HOSTILE else content


ATTACKS: Mapping[str, Change] = {
    "flip x10": flip(10),
    "3e38": huge,
    "1e12 examples": on_train(num_examples=10**12),
    "one step for two": on_train(num_steps=1),
    "a loss of 1e30": lossy,
}


def make(make_run: MakeRun, folder: str = "run", **rounds: Any) -> FederationConfig:
    return make_run(folder, num_clients=CLIENTS, generation=QUIET, rounds={"count": 2, **rounds})


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_update_takes_no_part_and_is_named(make_run: MakeRun, attack: str) -> None:
    record = run_with(make(make_run), ATTACKS[attack])
    assert record.status == "finished"
    for done in record.rounds:
        assert list(done.refused) == [HOSTILE]
        assert sorted(done.num_examples) == [0, 2, 3]
    # the state is that of the others alone
    alone = run_with(make(make_run, "alone"), on_train(manifest="none"))
    assert record.shared_hash == alone.shared_hash


def test_a_device_that_is_drawn_alone_does_not_end_the_run(make_run: MakeRun) -> None:
    """Before: UserError, "no client sent an update that could be used", in the round that drew it."""
    record = run_with(make(make_run, clients=1, count=6), on_train(manifest="none"))
    assert record.status == "finished"
    assert any(done.sampled == (HOSTILE,) for done in record.rounds)


def test_when_most_clients_fail_for_good_the_run_ends(make_run: MakeRun) -> None:
    def change(content: RecordDict, client: int, kind: str, order: RecordDict) -> RecordDict:
        return with_values(content, manifest="none") if kind == Ask.TRAIN else content

    with pytest.raises(UserError, match="round 1: no client sent a usable update"):
        run_with(make(make_run), change)


@pytest.mark.parametrize(
    ("claimed", "refused", "capped"),
    [(10**12, True, {}), (10**7, False, {1: 40}), (3, False, {})],
)
def test_a_lie_at_hello_buys_ten_median_devices(
    make_run: MakeRun, claimed: int, refused: bool, capped: dict[int, int]
) -> None:
    """Devices have 2, 3, 4 and 5 pictures; the hostile one has 3, and shows what it claims."""

    def change(content: RecordDict, client: int, kind: str, order: RecordDict) -> RecordDict:
        lies = client == HOSTILE and kind in (Ask.HELLO, Ask.TRAIN)
        return with_values(content, num_examples=claimed) if lies else content

    record = run_with(make(make_run), change)
    assert (HOSTILE not in record.clients) == refused
    # of 2, 4, 5 and the lie the lower median is 4
    assert [done.capped for done in record.rounds] == [capped, capped]
    assert bool(refusals(record)) == (refused or bool(capped))


def test_more_than_was_shown_counts_as_what_was_shown(make_run: MakeRun) -> None:
    record = run_with(make(make_run), on_train(num_examples=20))
    assert [done.capped for done in record.rounds] == [{1: 3}, {1: 3}]
    honest = run_with(make(make_run, "honest"), on_train(num_examples=3))
    assert record.shared_hash == honest.shared_hash


def test_honest_runs_are_the_same_bit_for_bit_with_and_without_bounds(make_run: MakeRun) -> None:
    """Also where clients differ in steps and ranks."""
    for name, rest in {
        "fedit": {"clients": {"local_steps": [1, 2, 3, 4]}},
        "flora": {"clients": {"ranks": [1, 2, 2, 1], "local_steps": [4, 1, 1, 4]}},
        "scaffold": {},
    }.items():
        found = {}
        for ratio in (5.0, None):
            config = make_run(
                f"{name}-{ratio}",
                num_clients=CLIENTS,
                generation=QUIET,
                rounds={"count": 3, "strategy": name, "max_norm_ratio": ratio},
                **rest,
            )
            run_in_process(config)
            found[ratio] = read_record(config.output)
            assert not refusals(found[ratio])
        assert found[5.0].shared_hash == found[None].shared_hash


def test_a_resumed_run_refuses_what_an_uninterrupted_one_does(make_run: MakeRun) -> None:
    straight = run_with(make(make_run, "straight", count=3), flip(10))
    cut = make(make_run, "cut", count=1)
    run_with(cut, flip(10))
    whole = cut.model_copy(update={"rounds": cut.rounds.model_copy(update={"count": 3}), "resume": True})
    resumed = run_with(whole, flip(10))
    assert [done.refused for done in resumed.rounds] == [done.refused for done in straight.rounds]
    assert resumed.shared_hash == straight.shared_hash


@pytest.mark.parametrize("factor", [1e30, 1e4, float("nan")])
def test_a_refused_aggregate_leaves_state_and_memory_as_they_were(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, factor: float
) -> None:
    scaffold = strategy_module("scaffold")

    real = scaffold.Strategy.finish

    def broken(self: Any) -> SharedState:
        found = real(self)
        if self._round == 3:
            self._control = {name: value + 1 for name, value in self._control.items()}
            return found.with_tensors({name: factor * value for name, value in found.tensors().items()})
        return found

    def start(self: Any, shared: SharedState, round: int) -> None:
        self._round = round
        real_start(self, shared, round)

    real_start = scaffold.Strategy.start
    monkeypatch.setattr(scaffold.Strategy, "finish", broken)
    monkeypatch.setattr(scaffold.Strategy, "start", start)
    config = make(make_run, count=2, strategy="scaffold")
    run_in_process(config)
    before = load_checkpoint(config)
    more = config.model_copy(update={"rounds": config.rounds.model_copy(update={"count": 3}), "resume": True})
    run_in_process(more)
    after = load_checkpoint(more)
    assert before is not None
    assert after is not None
    assert after.round == 3
    assert after.shared.hash() == before.shared.hash()
    assert all(torch.equal(after.rule_state[name], value) for name, value in before.rule_state.items())
    record = read_record(config.output)
    assert [bool(done.rejected) for done in record.rounds] == [False, False, True]
    assert any("round 3 did not change the shared state" in line for line in refusals(record))
    assert record.status == "finished"


def test_partitions_of_scenes_keep_their_weights_by_default() -> None:
    """The splits of `fedaigc scenes` at its defaults, and Dirichlet ones by style."""
    from fedaigc.data.sprites import STYLES
    from fedaigc.federation.server.weighting import weight_limits
    from fedaigc.study.design.clients import DataSpec, split_clients

    for settings in (
        PartitionSettings(kind="dirichlet"),
        PartitionSettings(kind="dirichlet", column="style"),
        PartitionSettings(kind="dirichlet", column="style", alpha=0.1),
        PartitionSettings(kind="iid", size_skew="square"),
    ):
        for seed in range(3):
            data = DataSpec(number=8, images=768, new=(), seed=seed, styles=STYLES, partition=settings)
            shown = {client.index: client.num_images for client in split_clients(data)}
            assert weight_limits(shown, RoundsSection().max_weight_ratio) == shown


# medians, by hand


def sizes(*values: float) -> list[dict[str, float]]:
    return [{"change": value} for value in values]


def test_the_first_round_is_bounded_by_its_own_median() -> None:
    from fedaigc.federation.server.update_bounds import BeyondBounds, UpdateBounds

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
    from fedaigc.federation.server.update_bounds import BeyondBounds, UpdateBounds

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
    from fedaigc.federation.server.update_bounds import BeyondBounds, UpdateBounds

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
    from fedaigc.federation.server.update_bounds import UpdateBounds

    bounds = UpdateBounds(5.0)
    bounds.look(sizes(0.0, 0.0, 0.0))
    bounds.check(0, {"change": 0.0})
    bounds.end_round()
    assert not bounds.knows({"change"})


def test_sizes_are_of_a_value_and_of_an_ordered_step() -> None:
    """A moves by 3, B by 1 in both values: sqrt((9 + 9 + 1 + 1) / 4) = sqrt 5, and half of it at twice the steps."""
    from fedaigc.federation.server.update_bounds import update_sizes

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
    from fedaigc.federation.server.update_bounds import effective_change

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
    from fedaigc.federation.server.update_bounds import UpdateBounds

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


# robust rules


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
    [("fedmedian", 3), ("fedtrimmedavg", 3), ("krum", 5), ("multikrum", 5), ("bulyan", 7)],
)
def test_robust_rules_take_their_attackers_from_the_configuration(strategy: str, least: int) -> None:
    from fedaigc.federation.server.server_rule import server_rule

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
    from fedaigc.federation.server.server_rule import server_rule

    given: Any = server_rule(robust("krum", 3, 1, num_malicious_nodes=0))
    computed: Any = server_rule(robust("krum", 8, 2))
    assert given._strategy.num_malicious_nodes == 0
    assert computed._strategy.num_malicious_nodes == 2
    for strategy in ("fedavg", "fedit"):
        with pytest.raises(UserError, match="withstands none: leave it at 0, or choose one of fedmedian"):
            server_rule(robust(strategy, 8, 1))


@pytest.mark.filterwarnings("ignore:round 1")
def test_too_few_updates_for_the_attackers_change_nothing() -> None:
    from fedaigc.federation.server.server_rule import server_rule

    rule = server_rule(robust("fedtrimmedavg", 5, 1))
    start = SharedState("base", {"l": (torch.zeros(1, 2), torch.zeros(2, 1))}, 1, 1.0)
    rule.start(start, 1)
    for client in range(2):
        tensors = {name: torch.ones_like(tensor) for name, tensor in start.tensors().items()}
        rule.add(Update(client, 1, 1, tensors, 1))
    assert rule.finish().hash() == start.hash()


@pytest.mark.parametrize("clients", range(3, 40))
def test_a_trimmed_mean_cuts_all_attackers_whatever_is_rounded(clients: int) -> None:
    from flwr.serverapp.strategy.fedtrimmedavg import trim_mean

    attackers = (clients - 1) // 2
    for f in range(1, attackers + 1):
        values = np.array([1e6] * f + [1.0] * (clients - f))
        assert trim_mean(values, (f + 0.25) / clients) == 1.0


def test_the_loss_of_qfedavg_is_bounded_by_the_others() -> None:
    assert load_strategy("qfedavg").weighing_metrics == ("shared_loss",)
    assert load_strategy("fedavg").weighing_metrics == ()


@pytest.mark.parametrize(("dp", "refused"), [("server-fixed", []), ("client-fixed", [HOSTILE])])
def test_what_the_server_clips_is_not_refused_by_the_norms_of_others(
    make_run: MakeRun, dp: str, refused: list[int]
) -> None:
    """Noise covers what one clipped update moves, not that another update is let in or kept out by it."""
    options = {"dp": dp, "noise_multiplier": 0.01, "clipping_norm": 0.5}
    record = run_with(make(make_run, strategy="fedavg", options=options, count=1), flip(10))
    (done,) = record.rounds
    assert list(done.refused) == refused


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
