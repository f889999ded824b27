"""Round numbers only increase, so a server cannot choose one that makes a device lose its memory.

At b8a6c4d, round 2^62 was trained and kept. Every later round was then dropped as soon as it was written, while
`current.json` named it, so that each order to finish ended with `storage`.
"""

from pathlib import Path

import pytest
import torch

from fedaigc.device.home.home import Home
from fedaigc.device.home.versions import KEPT_ROUNDS, AdapterVersions
from fedaigc.device.replies import DeviceError
from fedaigc.diffusion.adapters.stages import Adapter
from tests.device.training.training_orders import agent_of, asked, kind, start, update
from tests.small_run import MakeRun


def adapter(value: float) -> Adapter:
    return Adapter({"layer": (torch.full((1, 2), value), torch.full((2, 1), value))}, 1, 1.0)


def content(root: Path) -> dict[str, bytes]:
    """Return every file of a home except the log."""
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != "errors.log")
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(paths)}


def test_a_round_out_of_bounds_leaves_the_home_as_it_was(make_run: MakeRun) -> None:
    config = make_run(num_clients=1)
    agent, shared = agent_of(config), start(config)
    for earlier in (1, 2):
        update(asked(agent, config, shared, earlier))
    before = content(config.home(0))
    for number in (2**62, 10**6 + 1, 0, -1, -(2**62)):
        assert kind(asked(agent, config, shared, number)) in ("training_refused", "order_refused"), number
        assert content(config.home(0)) == before, number
    # at b8a6c4d this dropped what it wrote
    update(asked(agent, config, shared, 3))
    assert agent.open_device().versions.current_personal() is not None


def test_the_largest_round_takes_nothing_from_the_rounds_after_it(make_run: MakeRun) -> None:
    config = make_run(num_clients=1)
    agent, shared = agent_of(config), start(config)
    for number in (1, 10**6, 2):
        update(asked(agent, config, shared, number))
    versions = agent.open_device().versions
    assert versions.last_round(config.name) == 2
    assert versions.current_personal() is not None


def test_a_run_of_another_identity_begins_anew_and_drops_nothing(make_run: MakeRun) -> None:
    """On separate machines, too, where many runs have the same name: at f4520cc its first round was refused."""
    config = make_run(num_clients=1)
    agent, shared = agent_of(config), start(config)
    runs = [config.model_copy(update={"run_id": character * 16}) for character in "ab"]
    for number in range(1, 6):
        update(asked(agent, runs[0], shared, number))
    first = update(asked(agent, runs[1], shared, 1))
    versions = agent.open_device().versions
    assert [versions.last_round(run.run_key) for run in runs] == [5, 1]
    # it joined in its second round, where the other run had one
    late = config.model_copy(update={"run_id": "c" * 16})
    fresh = make_run("fresh", num_clients=1)
    alone = update(asked(agent_of(fresh), fresh, shared, 2))
    found = update(asked(agent, late, shared, 2))
    assert all(torch.equal(found[name], tensor) for name, tensor in alone.items())
    assert first.keys() == found.keys()


def test_a_round_starts_from_a_version_that_is_kept_or_is_refused(tmp_path: Path) -> None:
    versions = AdapterVersions(Home.open(tmp_path / "home"))
    for number in range(1, 8):
        versions.save_round("run", number, adapter(number))
    kept = [7 - back for back in range(KEPT_ROUNDS)][::-1]
    before = content(tmp_path)
    for number in (1, 2, kept[0]):
        with pytest.raises(DeviceError, match="no longer kept"):
            versions.save_round("run", number, adapter(0))
        with pytest.raises(DeviceError, match="no longer kept"):
            versions.check_follows("run", number)
    assert content(tmp_path) == before
    # a server that falls back by two; what came of the rounds after it is void
    versions.save_round("run", kept[1], adapter(60))
    assert versions.last_round("run") == kept[1]
    found = versions.current_personal()
    assert found is not None
    assert torch.equal(found.lora["layer"][0], torch.full((1, 2), 60.0))
    (started, _) = versions.before("run", kept[1])
    assert started is not None
    assert torch.equal(started.lora["layer"][0], torch.full((1, 2), float(kept[0])))


def test_a_run_may_begin_anew_while_nothing_of_it_was_dropped(tmp_path: Path) -> None:
    """A run of the same name does this after an interruption, or if the device joined late."""
    versions = AdapterVersions(Home.open(tmp_path / "home"))
    for first in (5, 4, 5):
        for number in range(first, first + KEPT_ROUNDS):
            versions.save_round("run", number, adapter(number))
        assert versions.before("run", first) == (None, {})
    versions.save_round("run", 5 + KEPT_ROUNDS, adapter(0))
    with pytest.raises(DeviceError, match="another name"):
        versions.check_follows("run", 5)


def test_no_round_takes_the_personal_adapter_away(tmp_path: Path) -> None:
    """After a repeated round without a personal stage, the adapter of the following round remains the current one."""
    versions = AdapterVersions(Home.open(tmp_path / "home"))
    versions.save_round("run", 1, None)
    versions.save_round("run", 2, adapter(2))
    versions.save_round("run", 1, None)
    found = versions.current_personal()
    assert found is not None
    assert torch.equal(found.lora["layer"][0], torch.full((1, 2), 2.0))
