"""Runs over the same homes: each finds what it left there itself, repeats, or is refused.

Homes keep three rounds of a run. At f4520cc they kept them under the name of the run alone.
"""

import shutil
from pathlib import Path
from typing import Any

import pytest

from fedaigc.deployment.agent.agent import Agent, AgentSettings, listening
from fedaigc.device.home.home import Home
from fedaigc.device.home.images import ImageStore
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.device.home.versions import KEPT_ROUNDS, AdapterVersions
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.checkpoint import CHECKPOINT
from fedaigc.federation.output.records import RunRecord
from fedaigc.federation.output.run_lock import RUN_ID, same_identity, starting_in, working_in
from fedaigc.federation.runtime.launcher import simulate
from fedaigc.storage.file_lock import locked
from tests.small_run import MakeRun, generation_of, images

TRAINING = {"local_steps": 1, "personal_steps": 2, "batch_size": 2, "learning_rate": 1e-2}


def changed(config: FederationConfig, count: int | None = None, **values: object) -> FederationConfig:
    rounds = config.rounds if count is None else config.rounds.model_copy(update={"count": count})
    return config.model_copy(update={"rounds": rounds, **values})


def training_only(config: FederationConfig) -> FederationConfig:
    return changed(config, generation=config.generation.model_copy(update={"enabled": False}))


def figures(record: RunRecord) -> list[object]:
    """Losses of all clients and the hash of the state, round by round."""
    return [(done.metrics, done.shared_hash) for done in record.rounds]


def queue(config: FederationConfig, text: str) -> None:
    for client in range(config.num_clients):
        PromptQueue(Home.open(config.home(client))).add(text)


@pytest.mark.slow
def test_a_run_repeats_on_the_homes_of_an_earlier_one(make_run: MakeRun) -> None:
    """More rounds than a home keeps, and a strategy that remembers."""
    config = make_run(num_clients=2, training=TRAINING, rounds={"count": 4, "strategy": "scaffold"})
    first = figures(simulate(config))
    assert len(first) == 4
    again = changed(config, output=config.output.with_name("again"))
    assert figures(simulate(again)) == first


def test_a_shorter_run_after_a_longer_one_keeps_what_it_wrote(make_run: MakeRun) -> None:
    config = make_run(num_clients=2, prompts=(), training=TRAINING, rounds={"count": 4})
    simulate(training_only(config))
    fresh = make_run("fresh", num_clients=2, prompts=(), training=TRAINING, rounds={"count": 2})
    expected = figures(simulate(training_only(fresh)))
    short = changed(config, 2)
    queue(config, "a horse on a road")
    record = simulate(short)
    assert figures(record) == expected
    assert [task.failure for task in generation_of(record).tasks] == [None, None]
    own = same_identity(short)
    versions = AdapterVersions(Home.open(config.home(0)))
    assert versions.last_round(own.run_key) == 2
    # the rounds of the longer run are put aside
    (aside,) = {path.name for path in (config.home(0) / "adapters" / "rounds").iterdir()} - {own.run_key}
    assert versions.last_round(aside) == 4
    assert len(list((config.home(0) / "adapters" / "rounds" / aside).iterdir())) == KEPT_ROUNDS


@pytest.mark.parametrize("name", ["run", pytest.param("other", marks=pytest.mark.slow)])
def test_a_run_between_two_parts_of_another_changes_neither(make_run: MakeRun, name: str) -> None:
    """The second part draws with the personal adapters of the first, and trains on from its rounds."""
    straight = make_run("straight", num_clients=2, training=TRAINING, rounds={"count": 3})
    expected = figures(simulate(straight)), images(straight)
    config = make_run(num_clients=2, training=TRAINING, rounds={"count": 2})
    simulate(training_only(config))
    between = changed(config, 1, name=name, seed=5, output=config.output.with_name("between"))
    simulate(training_only(between))
    assert figures(simulate(changed(config, 3, resume=True))) == expected[0]
    assert images(config) == expected[1]
    # and the run between can go on, too
    assert len(simulate(changed(training_only(between), 2, resume=True)).rounds) == 2


