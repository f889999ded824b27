"""The disclosure log of a device: what servers were told of each prompt, for its owner to see.

`disclosures.jsonl` in the home has one line of JSON for each disclosure: time (Unix seconds), task id,
policy, and the signature as it was sent. Lines are only ever added. A line is added only if the signature
says something new of its prompt, and all policies and minima together give a prompt fewer than 20 signatures.
So the log stays small however often servers ask, and nothing in it has to be dropped.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from fedaigc.device.home.home import Home
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.signature import Signature, says_all_of

LOG_NAME = "disclosures.jsonl"
# the year 5138: a time that the system can print
_LATEST = 1e11


@dataclass(frozen=True)
class Disclosure:
    """One line of the log. signature: its JSON, see `Signature.to_json`; time: Unix seconds."""

    time: float
    task_id: str
    policy: str
    signature: str


class DisclosureLog:
    """The log of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._size = 0
        self._entries: list[Disclosure] = []
        self._most: dict[str, tuple[str, ...]] = {}
        self._damaged = 0

    @property
    def path(self) -> Path:
        """The file; there is none before the first disclosure."""
        return self._home.root / LOG_NAME

    def add(self, task_id: str, signature: Signature) -> bool:
        """Log what is about to be sent of a task; False if its signatures in the log say all of it already.

        The line is on disk when this returns.
        """
        text, before = signature.to_json(), self.most(task_id)
        if most_disclosed((*before, text)) == before:
            return False
        entry = Disclosure(round(time.time(), 3), task_id, signature.policy.value, text)
        line = json.dumps(asdict(entry), sort_keys=True).encode() + b"\n"
        # another process may have added lines too: then the whole log is read again
        known = self._home.append_line(self.path, line) == self._size
        if known:
            self._size += len(line)
            self._note(entry)
        return True

    def most(self, task_id: str) -> tuple[str, ...]:
        """The signatures, as JSON, that together say the most that was ever disclosed of a task."""
        self._load()
        return self._most.get(task_id, ())

    def entries(self) -> list[Disclosure]:
        """Every disclosure that can be read, oldest first."""
        self._load()
        return list(self._entries)

    def damaged(self) -> int:
        """How many lines cannot be read."""
        self._load()
        return self._damaged

    def _load(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size == self._size:
            return
        self._entries, self._most, self._damaged = [], {}, 0
        content = self.path.read_bytes() if size else b""
        # what follows the last line break was being written when its process ended, and was not sent
        *lines, torn = content.split(b"\n")
        self._size = len(content) - len(torn)
        for line in lines:
            try:
                self._note(_checked(Disclosure(**json.loads(line))))
            except (TypeError, ValueError):
                self._damaged += 1

    def _note(self, entry: Disclosure) -> None:
        self._entries.append(entry)
        self._most[entry.task_id] = most_disclosed((*self._most.get(entry.task_id, ()), entry.signature))


def _checked(entry: Disclosure) -> Disclosure:
    texts = (entry.task_id, entry.policy, entry.signature)
    if not all(isinstance(text, str) for text in texts) or not 0 <= entry.time < _LATEST:
        raise ValueError("no line of the log")
    return entry


def most_disclosed(signatures: Iterable[str]) -> tuple[str, ...]:
    """Of signatures (JSON) of one prompt, those that together say all that the others say, in their order.

    One, unless two are incomparable, e.g. "a thing on a table" and "a fruit on furniture". A text that is no
    signature is kept: what cannot be compared must not be hidden.
    """
    most: list[str] = []
    for text in dict.fromkeys(signatures):
        if not any(_says_all_of(other, text) for other in most):
            most = [*(other for other in most if not _says_all_of(text, other)), text]
    return tuple(most)


def _says_all_of(one: str, other: str) -> bool:
    try:
        return says_all_of(Signature.from_json(one), Signature.from_json(other), Taxonomy.load())
    except (TypeError, ValueError):
        return False
