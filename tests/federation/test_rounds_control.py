"""Rounds that end early, clients that a strategy chooses, held-out images, one stage, and whose rounds a home keeps."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedaigc as fa
from fedaigc.bounds import METRICS
from fedaigc.data.scenes import scenes_dataset
from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.home.images import ImageStore
from fedaigc.device.home.versions import AdapterVersions
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError
from fedaigc.device.training.encoded_cache import encoded_images
from fedaigc.device.training.held_out import split_images
from fedaigc.device.training.training_limits import TrainingOrder, check_order
from fedaigc.diffusion.encoding import EncodedImages
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.errors import UserError
from fedaigc.federation.config.rounds_section import EarlyStopping
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.output.records import RoundRecord, read_record
from fedaigc.federation.output.run_lock import working_in
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.runtime.launcher import simulate
from fedaigc.federation.stopping import early_stop
from fedaigc.strategy.client_rule import Received
from fedaigc.strategy.rule import PastRound
from tests.data.pictures.made import photo
from tests.small_run import MakeRun

QUIET = {"generation": {"enabled": False}, "prompts": ()}
TRAINING = {"local_steps": 1, "personal_steps": 0, "batch_size": 1}


def shared_of(config: FederationConfig) -> str:
    return str(read_record(config.output).shared_hash)


def test_a_function_of_the_caller_sees_each_round_and_ends_the_rounds(make_run: MakeRun) -> None:
    config = make_run(num_clients=2, rounds={"count": 4}, training=TRAINING, **QUIET)
    seen: list[tuple[int, str]] = []

    def on_round(done: RoundRecord, shared: fa.SharedState) -> fa.Stop | None:
        seen.append((done.round, done.shared_hash))
        assert shared.hash() == done.shared_hash
        for tensor in shared.tensors().values():
            tensor.zero_()  # a copy: the run goes on from its own
        return fa.Stop("good enough") if done.round == 2 else None

    record = simulate(config, on_round=on_round)
    assert [number for number, _ in seen] == [1, 2]
    assert record.stopped == "good enough"
    assert record.status == "finished"
    assert record.shared_hash == seen[-1][1] == load_shared_state(config.output).hash()
    # the same run without the function, and as many rounds
    two = config.rounds.model_copy(update={"count": 2})
    whole = simulate(config.model_copy(update={"rounds": two, "output": config.output.with_name("two")}))
    assert whole.shared_hash == record.shared_hash
    assert whole.stopped is None


def test_a_function_that_cannot_work_is_refused(make_run: MakeRun) -> None:
    config = make_run(num_clients=1, rounds={"count": 1}, training=TRAINING, **QUIET)
    with pytest.raises(TypeError, match=r"expected None, or fa\.Stop"):
        simulate(config, on_round=lambda done, shared: True)  # type: ignore[arg-type, return-value]
    assert read_record(config.output).status == "failed"
    ray = config.model_copy(update={"backend": "ray"})
    with pytest.raises(UserError, match="leave out `workers`"):
        simulate(ray, on_round=lambda done, shared: None)


def told(number: int, loss: float | None) -> RoundRecord:
    metrics = {} if loss is None else {0: {"shared_loss": loss}}
    return RoundRecord(
        round=number,
        sampled=(0,),
        refused={},
        num_examples={0: 1},
        metrics=metrics,
        sent_bytes={},
        seconds=0.0,
        shared_hash="",
    )


@pytest.mark.parametrize(
    ("losses", "min_delta", "stops"),
    [
        ([0.5, 0.4, 0.3], 0.0, None),
        ([0.5, 0.5, 0.5], 0.0, 3),
        ([0.5, 0.6, 0.4, 0.5, 0.5], 0.0, 5),
        ([0.5, 0.49, 0.48], 0.05, 3),
        ([0.5, None, None, None, 0.4], 0.0, None),
    ],
)
def test_rounds_end_when_a_loss_no_longer_falls(
    losses: list[float | None], min_delta: float, stops: int | None
) -> None:
    settings = EarlyStopping(metric="shared_loss", patience=2, min_delta=min_delta)
    rounds = [told(number, loss) for number, loss in enumerate(losses, 1)]
    found = [number for number in range(1, len(rounds) + 1) if early_stop(rounds[:number], settings)]
    assert (found[0] if found else None) == stops
    assert early_stop(rounds, None) is None


def test_early_stopping_is_recorded_and_holds_for_a_resumed_run(make_run: MakeRun) -> None:
    stopping = {"metric": "validation_loss", "patience": 1, "min_delta": 1e6}
    rounds = {"count": 5, "validation_fraction": 0.4, "early_stopping": stopping}
    config = make_run(num_clients=2, rounds=rounds, training=TRAINING, **QUIET)
    record = simulate(config)
    assert len(record.rounds) == 2
    assert "early stopping after round 2: validation_loss did not fall by more than 1e+06" in str(
        record.stopped
    )
    again = simulate(config.model_copy(update={"resume": True}))
    assert (len(again.rounds), again.stopped, again.shared_hash) == (2, record.stopped, record.shared_hash)
    first = record.rounds[0]
    assert first.num_examples == {0: 1, 1: 2}  # of 2 and 3 images, one is kept out
    losses = [first.metrics[client]["validation_loss"] for client in (0, 1)]
    frame = record.rounds.to_pandas()
    assert frame["validation_loss"][0] == pytest.approx(sum(losses) / 2)
    assert frame["validation_loss_by_examples"][0] == pytest.approx((losses[0] + 2 * losses[1]) / 3)
    # one loss in full precision: a device of a deployment would round it
    assert any(round(loss, 2) != loss for loss in losses)


def test_early_stopping_without_its_loss_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match=r"rounds\.validation_fraction, such as 0\.1"):
        make_run(rounds={"count": 1, "early_stopping": {}}, **QUIET)


def test_images_are_kept_out_by_the_seed_of_the_device() -> None:
    rows = torch.arange(10.0).reshape(10, 1, 1, 1)
    data = EncodedImages(rows, {"prompt_embeds": rows[:, 0]}, {"prompt_embeds": rows[:1, 0]})
    kept, out = split_images(data, 0.3, seed=1)
    assert out is not None
    assert (len(kept), len(out)) == (7, 3)
    assert sorted([*kept.latents.flatten().tolist(), *out.latents.flatten().tolist()]) == list(range(10))
    assert torch.equal(out.latents[:, 0], out.text["prompt_embeds"])
    other = split_images(data, 0.3, seed=2)[1]
    assert other is not None
    assert not torch.equal(out.latents, other.latents)
    assert split_images(data, 0.0, seed=1) == (data, None)
    assert split_images(data.rows(torch.tensor([0])), 0.3, seed=1)[1] is None


def test_the_owner_of_a_device_has_to_permit_the_loss_on_held_out_images() -> None:
    assert "validation_loss" in METRICS
    order = TrainingOrder(
        "run", Received(fa.SharedState("", {}, 1, 1.0), 1), "fedavg", {}, TrainingSettings(), 1, 1, 8, 8, 0.1
    )
    with pytest.raises(DeviceError, match="kept out of training, which the owner does not permit"):
        check_order(order, OwnerLimits())
    check_order(order, OwnerLimits(validation_loss=True))
    assert order.digest({}) != dataclasses.replace(order, validation_fraction=0.0).digest({})


@dataclasses.dataclass
class HighestLoss(fa.AveragingRule):
    """Power of choice: the client with the highest loss in the last round that it took part in."""

    traits = fa.Traits()

    def sample(
        self, round: int, available: Sequence[int], rng: np.random.Generator, history: Sequence[PastRound]
    ) -> Sequence[int]:
        known = {client: loss["shared_loss"] for past in history for client, loss in past.metrics.items()}
        return sorted(available, key=lambda client: -known.get(client, float("inf")))[
            : self.clients_per_round
        ]


@dataclasses.dataclass
class Greedy(fa.AveragingRule):
    """Chooses all clients, whatever the run allows."""

    traits = fa.Traits()

    def sample(
        self, round: int, available: Sequence[int], rng: np.random.Generator, history: Sequence[PastRound]
    ) -> Sequence[int]:
        return available


def test_a_strategy_chooses_the_clients(make_run: MakeRun) -> None:
    config = make_run(num_clients=3, **QUIET)
    settings: dict[str, Any] = {
        "model": config.model.model_dump(),
        "training": TRAINING,
        "progress": False,
        "generation": {"enabled": False},
    }
    rounds = {"count": 5, "clients": 1}
    run = fa.simulate(config.homes, strategy=HighestLoss, rounds=rounds, **settings)
    chosen = [done.sampled for done in run.rounds]
    assert chosen[:3] == [(0,), (1,), (2,)]
    losses: dict[int, float] = {}
    for done in run.rounds:
        if done.round > 3:
            assert done.sampled == (max(losses, key=lambda client: losses[client]),)
        losses |= {client: each["shared_loss"] for client, each in done.metrics.items()}
    with pytest.raises(
        fa.Error, match=r"chose the clients \[0, 1, 2\]: expected 1 to 1 \(`rounds.clients`\)"
    ):
        fa.simulate(config.homes, strategy=Greedy, rounds=rounds, **settings)


@pytest.mark.slow
def test_workers_choose_clients_and_end_the_rounds_as_this_process_does(make_run: MakeRun) -> None:
    """The server of a run under Ray is another process, which reads the rule from a file."""
    config = make_run(num_clients=3, **QUIET)
    stopping = {"metric": "shared_loss", "patience": 3, "min_delta": 1e6}
    settings: dict[str, Any] = {
        "model": config.model.model_dump(),
        "training": TRAINING,
        "progress": False,
        "generation": {"enabled": False},
    }
    rounds = {"count": 6, "clients": 1, "early_stopping": stopping}
    here, there = (
        fa.simulate(
            config.homes,
            strategy=HighestLoss,
            rounds=rounds,
            output=config.output.with_name(f"workers-{workers}"),
            workers=workers,
            **settings,
        )
        for workers in (None, 2)
    )
    assert there.config.backend == "ray"
    assert [done.sampled for done in there.rounds][:3] == [(0,), (1,), (2,)]
    assert [done.sampled for done in there.rounds] == [done.sampled for done in here.rounds]
    assert "early stopping after round 4: shared_loss did not fall" in str(there.record.stopped)
    assert there.record.stopped == here.record.stopped
    assert there.record.shared_hash == here.record.shared_hash
    # what the rule does wrong there is said here
    with pytest.raises(fa.Error, match=r"chose the clients \[0, 1, 2\]: expected 1 to 1"):
        fa.simulate(config.homes, strategy=Greedy, rounds=rounds, workers=2, **settings)


def test_a_run_of_the_shared_stage_alone_leaves_personal_adapters(make_run: MakeRun) -> None:
    both = make_run(num_clients=1, rounds={"count": 1}, **QUIET)
    simulate(both)
    versions = AdapterVersions(Home.open(both.home(0)))
    before = versions.current_personal()
    assert before is not None
    values = {**both.training.__dict__, "stages": ["shared"]}
    one = parse_config(
        {**both.model_dump(), "training": values, "name": "one", "output": both.output / "one"}
    )
    assert one.training.personal_steps == 0
    record = simulate(one)
    assert record.rounds[0].metrics[0].keys() == {"shared_loss"}
    after = versions.current_personal()
    assert after is not None
    assert all(torch.equal(after.tensors()[name], tensor) for name, tensor in before.tensors().items())
    assert versions.latest("one")[0] is None
    # personal steps do not reach the shared stage
    assert record.shared_hash == read_record(both.output).shared_hash
    with pytest.raises(UserError, match="rounds aggregate the shared stage"):
        parse_config({**both.model_dump(), "training": {"stages": ["personal"]}})


def test_homes_without_a_seed_follow_that_of_the_run(make_run: MakeRun, tmp_path: Path) -> None:
    made = make_run(num_clients=1, rounds={"count": 1}, **QUIET)
    pipe, base_hash = base_model(made.model)

    def trained(name: str, seed: int, home_seed: int | None = None) -> str:
        root = tmp_path / name
        config = made.model_copy(update={"homes": root / "homes", "output": root / "out", "seed": seed})
        device = Device(config.home(0), pipe, base_hash=base_hash, taxonomy=taxonomy(), seed=home_seed)
        if not len(device.images):
            device.add_images(scenes_dataset(4, 0, styles=("noto",)))
        return str(simulate(config).shared_hash)

    first = trained("a", 0)
    assert Home.open(tmp_path / "a/homes/00").seeded is False
    assert trained("b", 0) == first  # another home with the same pictures, and another random seed
    assert trained("a", 1) != first
    # a home that was made with a seed keeps it
    assert trained("c", 0, home_seed=5) != first
    assert Home.open(tmp_path / "c/homes/00").seeded is True


def test_one_run_at_a_time_works_in_homes(make_run: MakeRun) -> None:
    config = make_run(num_clients=1, rounds={"count": 1}, training=TRAINING, **QUIET)
    other = config.model_copy(update={"output": config.output.with_name("other"), "name": "other"})
    with working_in(config), pytest.raises(UserError, match=r"another run works in the homes .*/homes: wait"):
        simulate(other)
    assert not other.output.exists()  # nothing was dropped or written
    assert len(simulate(other).rounds) == 1


def test_a_failed_client_of_a_simulation_tells_why(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(num_clients=2, rounds={"count": 1}, training=TRAINING, **QUIET)
    encoded = encoded_images

    def broken(images: ImageStore, *further: Any) -> Any:
        if all_fail or len(images) == 2:
            raise ZeroDivisionError("by hand")
        return encoded(images, *further)

    monkeypatch.setattr("fedaigc.device.device.encoded_images", broken)
    all_fail = True
    with pytest.raises(UserError, match=r"client 0: internal: ZeroDivisionError: by hand .log: .*errors.log"):
        simulate(config)
    assert "in broken" in str(read_record(config.output).error)
    all_fail = False
    (done,) = simulate(config).rounds
    assert "in broken" in done.tracebacks[0]
    assert done.refused.keys() == done.tracebacks.keys() == {0}


def test_aspect_buckets_change_the_training_of_oblong_pictures_alone(make_run: MakeRun) -> None:
    def trained(folder: str, *, oblong: bool, buckets: bool) -> str:
        training = {"local_steps": 3, "personal_steps": 1, "batch_size": 2, "aspect_buckets": buckets}
        rounds = {"count": 1, "validation_fraction": 0.2}
        config = make_run(folder, num_clients=1, rounds=rounds, training=training, **QUIET)
        if oblong:
            pipe, base_hash = base_model(config.model)
            device = Device(config.home(0), pipe, base_hash=base_hash, taxonomy=taxonomy())
            device.add_images([{"image": photo(48, 32), "caption": "a cat"}] * 2)
        record = simulate(config)
        assert "validation_loss" in record.rounds[0].metrics[0]
        return shared_of(config)

    assert trained("a", oblong=False, buckets=False) == trained("b", oblong=False, buckets=True)
    assert trained("c", oblong=True, buckets=False) != trained("d", oblong=True, buckets=True)
