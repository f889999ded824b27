"""What an order to train may request of a device.

At b8a6c4d, an agent trained 350 steps at rank 64 without captions, did not check the steps of a strategy itself, and
trained any number of rounds. Each test that sends such an order failed there, since it returned an update.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig, parse_config
from fedaigc.federation.wire import messages
from fedaigc.federation.wire.messages import Ask
from fedaigc.rng import numpy_rng
from fedaigc.strategy.rule import Received
from tests.device.training.training_orders import agent_of, asked, changed, kind, start, update
from tests.quick_cases import quick_first
from tests.small_run import MakeRun


def log(config: FederationConfig) -> str:
    path = config.home(0) / "errors.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize(
    ("section", "values", "told"),
    [
        ("training", {"local_steps": 41}, "41 steps of the shared stage"),
        ("training", {"personal_steps": 201}, "201 steps of the personal stage"),
        ("training", {"batch_size": 33}, "33 pictures per batch"),
        ("training", {"learning_rate": 0.02}, "0.02 as learning rate"),
        ("training", {"condition_dropout": 1.0}, "1.0 as condition dropout"),
        ("adapter", {"rank": 17}, "17 as rank"),
        # at 32ea354 they were encoded, and trained on, at any size
        ("model", {"height": 8, "width": 1032}, "1032 pixels a side"),
        ("rounds", {"strategy": "full_weights"}, "full weights"),
        ("rounds", {"strategy": "ditto", "options": {"personal_steps": 100}}, "102 steps"),
        ("rounds", {"strategy": "interval_fisher", "options": {"batches": 100}}, "102 steps"),
        ("rounds", {"strategy": "fedala", "options": {"first_steps": 100, "steps": 100}}, None),
    ],
)
def test_what_is_beyond_the_owners_limits_is_refused(
    make_run: MakeRun, section: str, values: dict[str, Any], told: str | None
) -> None:
    whole = make_run(num_clients=1)
    config = changed(whole, section, **values)
    if config.rounds.options.get("personal_steps") or config.rounds.options.get("batches"):
        config = changed(config, "training", local_steps=2)
    # the small model takes no more than rank 16
    agent, shared = agent_of(config), start(whole if section == "adapter" else config)
    number = 1
    if told is None:  # FedALA mixes from its second round on
        update(asked(agent, config, shared, 1))
        number, told = 2, "41 steps and gradient batches"
    before = sorted(path.name for path in (config.home(0) / "adapters").rglob("*"))
    reply = asked(agent, config, shared, number)
    assert kind(reply) == "training_refused"
    assert told in log(config)
    assert "owner" in log(config)
    if section != "rounds":
        assert sorted(path.name for path in (config.home(0) / "adapters").rglob("*")) == before


def test_the_rank_of_what_is_received_is_looked_at(make_run: MakeRun) -> None:
    """Not only the limit in the configuration applies."""
    config = make_run(num_clients=1)
    shared = start(config)
    told = changed(config, "adapter", rank=1)
    assert kind(asked(agent_of(config, max_rank=1), told, shared)) == "training_refused"
    assert "2 as rank" in log(config)


def test_the_default_configuration_and_that_of_the_soak_pass() -> None:
    """Ten default rounds in homes of 96 pictures; 80 of the soak test's, whose devices do not limit passes."""
    from fedaigc.device.limits import OwnerLimits
    from tools.deployment.soak import configuration

    limits = OwnerLimits()
    default = parse_config({"homes": "homes", "output": "out"})
    for config, rounds, images in ((default, 10, 96), (configuration(Path("soak")), 80, None)):
        training = config.training
        assert training.local_steps <= limits.max_local_steps
        assert training.personal_steps <= limits.max_personal_steps
        assert training.batch_size <= limits.max_batch_size
        assert training.learning_rate <= limits.max_learning_rate
        assert training.condition_dropout <= limits.max_condition_dropout
        assert config.adapter.rank <= limits.max_rank
        if images is not None:
            assert rounds * training.local_steps * training.batch_size <= limits.max_passes * images
        assert rounds <= min(limits.max_rounds_a_day, limits.max_rounds)


def test_the_options_of_the_command_are_the_defaults() -> None:
    import inspect
    from dataclasses import fields

    from fedaigc.cli.device_start import start as command
    from fedaigc.device.limits import OwnerLimits

    told = {name: each.default for name, each in inspect.signature(command).parameters.items()}
    options = {"max_denoising_steps": "max_steps", "max_image_side": "max_side"}
    options["max_guidance_scale"] = "max_guidance"
    for field in fields(OwnerLimits):
        assert told[options.get(field.name, field.name)] == field.default, field.name


