"""The equality tests that a device was asked into: one file a task, with its secret number until it is used up.

A task answers few tests in all, for any server, as every test tells something. The secret number of a test opens what
a twin sends, so it stays until one packet was opened, the next test begins, or the task is drawn otherwise.
"""

import time
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import ConfigDict, NonNegativeInt, with_config

from fedaigc.bounds import MAX_EQUALITY_TESTS
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import Task
from fedaigc.device.home.task_log import TaskLog
from fedaigc.device.replies import DeviceError, Failure


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Tested:
    """What became of a task in equality tests.

    Attributes:
        task_id: The task.
        tests: How many tests were answered for it.
        run: The run of the latest test.
        number: Its number.
        status: "announced": a key was sent. "answered": tags were sent. "executed": steps were run for twins.
        private: The secret number, in hex; empty once it is used up.
        keys: The keys of all members of the test, in hex; none before it was answered.
        time: Unix seconds of the latest change.
    """

    task_id: str
    tests: NonNegativeInt
    run: str
    number: str
    status: Literal["announced", "answered", "executed"]
    private: str
    keys: tuple[str, ...]
    time: float


class EqualityLog(TaskLog[Tested]):
    """The equality tests of one home."""

    def __init__(self, home: Home) -> None:
        super().__init__(home, "equality", Tested)

    def announce(self, task: Task, run: str, number: str, private: bytes) -> None:
        """Keep the secret number of a task for a test, before its key is sent; it replaces an earlier one.

        Raises:
            DeviceError: If the task answers no further test.
        """
        with self._changing():
            tests = self._tests_left(task)
            self._write(
                task, Tested(task.task_id, tests, run, number, "announced", private.hex(), (), time.time())
            )

    def in_test(self, task: Task, number: str, *status: str) -> Tested:
        """Return what is known of a task in a test.

        Raises:
            DeviceError: If its latest test is another one or has another status, or its secret number is used up.
        """
        found = self._of(task)
        if found is None or found.number != number or found.status not in status or not found.private:
            raise _refused(
                "this task has no key for this step of an equality test: it was used, or never made"
            )
        return found

    def answer(self, task: Task, number: str, keys: tuple[bytes, ...]) -> None:
        """Note, durably, that tags for a test are about to be sent.

        Raises:
            DeviceError: As `announce` and `in_test`.
        """
        with self._changing():
            tests = self._tests_left(task)
            found = self.in_test(task, number, "announced")
            told = tuple(key.hex() for key in keys)
            self._write(task, replace(found, tests=tests + 1, status="answered", keys=told, time=time.time()))

    def execute(self, task: Task, number: str) -> Tested:
        """Note, durably, that steps for twins are about to be run, once a test; DeviceError as `in_test`."""
        with self._changing():
            found = self.in_test(task, number, "answered")
            self._write(task, replace(found, status="executed", time=time.time()))
            return found

    def use_up(self, task: Task, number: str) -> Tested:
        """Forget the secret number, durably, and return what was known; DeviceError as `in_test`."""
        with self._changing():
            found = self.in_test(task, number, "answered", "executed")
            self._write(task, replace(found, private="", time=time.time()))
            return found

    def forget(self, task: Task) -> None:
        """Forget the secret number of a task, if there is one."""
        with self._changing():
            found = self._of(task)
            if found is not None and found.private:
                self._write(task, replace(found, private="", time=time.time()))

    def _tests_left(self, task: Task) -> int:
        """Return how many tests were answered for a task; DeviceError if it answers no further one."""
        found = self._of(task)
        tests = found.tests if found is not None else 0
        if tests >= MAX_EQUALITY_TESTS:
            raise _refused(f"this task was in {tests} equality tests: it answers no further one")
        return tests


def _refused(message: str) -> DeviceError:
    return DeviceError(Failure.NOT_COMPARED, message)
