"""The queue of prompts: one file a task, so that a crash loses none and no two processes share a number."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from fedaigc.device.home import Home
from fedaigc.device.report import UnknownTask
from fedaigc.errors import DamagedFile, UserError
from fedaigc.rng import derived_seed
from fedaigc.semantics.parser import MAX_PROMPT_CHARACTERS

_TASK_ID = re.compile(r"[0-9a-f]{16}")


class TaskStatus(StrEnum):
    """Where a task stands."""

    WAITING = "waiting"
    FINISHED = "finished"
    FAILED = "failed"


@dataclass(frozen=True)
class Task:
    """A prompt in the queue. Only `task_id` may leave the device, and the signature that was `disclosed`.

    disclosed: the JSON of that signature; None before anything was sent, and for a task that runs alone.
    """

    task_id: str
    number: int
    prompt: str
    status: TaskStatus
    disclosed: str | None = None


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
        """The task with this id; UnknownTask when there is none."""
        # the id comes from outside: it must not be able to name another file
        found = list(self._home.prompts.glob(f"*-{task_id}.json")) if _TASK_ID.fullmatch(task_id) else []
        if not found:
            raise UnknownTask("no task with this id on this device")
        return self._read(found[0])

    def mark(self, task_id: str, status: TaskStatus) -> None:
        """Record the task's new status."""
        self._replace(replace(self.get(task_id), status=status))

    def note_disclosed(self, task_id: str, signature: str | None) -> None:
        """Record what is about to be sent for the task, for its owner to see."""
        task = self.get(task_id)
        # asked every few seconds, a device says the same of what waits
        if task.disclosed != signature:
            self._replace(replace(task, disclosed=signature))

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
        """The tasks that have no image yet, oldest first; one whose file is damaged keeps no other back."""
        return [task for task in self.readable()[0] if task.status is TaskStatus.WAITING]

    def _files(self) -> Iterator[Path]:
        return self._home.prompts.glob("[0-9]*-*.json")

    def _path(self, task: Task) -> Path:
        return self._home.prompts / f"{task.number:06d}-{task.task_id}.json"

    def _read(self, path: Path) -> Task:
        fields = self._home.read_json(path)
        return Task(**{**fields, "status": TaskStatus(fields["status"])})
