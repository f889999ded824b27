"""The disclosure log of a device: what servers received about each prompt, for its owner to see.

`disclosures.jsonl` in the home has one line of JSON per disclosure: time (Unix seconds), task id, policy, and
the signature as sent. Lines are only appended. A line is appended only if its signature discloses something
new about its prompt, and all policies and minima together give a prompt fewer than 20 signatures. Nodes with noise are
drawn anew for every form of the question, which the owner's budget bounds (`ledger`). The log therefore stays small
however often servers ask, and no line has to be dropped.
"""

import json
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field, ValidationError, with_config

from fedaigc.device.home.home import Home
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.disclosed import Disclosed, read_signature
from fedaigc.semantics.signature import says_all_of
from fedaigc.validation import typed_json

LOG_NAME = "disclosures.jsonl"
# the year 5138, a time that the system can print
_LATEST = 1e11


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Disclosure:
    """One line of the log.

    Attributes:
        time: Unix seconds.
        task_id: Task of the prompt.
        policy: Disclosure policy; "node" in the denoiser's space.
        signature: JSON of the signature, see `Signature.to_json`.
    """

    time: Annotated[float, Field(ge=0, lt=_LATEST)]
    task_id: str
    policy: str
    signature: str


class DisclosureLog:
    """The disclosure log of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._size = 0
        self._entries: list[Disclosure] = []
        self._most: dict[str, tuple[str, ...]] = {}
        self._damaged = 0

    @property
    def path(self) -> Path:
        """The log file, which does not exist before the first disclosure."""
        return self._home.root / LOG_NAME

    def add(self, task_id: str, signature: Disclosed) -> bool:
        """Log a signature that is about to be sent; the line is on disk when this method returns.

        Returns:
            False, without a new line, if the task's signatures in the log already disclose all of it.
        """
        text, before = signature.to_json(), self.most(task_id)
        if most_disclosed((*before, text)) == before:
            return False
        entry = Disclosure(round(time.time(), 3), task_id, str(signature.policy), text)
        line = json.dumps(asdict(entry), sort_keys=True).encode() + b"\n"
        # if another process appended lines as well, the whole log is read again
        known = self._home.append_line(self.path, line) == self._size
        if known:
            self._size += len(line)
            self._note(entry)
        return True

    def most(self, task_id: str) -> tuple[str, ...]:
        """Return the signatures, as JSON, that together contain the most ever disclosed of a task."""
        self._load()
        return self._most.get(task_id, ())

    def entries(self) -> list[Disclosure]:
        """Return every disclosure that can be read, oldest first."""
        self._load()
        return list(self._entries)

    def damaged(self) -> int:
        """Return the number of lines that cannot be read."""
        self._load()
        return self._damaged

    def _load(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size == self._size:
            return
        self._entries, self._most, self._damaged = [], {}, 0
        content = self.path.read_bytes() if size else b""
        # text after the last line break was being written when its process ended; it was not sent
        *lines, torn = content.split(b"\n")
        self._size = len(content) - len(torn)
        for line in lines:
            try:
                self._note(typed_json(Disclosure, line))
            except ValidationError:
                self._damaged += 1

    def _note(self, entry: Disclosure) -> None:
        self._entries.append(entry)
        self._most[entry.task_id] = most_disclosed((*self._most.get(entry.task_id, ()), entry.signature))


def most_disclosed(signatures: Iterable[str]) -> tuple[str, ...]:
    """Return those signatures of one prompt that together disclose all that the others do, in their order.

    The result is one signature, unless two are incomparable, e.g. "a thing on a table" and "a fruit on
    furniture". A text that is not a signature is kept: what cannot be compared must not be hidden.

    Args:
        signatures: Signatures of one prompt, as JSON.
    """
    most: list[str] = []
    for text in dict.fromkeys(signatures):
        if not any(_says_all_of(other, text) for other in most):
            most = [*(other for other in most if not _says_all_of(text, other)), text]
    return tuple(most)


def _says_all_of(one: str, other: str) -> bool:
    try:
        first, second = read_signature(one), read_signature(other)
        if isinstance(first, NodeSignature) or isinstance(second, NodeSignature):
            # which node lies above which is known to the atlas alone
            return first == second
        return says_all_of(first, second, Taxonomy.load())
    except (TypeError, ValueError):
        return False
