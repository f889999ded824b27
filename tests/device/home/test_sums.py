"""A prompt takes part in one sum, and the key of a sum is used once."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedaigc.cli.device import device_app
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, Task
from fedaigc.device.home.sums import SumLog
from fedaigc.device.replies import DeviceError, Failure

ONE, OTHER = "a" * 32, "b" * 32


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home", seed=0)


def task(home: Home, prompt: str = "a dog") -> Task:
    queue = PromptQueue(home)
    return queue.get(queue.add(prompt))


def test_a_key_serves_one_round_once(home: Home) -> None:
    sums, dog = SumLog(home), task(home)
    sums.announce(dog, ONE, b"public", b"private")
    assert sums.announced(dog, ONE) == b"private"
    with pytest.raises(DeviceError, match="no key of this prompt waits in this round"):
        sums.announced(dog, OTHER)
    # a server that lost the key may ask again, in another round
    sums.announce(dog, OTHER, b"public2", b"private2")
    for number in (ONE, OTHER):
        if number == OTHER:
            sums.give(dog, number, 3, None)
        with pytest.raises(DeviceError, match="used, or never announced"):
            sums.announced(dog, number)
        with pytest.raises(DeviceError) as refused:
            sums.give(dog, number, 3, None)
        assert refused.value.failure is Failure.NOT_SUMMED
    (entry,) = SumLog(home).entries()
    assert (entry.status, entry.private, entry.members) == ("given", "", 3)
    # nothing of the private key is left in the home
    for path in home.root.rglob("*"):
        assert path.is_dir() or b"private2".hex().encode() not in path.read_bytes()
    assert all(path.stat().st_mode & 0o077 == 0 for path in (home.root / "sums").iterdir())


def test_a_prompt_is_in_one_sum_whatever_its_tasks_are_called(home: Home) -> None:
    """Two sums whose other members are the same would reveal it by their difference."""
    sums, first, second = SumLog(home), task(home), task(home)
    assert first.task_id != second.task_id
    sums.announce(first, ONE, b"public", b"private")
    with pytest.raises(DeviceError, match="already has a key in this round"):
        sums.announce(second, ONE, b"public2", b"private2")
    sums.give(first, ONE, 4, 8.0)
    for again in (first, second):
        with pytest.raises(DeviceError, match="was in a sum before"):
            SumLog(home).announce(again, OTHER, b"public3", b"private3")
    told = CliRunner().invoke(device_app, ["sums", str(home.root)]).output
    assert f"{first.task_id}  masked, in a sum of 4, noise of epsilon 8" in told
    cat = task(home, "a cat")
    sums.announce(cat, ONE, b"public4", b"private4")
    assert sorted(sums.of_round(ONE)) == [b"public", b"public4"]
    assert sums.of_round(OTHER) == []