def test_a_client_that_was_never_asked_draws_without_the_adapter_of_another_run(make_run: MakeRun) -> None:
    rounds = {"count": 1, "clients": 1}
    fresh = make_run("fresh", num_clients=2, training=TRAINING, rounds=rounds)
    simulate(fresh)
    config = make_run(num_clients=2, training=TRAINING, rounds=rounds)
    simulate(
        training_only(changed(config, name="earlier", rounds=fresh.rounds.model_copy(update={"clients": 2})))
    )
    simulate(config)
    assert images(config) == images(fresh)


@pytest.mark.parametrize(
    ("strategy", "personal_steps"), [("fedavg", 1), ("scaffold", 0)], ids=["adapter", "memory"]
)
def test_a_run_whose_devices_lost_its_rounds_is_not_resumed(
    make_run: MakeRun, strategy: str, personal_steps: int
) -> None:
    training = {**TRAINING, "personal_steps": personal_steps}
    config = training_only(
        make_run(num_clients=3, training=training, rounds={"count": 1, "strategy": strategy})
    )
    simulate(config)
    for client in (0, 2):
        shutil.rmtree(config.home(client) / "adapters")
    before = (config.output / "record.json").read_bytes()
    with pytest.raises(
        UserError, match=r"client 0: .*/00 has nothing of round 1\n  client 2: .*/02 has"
    ) as told:
        simulate(changed(config, 2, resume=True))
    assert "client 1" not in str(told.value)
    assert (config.output / "record.json").read_bytes() == before


def test_a_run_that_keeps_nothing_on_devices_is_resumed_without_their_rounds(make_run: MakeRun) -> None:
    training = {**TRAINING, "personal_steps": 0}
    straight = training_only(make_run("straight", num_clients=1, training=training, rounds={"count": 2}))
    config = training_only(make_run(num_clients=1, training=training, rounds={"count": 1}))
    simulate(config)
    shutil.rmtree(config.home(0) / "adapters")
    assert figures(simulate(changed(config, 2, resume=True))) == figures(simulate(straight))


def test_a_run_goes_on_from_its_earlier_checkpoint_with_its_own_adapters(make_run: MakeRun) -> None:
    """At f4520cc the homes forgot the run, because its newest checkpoint was gone."""
    straight = training_only(make_run("straight", num_clients=1, training=TRAINING, rounds={"count": 3}))
    config = training_only(make_run(num_clients=1, training=TRAINING, rounds={"count": 2}))
    simulate(config)
    (config.output / CHECKPOINT).unlink()
    assert figures(simulate(changed(config, 3, resume=True))) == figures(simulate(straight))


def test_a_damaged_identity_is_told(make_run: MakeRun) -> None:
    config = training_only(make_run(num_clients=1, training=TRAINING, rounds={"count": 1}))
    simulate(config)
    (config.output / RUN_ID).write_text("../../elsewhere")
    with pytest.raises(DamagedFile, match=r"\.run-id is damaged"):
        simulate(changed(config, 2, resume=True))


def test_a_run_is_refused_before_it_touches_what_another_one_uses(make_run: MakeRun, tmp_path: Path) -> None:
    config = training_only(make_run(num_clients=1, training=TRAINING, rounds={"count": 1}))
    simulate(config)
    before = (config.output / "record.json").read_bytes()
    both: tuple[dict[str, Any], ...] = ({}, {"backend": "ray"})
    for values in both:
        other = changed(config, None, homes=tmp_path / "others", **values)
        shutil.copytree(config.homes, other.homes, dirs_exist_ok=True)
        with starting_in(config.output), pytest.raises(UserError, match="another run writes to"):
            simulate(other)
    with locked(config.home(0) / "agent.lock"), pytest.raises(UserError, match=r"the agent of .*/00 runs"):
        simulate(changed(config, output=tmp_path / "new"))
    assert (config.output / "record.json").read_bytes() == before
    assert len(ImageStore(Home.open(config.home(0))))


def test_no_agent_starts_in_homes_in_which_a_simulation_works(make_run: MakeRun) -> None:
    config = make_run(num_clients=1)
    agent = Agent(config.home(0), AgentSettings(0, config.model))
    with (
        working_in(config),
        pytest.raises(UserError, match=r"a simulation runs in .*/homes: wait"),
        listening(agent),
    ):
        pass
    with listening(agent), pytest.raises(UserError, match=r"the agent of .*/00 runs"), working_in(config):
        pass
