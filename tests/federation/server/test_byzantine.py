"""One hostile device: its update is not used, the run continues, and honest devices are not affected.

At b8a6c4d, each of `ATTACKS` was aggregated: 3e38 ended the run in the next round, and the others changed the state
as far as they claimed. Newer code is imported where it is used, so that the first tests run, and fail, there.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from fedaigc.data.partition import PartitionSettings
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig, RoundsSection
from fedaigc.federation.output.checkpoint import load_checkpoint
from fedaigc.federation.output.recorder import refusals
from fedaigc.federation.output.records import read_record
from fedaigc.federation.runtime.launcher import run_in_process
from fedaigc.federation.wire.messages import Ask
from fedaigc.strategy.sources import strategy_module
from tests.federation.hostile import Change, run_with, with_loss, with_values, with_weights
from tests.quick_cases import quick_first
from tests.small_run import MakeRun, kept

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


@pytest.fixture(scope="module")
def without_hostile(make_module_run: MakeRun) -> str | None:
    """The state after two rounds of the other devices alone."""
    return run_with(make(make_module_run), on_train(manifest="none")).shared_hash


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(name, marks=[] if name in ("flip x10", "3e38") else [pytest.mark.slow])
        for name in ATTACKS
    ],
)
def test_a_hostile_update_takes_no_part_and_is_named(
    make_run: MakeRun, attack: str, without_hostile: str | None
) -> None:
    record = run_with(make(make_run), ATTACKS[attack])
    assert record.status == "finished"
    for done in record.rounds:
        assert list(done.refused) == [HOSTILE]
        assert sorted(done.num_examples) == [0, 2, 3]
    assert record.shared_hash == without_hostile


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
    quick_first([(10**7, False, {1: 40}), (10**12, True, {}), (3, False, {})], 2),
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
    record = run_with(make(make_run, count=1), on_train(num_examples=20))
    assert [done.capped for done in record.rounds] == [{1: 3}]
    honest = run_with(make(make_run, "honest", count=1), on_train(num_examples=3))
    assert record.shared_hash == honest.shared_hash


@pytest.mark.slow
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
                rounds={"count": 2, "strategy": name, "max_norm_ratio": ratio},
                **rest,
            )
            run_in_process(config)
            found[ratio] = read_record(config.output)
            assert not refusals(found[ratio])
        assert found[5.0].shared_hash == found[None].shared_hash


def test_a_resumed_run_refuses_what_an_uninterrupted_one_does(make_run: MakeRun) -> None:
    straight = run_with(make(make_run, "straight", count=2), flip(10))
    cut = make(make_run, "cut", count=1)
    run_with(cut, flip(10))
    whole = cut.model_copy(update={"rounds": cut.rounds.model_copy(update={"count": 2}), "resume": True})
    resumed = run_with(whole, flip(10))
    assert [done.refused for done in resumed.rounds] == [done.refused for done in straight.rounds]
    assert resumed.shared_hash == straight.shared_hash


@pytest.fixture(scope="module")
def two_scaffold_rounds(make_module_run: MakeRun) -> Callable[[], FederationConfig]:
    """Return what gives a run of two rounds that a test may continue."""
    config = make(make_module_run, "scaffold", count=2, strategy="scaffold")
    run_in_process(config)
    return kept(config)


@pytest.mark.parametrize("factor", quick_first([float("nan"), 1e30, 1e4]))
def test_a_refused_aggregate_leaves_state_and_memory_as_they_were(
    two_scaffold_rounds: Callable[[], FederationConfig], monkeypatch: pytest.MonkeyPatch, factor: float
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
    config = two_scaffold_rounds()
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


@pytest.mark.parametrize(("dp", "refused"), [("server-fixed", []), ("client-fixed", [HOSTILE])])
def test_what_the_server_clips_is_not_refused_by_the_norms_of_others(
    make_run: MakeRun, dp: str, refused: list[int]
) -> None:
    """Noise covers what one clipped update moves, not that another update is let in or kept out by it."""
    options = {"dp": dp, "noise_multiplier": 0.01, "clipping_norm": 0.5}
    record = run_with(make(make_run, strategy="fedavg", options=options, count=1), flip(10))
    (done,) = record.rounds
    assert list(done.refused) == refused
