"""The sums of conditionings that a device was asked into: one file per prompt, since a prompt is summed once.

Two sums in which all members but one are the same reveal that one by their difference. A prompt therefore gives its
conditioning to one sum at most, in any run and for any server, however many tasks have its words, up to capitals and
blanks, which many text encoders drop. The private key of a sum lies in the home from the moment its public key is
announced until the device answers, and is removed before it does.
"""

import hashlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import ConfigDict, with_config

from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import Task
from fedaigc.device.home.task_log import TaskLog
from fedaigc.device.replies import DeviceError, Failure


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Summed:
    """What became of a prompt in sums.

    Attributes:
        task_id: Task of the prompt.
        number: Number of the round.
        status: "announced": a key was sent. "given": the conditioning was sent, masked. "clear": it was sent as it is,
            in a simulation.
        public: Public key of the latest round, in hex.
        private: Its private key, in hex; empty once it was used.
        members: Number of members of the sum; 0 before it was given.
        noise_epsilon: Epsilon of the noise on the sum; None for none.
        time: Unix seconds of the latest change.
    """

    task_id: str
    number: str
    status: Literal["announced", "given", "clear"]
    public: str
    private: str
    members: int
    noise_epsilon: float | None
    time: float


class SumLog(TaskLog[Summed]):
    """The sums of one home."""

    def __init__(self, home: Home) -> None:
        super().__init__(home, "sums", Summed)

    def announce(self, task: Task, number: str, public: bytes, private: bytes) -> None:
        """Keep the key pair of a task for a round, before the public key is sent; it replaces an unused earlier one.

        Raises:
            DeviceError: If the prompt was in a sum before, or if another task with its words is in this round.
        """
        with self._changing():
            before = self._of(task)
            if before is not None and before.status != "announced":
                raise _refused("the prompt was in a sum before: two sums would reveal it by their difference")
            if before is not None and before.number == number:
                raise _refused("this prompt already has a key in this round")
            self._write(
                task,
                Summed(task.task_id, number, "announced", public.hex(), private.hex(), 0, None, time.time()),
            )

    def announced(self, task: Task, number: str) -> bytes:
        """Return the private key of a task in a round.

        Raises:
            DeviceError: If there is none, or it was used.
        """
        found = self._of(task)
        if found is None or (found.task_id, found.number) != (task.task_id, number) or not found.private:
            raise _refused("no key of this prompt waits in this round: it was used, or never announced")
        return bytes.fromhex(found.private)

    def of_round(self, number: str) -> list[bytes]:
        """Return the public keys that this device announced in a round."""
        return [bytes.fromhex(found.public) for found in self.entries() if found.number == number]

    def give(self, task: Task, number: str, members: int, noise_epsilon: float | None) -> None:
        """Note, durably, that a conditioning is about to be sent masked, and forget the private key.

        Raises:
            DeviceError: As `announced`: the key may have been used meanwhile.
        """
        with self._changing():
            self.announced(task, number)
            found = self._of(task)
            assert found is not None
            self._write(
                task,
                replace(
                    found,
                    status="given",
                    private="",
                    members=members,
                    noise_epsilon=noise_epsilon,
                    time=time.time(),
                ),
            )

    def give_clear(self, task: Task, number: str) -> None:
        """Note, durably, that a conditioning is about to be sent as it is."""
        with self._changing():
            self._write(task, Summed(task.task_id, number, "clear", "", "", 1, None, time.time()))

    def _path(self, task: Task) -> Path:
        # a sum of an earlier version, which told capitals apart
        exact = self._named(task.prompt)
        return exact if exact.exists() else self._named(" ".join(task.prompt.casefold().split()))

    def _named(self, text: str) -> Path:
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self._folder / f"{digest}.json"


def _refused(message: str) -> DeviceError:
    return DeviceError(Failure.NOT_SUMMED, message)
