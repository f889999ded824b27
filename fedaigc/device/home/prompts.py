"""The queue of prompts: one file a task, so that a crash loses none and no two processes share a number."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from fedaigc.bounds import MAX_PROMPT_CHARACTERS, TASK_ID
from fedaigc.device.home.disclosures import DisclosureLog, most_disclosed
from fedaigc.device.home.home import Home
from fedaigc.device.home.task_names import TaskNames
from fedaigc.device.replies import UnknownTask
from fedaigc.errors import DamagedFile, UserError
from fedaigc.rng import derived_seed
from fedaigc.semantics.signature import Signature

# a failure may depend on the prompt: each one tells whoever chose the order a bit of it
MAX_ATTEMPTS = 2
_TASK_ID = re.compile(TASK_ID)


class TaskStatus(StrEnum):
    """Where a task stands. FAILED: all its attempts were used up, and none came to an end."""

    WAITING = "waiting"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class Task:
    """A prompt in the queue. Only `task_id` may leave the device, and the signatures that were `disclosed`.

    disclosed: the most that was ever disclosed, as the JSON of one signature, or of several if none of them
    says all; empty before anything was disclosed. attempts: how often drawing it was begun, by whatever run,
    for whatever server.
    """

    task_id: str
    number: int
    prompt: str
    status: TaskStatus
    disclosed: tuple[str, ...] = ()
    attempts: int = 0


def checked_prompt(text: str) -> str:
    """`text` with runs of white space made one space.

    UserError when it is empty, over 1,000 characters, or holds what no file can: half of a character.
    """
    # counted before stripping: ten thousand blanks are as wrong as ten thousand letters
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise UserError(
            f"the text has {len(text):,} characters, at most {MAX_PROMPT_CHARACTERS:,} may be: shorten it"
        )
    prompt = " ".join(text.split())
    if not prompt:
        raise UserError('the text is empty: say what to draw, e.g. "an apple on a table"')
    try:
        prompt.encode()
    except UnicodeEncodeError:
        raise UserError("the text holds a broken character: type it anew, in UTF-8") from None
    return prompt


class PromptQueue:
    """The tasks of one home, in the order in which they were added."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self.disclosures = DisclosureLog(home)
        self.names = TaskNames(home)

    def add(self, text: str) -> str:
        """Queue the prompt and return its task id: 63 random bits that depend on the device's seed and the
        task's number in the queue, never on the text.

        Raises UserError for an empty prompt and for one of more than 1,000 characters.
        """
        prompt = checked_prompt(text)
        seed = self._home.seed
        number = len(list(self._files()))
        while True:
            task = Task(f"{derived_seed(seed, 'task', number):016x}", number, prompt, TaskStatus.WAITING)
            if self._home.write_new_json(self._path(task), asdict(task)):
                return task.task_id
            number += 1  # another process took this number

    def get(self, task_id: str) -> Task:
        """The task with this id, or offered under this name (`TaskNames`); UnknownTask when there is none."""
        # the id comes from outside: it must not be able to name another file
        if not _TASK_ID.fullmatch(task_id):
            raise UnknownTask("a task id has 16 hexadecimal digits")
        found = self._named(task_id) or self._named(self.names.task_of(task_id))
        if not found:
            raise UnknownTask("no task with this id on this device")
        return self._read(found[0])

    def begin_attempt(self, task_id: str) -> Task:
        """Count an attempt at a task before anything is computed from its prompt, and return the task.

        The count is on disk before this returns, so that no restart gives an attempt back. UnknownTask for a
        task that does not wait, or has no attempt left.
        """
        task = self.get(task_id)
        if task.status is not TaskStatus.WAITING:
            raise UnknownTask("this task does not wait")
        attempts = task.attempts + 1
        # the last attempt has failed until it ends: a process that dies in it does not come back to say so
        status = TaskStatus.FAILED if attempts >= MAX_ATTEMPTS else TaskStatus.WAITING
        begun = replace(task, attempts=attempts, status=status)
        self._replace(begun)
        return begun

    def finish(self, task_id: str) -> None:
        """Record that the task has its picture."""
        self._replace(replace(self.get(task_id), status=TaskStatus.FINISHED))

    def retry(self, task_id: str) -> None:
        """Have a task that failed wait again, with all its attempts, as its owner wishes.

        UserError for a task that did not fail, UnknownTask when there is none.
        """
        task = self.get(task_id)
        if task.status is not TaskStatus.FAILED:
            raise UserError(f"task {task_id} is {task.status.value}: only one that failed can be tried again")
        self._replace(replace(task, status=TaskStatus.WAITING, attempts=0))

    def note_disclosed(self, task_id: str, signature: Signature | None) -> None:
        """Log what is about to be sent of the task, durably, if it says more than was ever disclosed."""
        if signature is None:
            return
        task = self.get(task_id)
        # asked every few seconds, a device says the same of what waits
        if most_disclosed((*task.disclosed, signature.to_json())) != task.disclosed:
            self.disclosures.add(task.task_id, signature)

    def _replace(self, task: Task) -> None:
        self._home.write_json(self._path(task), asdict(task))

    def all(self) -> list[Task]:
        """Every task, oldest first."""
        return [self._read(path) for path in sorted(self._files())]

    def readable(self) -> tuple[list[Task], list[Path]]:
        """Every task that can be read, oldest first, and the files of those that cannot."""
        tasks, damaged = [], []
        for path in sorted(self._files()):
            try:
                task = self._read(path)
                if path != self._path(task) or not isinstance(task.prompt, str):
                    raise DamagedFile(f"{path} holds another task than its name says")
            except (OSError, LookupError, TypeError, ValueError, DamagedFile):
                damaged.append(path)
            else:
                tasks.append(task)
        return tasks, damaged

    def waiting(self) -> list[Task]:
        """The tasks that may still be drawn, oldest first; one whose file is damaged keeps no other back."""
        return [task for task in self.readable()[0] if task.status is TaskStatus.WAITING]

    def _files(self) -> Iterator[Path]:
        return self._home.prompts.glob("[0-9]*-*.json")

    def _named(self, task_id: str | None) -> list[Path]:
        return list(self._home.prompts.glob(f"*-{task_id}.json")) if task_id is not None else []

    def _path(self, task: Task) -> Path:
        return self._home.prompts / f"{task.number:06d}-{task.task_id}.json"

    def _read(self, path: Path) -> Task:
        fields = self._home.read_json(path)
        status = TaskStatus(fields["status"])
        # the log is not alone: a home of an earlier version has what was disclosed beside the prompt
        here = fields.get("disclosed") or ()
        here = (here,) if isinstance(here, str) else tuple(here)
        disclosed = most_disclosed((*here, *self.disclosures.most(fields["task_id"])))
        return Task(**{**fields, "status": status, "disclosed": disclosed})
