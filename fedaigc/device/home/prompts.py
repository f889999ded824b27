"""The queue of prompts: one file per task, so a crash loses none and no two processes share a number."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from fedaigc.bounds import MAX_OFFERS, TASK_ID
from fedaigc.device.home.disclosures import DisclosureLog, most_disclosed
from fedaigc.device.home.home import Home
from fedaigc.device.home.ledger import DisclosureLedger
from fedaigc.device.home.task_names import TaskNames
from fedaigc.device.replies import UnknownTask
from fedaigc.errors import DamagedFile, UserError
from fedaigc.rng import derived_seed
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.validation import checked_prompt

# a failure may depend on the prompt: each attempt can reveal a bit of it to the sender of the order
MAX_DEVICE_ATTEMPTS = 2
_TASK_ID = re.compile(TASK_ID)


class TaskStatus(StrEnum):
    """The status of a task. FAILED: all its attempts were used up, and none completed."""

    WAITING = "waiting"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class Task:
    """A prompt in the queue.

    Only `task_id` and the signatures that were `disclosed` may leave the device.

    Attributes:
        task_id: Random id, 16 hexadecimal digits.
        number: Number in the queue.
        prompt: The private prompt.
        status: Status of the task.
        disclosed: The most that was ever disclosed, as the JSON of one signature, or of several if none of
            them contains all. Empty before the first disclosure.
        attempts: How often drawing it was begun, in any run and for any server.
        offers: How many offers of hand-offs were answered for it, in any run and for any server.
    """

    task_id: str
    number: int
    prompt: str
    status: TaskStatus
    disclosed: tuple[str, ...] = ()
    attempts: int = 0
    offers: int = 0


class PromptQueue:
    """The tasks of one home, in the order in which they were added.

    Attributes:
        home: The home.
        disclosures: The log of what was disclosed of each prompt.
        ledger: How much was disclosed of all prompts.
        names: Names of tasks of which nothing is disclosed.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self.disclosures = DisclosureLog(home)
        self.ledger = DisclosureLedger(home)
        self.names = TaskNames(home)

    def add(self, text: str) -> str:
        """Queue a prompt and return its task id.

        The id is 63 random bits that depend on the device's seed and the task's number in the queue, never on
        the text. The number counts the files of the queue, so none of them may ever be removed: a later
        prompt would get the id, and with it the disclosures and the picture, of an earlier one.

        Raises:
            UserError: As `checked_prompt`.
        """
        prompt = checked_prompt(text)
        seed = self.home.seed
        number = len(list(self._files()))
        while True:
            task = Task(f"{derived_seed(seed, 'task', number):016x}", number, prompt, TaskStatus.WAITING)
            if self.home.write_new_json(self._path(task), asdict(task)):
                return task.task_id
            number += 1  # another process took this number

    def get(self, task_id: str) -> Task:
        """Return the task with this id, or the one that was offered under this name (`TaskNames`).

        Raises:
            UnknownTask: If there is none.
        """
        # the id comes from another machine and must not be able to name another file
        if not _TASK_ID.fullmatch(task_id):
            raise UnknownTask("invalid task id: expected 16 hexadecimal digits")
        found = self._named(task_id) or self._named(self.names.task_of(task_id))
        if not found:
            raise UnknownTask("no task with this id on this device")
        return self._read(found[0])

    def begin_attempt(self, task_id: str) -> Task:
        """Count an attempt at a task before anything is computed from its prompt, and return the task.

        The count is on disk when this method returns, so a restart does not give the attempt back.

        Raises:
            UnknownTask: If the task does not wait, or has no attempt left.
        """
        with self.home.changing("prompts"):
            task = self.get(task_id)
            if task.status is not TaskStatus.WAITING:
                raise UnknownTask("this task is not waiting")
            attempts = task.attempts + 1
            # the last attempt counts as failed until it completes: a process that dies cannot record a failure
            status = TaskStatus.FAILED if attempts >= MAX_DEVICE_ATTEMPTS else TaskStatus.WAITING
            begun = replace(task, attempts=attempts, status=status)
            self._replace(begun)
            return begun

    def begin_offer(self, task_id: str) -> Task:
        """Count an offer before it is answered, durably, and return the task.

        Raises:
            UnknownTask: If the task does not wait, or has no offer left.
        """
        with self.home.changing("prompts"):
            task = self.get(task_id)
            if task.status is not TaskStatus.WAITING or task.offers >= MAX_OFFERS:
                raise UnknownTask("this task is not waiting, or answers no further offer")
            answered = replace(task, offers=task.offers + 1)
            self._replace(answered)
            return answered

    def finish(self, task_id: str) -> None:
        """Record that the image of the task is finished."""
        with self.home.changing("prompts"):
            self._replace(replace(self.get(task_id), status=TaskStatus.FINISHED))

    def retry(self, task_id: str) -> None:
        """Return a failed task to the queue with all its attempts, at its owner's request.

        Raises:
            UserError: If the task did not fail.
            UnknownTask: If there is no such task.
        """
        with self.home.changing("prompts"):
            task = self.get(task_id)
            if task.status is not TaskStatus.FAILED:
                raise UserError(
                    f"task {task_id} is {task.status.value}: only one that failed can be tried again"
                )
            self._replace(replace(task, status=TaskStatus.WAITING, attempts=0, offers=0))

    def note_disclosed(self, task_id: str, signature: Disclosed | None) -> None:
        """Log a signature that is about to be sent, durably, if it discloses more than was ever disclosed."""
        if signature is None:
            return
        task = self.get(task_id)
        # a device is asked every few seconds and repeats the signatures of waiting tasks
        if most_disclosed((*task.disclosed, signature.to_json())) != task.disclosed:
            self.disclosures.add(task.task_id, signature)

    def _replace(self, task: Task) -> None:
        self.home.write_json(self._path(task), asdict(task))

    def all(self) -> list[Task]:
        """Return every task, oldest first."""
        return [self._read(path) for path in sorted(self._files())]

    def readable(self) -> tuple[list[Task], list[Path]]:
        """Return every task that can be read, oldest first, and the files of those that cannot."""
        tasks, damaged = [], []
        for path in sorted(self._files()):
            try:
                task = self._read(path)
                if path != self._path(task) or not isinstance(task.prompt, str):
                    raise DamagedFile(f"{path} does not contain the task that its file name states")
            except (OSError, LookupError, TypeError, ValueError, DamagedFile):
                damaged.append(path)
            else:
                tasks.append(task)
        return tasks, damaged

    def waiting(self) -> list[Task]:
        """Return the tasks that may still be drawn, oldest first; a damaged file blocks no other task."""
        return [task for task in self.readable()[0] if task.status is TaskStatus.WAITING]

    def _files(self) -> Iterator[Path]:
        return self.home.prompts.glob("[0-9]*-*.json")

    def _named(self, task_id: str | None) -> list[Path]:
        return list(self.home.prompts.glob(f"*-{task_id}.json")) if task_id is not None else []

    def _path(self, task: Task) -> Path:
        return self.home.prompts / f"{task.number:06d}-{task.task_id}.json"

    def _read(self, path: Path) -> Task:
        fields = self.home.read_json(path)
        status = TaskStatus(fields["status"])
        # a home of an earlier version has disclosures in the task's file, in addition to the log
        here = fields.get("disclosed") or ()
        here = (here,) if isinstance(here, str) else tuple(here)
        disclosed = most_disclosed((*here, *self.disclosures.most(fields["task_id"])))
        return Task(**{**fields, "status": status, "disclosed": disclosed})
