"""A search for hostile orders whose replies differ between private prompts.

For each order, a fresh device has the same few prompts and receives the same messages: the shared state, and then the
order three times for each task (one more than the attempts that a device permits; in between, the agent is restarted
and the run's name changes). Then the waiting tasks are checked. The search observes everything that a server sees
except time: kind, size and content of every reply. An order leaks if any of these differ between two prompts.
(`timing` tests reply times.)

The search draws random orders and mutates those that separate prompts furthest internally. The attacker has the code
and the model, so it knows how different the pictures on its own copy of a device are, and whether one of them is
degenerate.
"""

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from flwr.common.serde import recorddict_to_proto

from experiments.privacy.extraction.orders import CHOICES, Genes, Lab
from experiments.privacy.extraction.victim import Reply, Victim
from fedaigc.device.home.gallery import Gallery
from fedaigc.errors import UserError
from fedaigc.federation.wire.messages import Ask, body, shared_state_record
from fedaigc.rng import numpy_rng

# the prompts to distinguish, close to and far from each other, on both sides of the questions
PROMPTS = (
    "an apple on a table",
    "a shiny apple on a table",
    "a guitar above a river",
    "a dry dog near a bed",
)
ATTEMPTS = 3
_FAST = 1e-3
_PARENTS = 12


@dataclass(frozen=True)
class Seen:
    """The outcome of one order for each prompt.

    Attributes:
        replies: For each prompt, a text per message with kind, size and digest of the content.
        apart: How different the pictures are internally, as the root mean square difference of pixels in [0, 1]. It
            is larger by 10 if the picture of one prompt has a single colour and that of another does not.
        drawn: Number of prompts whose picture was drawn.
    """

    replies: tuple[tuple[str, ...], ...]
    apart: float
    drawn: int

    @property
    def leaks(self) -> bool:
        """Return whether a server can distinguish two of the prompts."""
        return len(set(self.replies)) > 1


def observe(lab: Lab, genes: Genes, prompts: Sequence[str] = PROMPTS, **settings: Any) -> Seen:
    """Send one order to a fresh device that holds these prompts."""
    with tempfile.TemporaryDirectory(prefix="fa-") as folder:
        victim = Victim(Path(folder) / "home", prompts, reply_floor_s=_FAST, **settings)
        replies: list[list[str]] = [[] for _ in prompts]
        for attempt in range(ATTEMPTS):
            try:
                config = victim.config(
                    f"run{attempt}", strategy=genes["strategy"], generation=lab.generation(genes)
                )
            except UserError:
                # a server cannot send a configuration that does not validate
                return Seen(tuple(() for _ in prompts), 0.0, 0)
            state = lab.state(genes)
            told = [] if state is None else [victim.ask(Ask.INSTALL, shared_state_record(state), config)]
            for number, task in enumerate(victim.tasks):
                # a HELLO afterwards shows whether anything remains in memory
                orders = ((Ask.FINISH, lab.finish(genes, task)), (Ask.HELLO, body()))
                replies[number] += [
                    _text(reply) for reply in (*told, *(victim.ask(*order, config) for order in orders))
                ]
            # a server sees which tasks wait, or at least how many
            waiting = victim.agent.open_device().waiting()
            for number, task in enumerate(victim.tasks):
                replies[number].append(f"waits: {task in waiting}")
            victim.open()
        apart, drawn = _inside(victim)
        return Seen(tuple(tuple(row) for row in replies), apart, drawn)