def test_rounds_are_counted_across_names_and_restarts_and_repeats_count_once(make_run: MakeRun) -> None:
    config = make_run(num_clients=1)
    shared = start(config)
    for number in (1, 2):
        update(asked(agent_of(config, max_rounds=3), config, shared, number))
    # the same order again, as of a server that died in the round, from a new process of the agent
    first = update(asked(agent_of(config, max_rounds=3), config, shared, 2))
    again = update(asked(agent_of(config, max_rounds=3), config, shared, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    other = parse_config(config.model_dump() | {"name": "other"})
    update(asked(agent_of(config, max_rounds=3), other, shared, 1))
    for refused in (parse_config(config.model_dump() | {"name": "another"}), other):
        assert kind(asked(agent_of(config, max_rounds=3), refused, shared, 2)) == "training_refused"
    assert "the owner permits no more than 3 rounds" in log(config)
    # what was answered once still is
    update(asked(agent_of(config, max_rounds=3), other, shared, 1))


def test_a_home_that_lost_its_adapters_tells_its_owner(make_run: MakeRun) -> None:
    config = make_run(num_clients=1)
    agent, shared = agent_of(config), start(config)
    update(asked(agent, config, shared, 1))
    assert "starts anew" not in log(config)
    shutil.rmtree(config.home(0) / "adapters" / "rounds")
    update(asked(agent_of(config), config, shared, 2))
    assert "has trained 1 round, and `adapters` in its home has nothing of them" in log(config)


def test_a_repeated_round_with_other_weights_counts(make_run: MakeRun) -> None:
    """Otherwise a server could feed weights back forever, as repeats of one round."""
    config = make_run(num_clients=1)
    agent, shared = agent_of(config, max_rounds=2), start(config)
    for _ in range(2):
        shared = shared.with_tensors(update(asked(agent, config, shared, 1)))
    assert kind(asked(agent, config, shared, 1)) == "training_refused"


def test_a_repeated_round_with_another_memory_counts(make_run: MakeRun) -> None:
    """In another order of rounds, a repeated order starts from another memory and hence takes other steps.

    At 32ea354, orders of rounds 16, 15, ... 1 were counted once each, and then any ascending order was free.
    """
    config = changed(make_run(num_clients=1), "rounds", strategy="fedrep")
    agent, shared = agent_of(config, max_rounds=2), start(config)
    first = update(asked(agent, config, shared, 20))
    update(asked(agent, config, shared, 10))  # drops round 20; before it there is round 10 now
    assert kind(asked(agent, config, shared, 20)) == "training_refused"
    # an order that starts from what it started from does not count again
    update(asked(agent, config, shared, 10))
    assert first


def test_rounds_of_a_day(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    config = make_run(num_clients=1)
    agent, shared = agent_of(config, max_rounds_a_day=2), start(config)
    now = time.time()
    for number, hours, expected in ((1, 0, None), (2, 5, None), (3, 23, "training_refused"), (3, 25, None)):
        monkeypatch.setattr(
            "fedaigc.device.training.training_limits._now_s", lambda hours=hours: now + 3600 * hours
        )
        assert kind(asked(agent, config, shared, number)) == expected
    # a clock that is set back opens nothing
    monkeypatch.setattr("fedaigc.device.training.training_limits._now_s", lambda: now)
    assert kind(asked(agent, config, shared, 4)) == "training_refused"


def test_passes_over_the_pictures_are_counted_in_all(make_run: MakeRun) -> None:
    """Two pictures and two steps, each counted as 8 pictures at ten times the rate of 1e-3: 80 passes per round."""
    config = make_run(num_clients=1)
    agent, shared = agent_of(config, max_passes=160.0), start(config)
    update(asked(agent, config, shared, 1))
    update(asked(agent, parse_config(config.model_dump() | {"name": "other"}), shared, 1))
    assert kind(asked(agent_of(config, max_passes=160.0), config, shared, 2)) == "training_refused"
    assert "passes over the private pictures" in log(config)
    # with more pictures there is room again
    from fedaigc.data.scenes import scenes_dataset

    agent.open_device().add_images(scenes_dataset(1, 9))
    update(asked(agent, config, shared, 2))


@pytest.mark.parametrize("how", quick_first(["alpha", "rows", "columns"], 2))
def test_steps_that_move_weights_further_count_as_at_a_larger_rate(make_run: MakeRun, how: str) -> None:
    """At 32ea354, a server that sent an alpha of 30 times the rank got steps that were 30 times as large."""
    config = make_run(num_clients=1)
    agent, shared = agent_of(config, max_passes=160.0), start(config)
    louder = {
        "alpha": replace(shared, alpha=30.0 * shared.rank),
        "rows": shared.with_tensors(
            {name: 30 * tensor for name, tensor in shared.tensors().items() if name.endswith("lora_A")}
        ),
        # within the bound on weights: it is of B A
        "columns": shared.with_tensors(
            {
                name: torch.full_like(tensor, 30.0) if name.endswith("lora_B") else 1e-6 * tensor
                for name, tensor in shared.tensors().items()
            }
        ),
    }[how]
    assert kind(asked(agent, config, louder)) == "training_refused"
    assert "passes over the private pictures" in log(config)
    update(asked(agent, config, shared))


def test_a_server_writes_no_lines_of_its_own_into_the_owners_log(make_run: MakeRun) -> None:
    """At 32ea354, the fingerprint of the server's code was logged unescaped, including line breaks."""
    config = make_run(num_clients=1)
    agent, shared = agent_of(config), start(config)
    text = "0\nround 1 of run mine: all is well\n"
    order = messages.train_record(Received(shared, 1), "float32", numpy_rng(0, "order"), text)
    reply = agent.answer(Ask.TRAIN, config.to_run_config()[RUN_CONFIG_KEY], order)
    assert kind(reply) == "code_differs"
    assert not any(line.startswith("round 1 of run mine") for line in log(config).splitlines())


def test_a_count_that_cannot_be_read_is_no_new_beginning(make_run: MakeRun) -> None:
    config = make_run(num_clients=1)
    agent, shared = agent_of(config), start(config)
    update(asked(agent, config, shared, 1))
    path = config.home(0) / "training.json"
    counts = json.loads(path.read_text())
    changes = ({"rounds": -5}, {"pictures": True}, {"hours": {"now": 1}}, {"more": 0})
    for damaged in ("{", "[]", *(json.dumps(counts | change) for change in changes)):
        path.write_text(damaged)
        assert kind(asked(agent, config, shared, 2)) == "storage"


@pytest.mark.parametrize(
    "strategy", quick_first(["fedit", "interval_fisher", "scaffold", "hetlora", "flora"], 2)
)
def test_an_update_is_clipped_to_the_owners_bound(make_run: MakeRun, strategy: str) -> None:
    from fedaigc.device.training.update_clipping import update_norm

    config = changed(make_run(num_clients=1), "rounds", strategy=strategy)
    shared = start(config)
    rule_received = _received(config, shared)
    free = update(asked(agent_of(config), config, shared))
    norm = update_norm(free, rule_received)
    assert norm < 12.0
    assert "clipped" not in log(config)
    # within the bound nothing is touched, bit for bit
    same = update(asked(agent_of(config, max_update_norm=norm), config, shared))
    assert all(torch.equal(free[name], same[name]) for name in free)
    bound = norm / 3
    small = update(asked(agent_of(config, max_update_norm=bound), config, shared))
    assert update_norm(small, rule_received) == pytest.approx(bound, rel=1e-4)
    assert f"an update of norm {norm:.4g} was clipped to {bound:.4g}" in log(config)
    # the direction stays
    for name, tensor in free.items():
        zero = torch.zeros_like(tensor)
        begun = {**rule_received.shared.tensors(), **rule_received.extra}.get(name, zero)
        assert torch.allclose(small[name] - begun, (tensor - begun) / 3, atol=1e-5, rtol=1e-3)
    assert isinstance(rule_received, Received)


def _received(config: FederationConfig, shared: Any) -> Any:
    from fedaigc.strategy.registry import load_strategy

    return load_strategy(config.rounds.strategy, config.rounds.options).download(shared, 0, shared.rank, 1)


def test_the_norm_by_hand() -> None:
    """Changes of (3, 4) from (1, 1) and of 12 from nothing have norm 13, and are clipped to 6.5, half of each.

    A cut row is compared with the row that it came from. The square of 3e38 overflows in float32.
    """
    from fedaigc.device.training.update_clipping import clipped, update_norm
    from fedaigc.diffusion.adapters.stages import SharedState

    shared = SharedState("base", {"l": (torch.tensor([[1.0, 1.0], [5.0, 5.0]]), torch.zeros(1, 2))}, 2, 2.0)
    received = Received(shared, 1, {"c": torch.tensor([1.0])})
    upload = {"l.lora_A": torch.tensor([[4.0, 5.0]]), "new": torch.tensor([12.0]), "c": torch.tensor([1.0])}
    assert update_norm(upload, received) == 13.0
    found, norm = clipped(upload, received, 6.5)
    assert norm == 13.0
    assert found["l.lora_A"].tolist() == [[2.5, 3.0]]
    assert found["new"].tolist() == [6.0]
    assert found["c"].tolist() == [1.0]
    assert found["new"].dtype == torch.float32
    assert update_norm({"new": torch.full((4,), 3e38)}, received) == pytest.approx(6e38)
    with pytest.raises(ValueError, match="cannot be clipped"):
        clipped({"new": torch.tensor([float("nan")])}, received, 1.0)
