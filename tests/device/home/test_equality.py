"""A task answers few equality tests, and the secret number of a test opens one packet."""

from pathlib import Path

import pytest

from fedaigc.device.home.equality import EqualityLog
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, Task
from fedaigc.device.replies import DeviceError, Failure

ONE, OTHER, THIRD = "a" * 32, "b" * 32, "c" * 32
KEYS = (b"k" * 32, b"l" * 32)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home.open(tmp_path / "home", seed=0)


@pytest.fixture
def task(home: Home) -> Task:
    queue = PromptQueue(home)
    return queue.get(queue.add("a dog"))


def secret_is_gone(home: Home, secret: bytes) -> bool:
    files = [path for path in home.root.rglob("*") if path.is_file()]
    return all(secret.hex().encode() not in path.read_bytes() for path in files)


def test_a_secret_number_serves_one_test_in_its_order(home: Home, task: Task) -> None:
    log = EqualityLog(home)
    log.announce(task, "run", ONE, b"secret")
    for too_early in (log.execute, log.use_up):
        with pytest.raises(DeviceError, match="no key for this step") as refused:
            too_early(task, ONE)
        assert refused.value.failure is Failure.NOT_COMPARED
    with pytest.raises(DeviceError, match="no key for this step"):
        log.answer(task, OTHER, KEYS)
    log.answer(task, ONE, KEYS)
    with pytest.raises(DeviceError, match="no key for this step"):
        log.answer(task, ONE, KEYS)
    assert EqualityLog(home).execute(task, ONE).keys == tuple(key.hex() for key in KEYS)
    with pytest.raises(DeviceError, match="no key for this step"):
        log.execute(task, ONE)
    assert bytes.fromhex(log.use_up(task, ONE).private) == b"secret"
    with pytest.raises(DeviceError, match="no key for this step"):
        log.use_up(task, ONE)
    assert secret_is_gone(home, b"secret")
    assert all(path.stat().st_mode & 0o077 == 0 for path in (home.root / "equality").iterdir())


def test_a_task_answers_two_tests_whoever_asks(home: Home, task: Task) -> None:
    log = EqualityLog(home)
    # keys tell nothing, so that a server that lost one may ask again
    for number in (ONE, ONE, OTHER):
        log.announce(task, "run", number, b"secret")
    log.answer(task, OTHER, KEYS)
    log.announce(task, "another run", ONE, b"second")
    assert secret_is_gone(home, b"secret")
    log.answer(task, ONE, KEYS)
    with pytest.raises(DeviceError, match="was in 2 equality tests"):
        EqualityLog(home).announce(task, "run", THIRD, b"third")
    (entry,) = log.entries()
    assert (entry.tests, entry.run, entry.status) == (2, "another run", "answered")


def test_a_task_that_is_drawn_otherwise_forgets_it(home: Home, task: Task) -> None:
    log = EqualityLog(home)
    log.forget(task)
    log.announce(task, "run", ONE, b"secret")
    log.forget(task)
    assert secret_is_gone(home, b"secret")
    with pytest.raises(DeviceError, match="no key for this step"):
        log.answer(task, ONE, KEYS)