def search(lab: Lab, rounds: int, seed: int, progress: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Try the known orders, each value of each gene alone, and `rounds` random orders."""
    random = numpy_rng(seed, "search")
    tried: list[tuple[Genes, Seen]] = []

    def attempt(genes: Genes) -> None:
        tried.append((genes, observe(lab, genes)))
        if progress is not None:
            progress(f"{len(tried)}: {genes.name} apart {tried[-1][1].apart:.2f} leaks {tried[-1][1].leaks}")

    for genes in known_orders():
        attempt(genes)
    for _ in range(rounds):
        best = sorted(tried, key=lambda entry: -entry[1].apart)[:_PARENTS]
        parent = best[int(random.integers(len(best)))][0]
        attempt(parent.changed(random, int(random.integers(1, 4))))
    leaking = [genes for genes, seen in tried if seen.leaks]
    furthest = max(tried, key=lambda entry: (entry[1].leaks, entry[1].drawn > 0, entry[1].apart))
    return {
        "orders_tried": len(tried),
        "of_them_drawn_at_random": rounds,
        "prompts_told_apart": len(PROMPTS),
        "attempts_each": ATTEMPTS,
        "orders_that_drew_a_picture": sum(seen.drawn > 0 for _, seen in tried),
        "orders_that_drove_prompts_apart_inside": sum(seen.apart > 10 for _, seen in tried),
        "orders_whose_replies_differ": len(leaking),
        "leaking": [_told(genes) for genes in leaking[:20]],
        "different_replies_seen": len({text for _, seen in tried for row in seen.replies for text in row}),
        "furthest": _told(furthest[0]) | {"apart": round(furthest[1].apart, 3)},
    }


def known_orders() -> Iterator[Genes]:
    """Yield known attacks, then every value of every gene by itself, alone and from a packet."""
    overflow = {"state": "overflow", "steps": 1}
    yield Genes("honest alone")
    yield Genes("honest packet", {"packet": "noise"})
    for question in CHOICES["question"]:
        yield Genes("factors that overflow for some prompts", overflow | {"question": question})
        for strategy in ("fedavg", "full_weights"):
            values = {"state": "residual_overflow", "question": question, "strategy": strategy}
            yield Genes("residual that overflows for some prompts", values)
    for scheduler in CHOICES["scheduler"]:
        yield Genes("overflow under a scheduler", overflow | {"scheduler": scheduler, "steps": 2})
        yield Genes("overflow, odd latents", overflow | {"scheduler": scheduler, "packet": "odd"})
    yield Genes("overflow, decoded on the way", overflow | {"strip": (0,)})
    for strategy in CHOICES["strategy"]:
        yield Genes("attention replaced within the bound", {"state": "replaced", "strategy": strategy})
    for packet in ("none", "noise"):
        for gene, choices in CHOICES.items():
            for value in choices[1:]:
                given = {"scale": {"packet": "scaled"}}.get(gene, {"packet": packet})
                yield Genes(f"{gene} by itself", given | {gene: value})


@contextmanager
def planted_leak(word: str = "guitar") -> Iterator[None]:
    """Make devices fail to store pictures of prompts with this word, a leak that a working search must find."""
    save = Gallery.save

    def fails(self: Gallery, entry: Any, image: Any) -> None:
        if word in entry.prompt:
            raise OSError("planted")
        save(self, entry, image)

    with patch.object(Gallery, "save", fails):
        yield


def control(lab: Lab) -> dict[str, Any]:
    """Return which of a few orders leak according to the search, on devices with and without a planted leak."""
    chosen = [
        Genes("honest alone"),
        Genes("honest packet", {"packet": "noise"}),
        Genes("factors that overflow for some prompts", {"state": "overflow", "steps": 1}),
    ]
    with planted_leak():
        planted = sum(observe(lab, genes).leaks for genes in chosen)
    return {
        "orders": len(chosen),
        "leaks_seen_when_planted": planted,
        "leaks_seen": sum(observe(lab, genes).leaks for genes in chosen),
    }


def _text(reply: Reply) -> str:
    digest = hashlib.sha256(recorddict_to_proto(reply.record).SerializeToString(deterministic=True))
    return f"{reply.kind}/{reply.bytes}/{digest.hexdigest()[:16]}"


def _inside(victim: Victim) -> tuple[float, int]:
    """Return how different the pictures of the prompts are, and their number."""
    gallery = victim.agent.open_device().gallery
    pictures = []
    for task in victim.tasks:
        try:
            pictures.append(np.asarray(gallery.image(task), np.float64) / 255)
        except FileNotFoundError:
            continue
    if len(pictures) < 2:
        return 0.0, len(pictures)
    apart = max(float(np.sqrt(((one - pictures[0]) ** 2).mean())) for one in pictures[1:])
    blank = {bool(picture.std() == 0) for picture in pictures}
    return apart + (10.0 if len(blank) > 1 else 0.0), len(pictures)


def _told(genes: Genes) -> dict[str, Any]:
    return {"name": genes.name, "values": json.loads(json.dumps(genes.values, default=str))}
