"""The ledger of a device: what all its prompts disclosed, counted, and whether the owner's budget allows more.

`ledger.jsonl` in the home has one line of JSON per disclosure, on disk before the disclosure is sent. Lines are only
appended.

How it is counted:

- Without noise, a signature counts log2 of the number of different signatures that could have been sent of a prompt
  under the same question. This bounds what signatures tell on average, whatever is known before and however prompts
  depend on each other, so sums over prompts are bounds too. The surprisal of a signature under the captions of an
  atlas would be less, but it holds only for people who ask as these captions do.
- With noise of an epsilon, it counts this epsilon, and at most epsilon / ln 2 bits.
- A budget looks at what was sent and at the price of the next answer, which is the same for all prompts (except under
  the policy `open`). So when it ends says nothing about the prompt that comes next.

What costs nothing: a signature that tells nothing beyond those of the same prompt so far. A prompt is the same if its
words are, up to capitals and blanks. An answer with noise is kept with the form of its question (atlas, m, epsilon) and
given again: repeating a prompt draws no new noise, so no mean over answers reveals it. An observer may guess from equal
answers that a prompt was repeated. Another form draws again, and costs again.

A conditioning that was given to the sum of a group counts the epsilon of its noise. Without noise no number of bits
bounds what a sum tells of one member, and it counts none: an owner permits sums by an option of their own.

The tags of an equality test of n members tell which of the others' prompts is the own one, or that none is: log2(n)
bits at most, whatever the server does.

Not counted: that a prompt waits, when, and that nothing is disclosed of it where no calibration decides.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError, with_config

from fedaigc.device.home.budget import FREE, Budget, Price
from fedaigc.device.home.disclosures import most_disclosed
from fedaigc.device.home.home import Home, note_error
from fedaigc.errors import DamagedFile
from fedaigc.validation import typed_json

LEDGER_NAME = "ledger.jsonl"
DAY_S = 24 * 3600
_LATEST = 1e11
Kind = Literal["concepts", "node", "hand-off", "sum", "equality", "alone"]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True)
class Entry:
    """One line of the ledger.

    Attributes:
        time: Unix seconds.
        kind: "concepts" or "node" for a signature, "hand-off" for the answer to an offer, "sum" for a conditioning that
            was given to the sum of a group, "equality" for the tags of an equality test, "alone": the budget did not
            allow a disclosure of this price, and nothing was sent.
        task_id: Task of the prompt.
        text: Digest of the prompt's words, by which the same prompt is known again.
        form: What was asked, where the answer is kept; empty otherwise.
        said: What was sent; empty for the answer that nothing is disclosed.
        bits: Bits; 0 if it told nothing new.
        epsilon: Epsilon; None for an answer without noise.
        again: Whether it told nothing new.
    """

    time: Annotated[float, Field(ge=0, lt=_LATEST)]
    kind: Kind
    task_id: str
    text: str
    form: str
    said: str
    bits: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    epsilon: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
    again: bool = False

    @property
    def price(self) -> Price:
        """What it counts."""
        return Price(self.bits, self.epsilon)


class DisclosureLedger:
    """The ledger of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._seed: int | None = None
        self._forget()

    @property
    def path(self) -> Path:
        """The file, which does not exist before the first disclosure."""
        return self._home.root / LEDGER_NAME

    def entries(self) -> list[Entry]:
        """Return every line that can be read, oldest first."""
        self._load()
        return list(self._entries)

    def damaged(self) -> int:
        """Return the number of lines that cannot be read."""
        self._load()
        return self._damaged

    def counted(self, task_id: str, said: str) -> bool:
        """Return whether a disclosure is in the ledger; those of earlier versions are not."""
        self._load()
        return (task_id, said) in self._sent

    def compared(self, task_id: str) -> bool:
        """Return whether an equality test was answered for a task."""
        self._load()
        return task_id in self._compared

    def said_again(self, prompt: str, form: str) -> str | None:
        """Return the answer that was given to the same prompt and form, and is given again; None if there is none."""
        self._load()
        return self._answers.get((self._digest(prompt), form))

    def tells_more(self, prompt: str, signature: str, before: Sequence[str] = ()) -> bool:
        """Return whether a signature without noise tells more than those of the same prompt so far.

        Args:
            prompt: The prompt.
            signature: The signature, as JSON.
            before: Further signatures of this prompt that were disclosed.
        """
        self._load()
        known = most_disclosed((*before, *self._signatures.get(self._digest(prompt), ())))
        return most_disclosed((*known, signature)) != known

    def spent(self) -> Price:
        """Return the sums of the last 24 hours; times later than now count too, in case the clock was set back."""
        self._load()
        recent = [entry for entry in self._entries if entry.time > _now_s() - DAY_S]
        return total(recent)

    def disclose(
        self,
        kind: Kind,
        task_id: str,
        prompt: str,
        price: Price,
        budget: Budget,
        say: Callable[[], str],
        *,
        form: str = "",
        before: Sequence[str] = (),
    ) -> str | None:
        """Count a disclosure that is about to be sent, durably; None if the budget does not allow it.

        Args:
            kind: Kind of the disclosure.
            task_id: Its task.
            prompt: The prompt; only a digest is kept.
            price: What it counts, if it tells more than was told of this prompt.
            budget: The budget in force.
            say: Draws or returns what is sent; called at most once, and not if the answer is kept already.
            form: What was asked, if the answer is to be given again.
            before: Signatures that were disclosed of this task, in homes of earlier versions without the ledger.

        Returns:
            What may be sent.

        Raises:
            DamagedFile: If the ledger cannot be read: it must not count less.
        """
        with self._home.changing("ledger"):
            self._load()
            if self._damaged:
                raise DamagedFile(f"{self.path} is damaged: restore it from a copy, or remove it")
            if form:
                kept = self.said_again(prompt, form)
                if kept is None and not self._allowed(task_id, prompt, price, budget):
                    return None
                said, again = say() if kept is None else kept, kept is not None
            else:
                said = say()
                # a node that was drawn may be the true one: that it is the true one is new
                told = tuple(each for each in before if (task_id, each) not in self._noisy)
                again = not self.tells_more(prompt, said, told)
                if not again and not self._allowed(task_id, prompt, price, budget):
                    return None
                if most_disclosed((*told, said)) == told:
                    return said
            if again and (task_id, said) in self._sent:
                return said
            cost = (Price(0.0, None) if price.epsilon is None else FREE) if again else price
            self._append(kind, task_id, prompt, form, said, cost, again=again)
            return said

    def answer_offer(
        self,
        task_id: str,
        prompt: str,
        offer: str,
        hand_offs: Sequence[int],
        taken: int | None,
        budget: Budget,
    ) -> int | None:
        """Count the answer to an offer of hand-offs, and return the one that may be sent.

        An answer names one of the hand-offs or none, so it counts log2(number of hand-offs + 1) bits. It has no noise.

        Args:
            task_id: The task.
            prompt: Its prompt.
            offer: What else determines the answer, such as the group's caption.
            hand_offs: The offered hand-offs K.
            taken: The one that the device would take; None: it runs alone.
            budget: The budget in force.

        Returns:
            `taken`, or the answer that was given to the same offer before; None, to run alone, where the budget does
            not allow an answer.

        Raises:
            ValueError: If `taken` was not offered.
            DamagedFile: As `disclose`.
        """
        if taken is not None and taken not in hand_offs:
            raise ValueError(f"hand-off {taken} was not offered: {list(hand_offs)}")
        form = json.dumps(["offer", offer, sorted(set(hand_offs))])
        price = Price(math.log2(len(set(hand_offs)) + 1))
        said = self.disclose("hand-off", task_id, prompt, price, budget, lambda: json.dumps(taken), form=form)
        found: int | None = None if said is None else json.loads(said)
        return found

    def _allowed(self, task_id: str, prompt: str, price: Price, budget: Budget) -> bool:
        if budget.allows(self.spent(), price):
            return True
        start = _now_s() - DAY_S
        told = [e for e in self._entries if e.kind == "alone" and e.time > start and e.price == price]
        if not told:
            self._append("alone", task_id, prompt, "", "", price)
            when = time.strftime("%Y-%m-%d %H:%M", time.gmtime(_now_s()))
            note_error(
                self._home.root,
                f"{when} UTC: the budget of disclosures is used up, and prompts run alone; "
                f"`fedaigc device disclosures {self._home.root}` shows what was disclosed\n",
            )
        return False

    def _append(
        self,
        kind: Kind,
        task_id: str,
        prompt: str,
        form: str,
        said: str,
        price: Price,
        *,
        again: bool = False,
    ) -> None:
        text = self._digest(prompt)
        entry = Entry(round(_now_s(), 3), kind, task_id, text, form, said, price.bits, price.epsilon, again)
        line = json.dumps(asdict(entry), sort_keys=True).encode() + b"\n"
        # if another process appended lines as well, the whole ledger is read again
        if self._home.append_line(self.path, line) == self._size:
            self._size += len(line)
            self._note(entry)

    def _digest(self, prompt: str) -> str:
        if self._seed is None:
            self._seed = self._home.seed
        words = " ".join(prompt.casefold().split())
        return hashlib.sha256(f"{self._seed}\x1f{words}".encode(errors="surrogatepass")).hexdigest()[:32]

    def _forget(self) -> None:
        self._size = 0
        self._damaged = 0
        self._entries: list[Entry] = []
        self._answers: dict[tuple[str, str], str] = {}
        self._signatures: dict[str, tuple[str, ...]] = {}
        self._sent: set[tuple[str, str]] = set()
        self._noisy: set[tuple[str, str]] = set()
        self._compared: set[str] = set()

    def _load(self) -> None:
        size = self.path.stat().st_size if self.path.exists() else 0
        if size == self._size:
            return
        self._forget()
        content = self.path.read_bytes() if size else b""
        # text after the last line break was being written when its process ended; it was not sent
        *lines, torn = content.split(b"\n")
        self._size = len(content) - len(torn)
        for line in lines:
            try:
                self._note(typed_json(Entry, line))
            except ValidationError:
                self._damaged += 1

    def _note(self, entry: Entry) -> None:
        self._entries.append(entry)
        if entry.kind == "alone":
            return
        self._sent.add((entry.task_id, entry.said))
        if entry.kind == "equality":
            self._compared.add(entry.task_id)
        if entry.epsilon is not None:
            self._noisy.add((entry.task_id, entry.said))
        if entry.form:
            self._answers.setdefault((entry.text, entry.form), entry.said)
        else:
            known = self._signatures.get(entry.text, ())
            self._signatures[entry.text] = most_disclosed((*known, entry.said))


def total(entries: Sequence[Entry]) -> Price:
    """Return the sums of bits and epsilon of entries; what ran alone counts nothing."""
    counted = [entry for entry in entries if entry.kind != "alone"]
    return Price(sum(entry.bits for entry in counted), sum(entry.epsilon or 0.0 for entry in counted))


def _now_s() -> float:
    return time.time()
