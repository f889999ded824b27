"""The extraction against the current code: signatures, and then two of the best known orders per task.

For each task the attacker asks a question that halves the candidates of its signature, by factors that overflow for
one half, and reads everything that is returned: kind and size of the reply, and the step of the ladder of reply times
at which it was sent. It has learned their meaning from its own copy of a device with known prompts, as counts
n(seen | half). The posterior of a candidate c with half h(c) is

    p(c | seen) ~ p(c | signature) (n(seen | h(c)) + 1) / (n(h(c)) + outcomes)

and replies cannot reveal more than the entropy of the signature plus log2 of the number of different outcomes per
attempt.
"""

import math
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict

from experiments.privacy.extraction.bisection import best_question
from experiments.privacy.extraction.candidates import by_signature, candidates, draw_secrets
from experiments.privacy.extraction.orders import Genes, Lab
from experiments.privacy.extraction.outcome import summary
from experiments.privacy.extraction.search import control, search
from experiments.privacy.extraction.victim import Victim
from fedaigc.deployment.agent.reply_time import RATIO
from fedaigc.device.home.prompts import MAX_DEVICE_ATTEMPTS
from fedaigc.device.replies import Failure
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.federation.wire.generation_messages import read_signatures
from fedaigc.federation.wire.messages import Ask, body, failure_in, shared_state_record
from fedaigc.rng import numpy_rng

# known prompts of each half that the attacker draws on its own device
KNOWN = 20
ORDER = Genes("factors that overflow for half of the candidates", {"state": "overflow", "steps": 1})

# sends a state and orders to the device, and returns the observation of each (see `_seen`)
Put = Callable[[RecordDict, Sequence[RecordDict]], Sequence[str]]


@dataclass
class Beliefs:
    """The attacker's final beliefs about each task.

    Attributes:
        indices: The candidates with the signature of the task.
        weights: Their probabilities.
        seen: The outcomes of the orders for the task.
        meaning: How often each outcome was seen for known prompts that overflow ("True") and that do not.
    """

    indices: list[list[int]]
    weights: list[list[float]]
    seen: list[list[str]]
    meaning: dict[str, dict[str, int]]

    def as_dict(self) -> dict[str, Any]:
        """Return the beliefs for JSON."""
        return asdict(self)


def believe(lab: Lab, classes: Sequence[np.ndarray], tasks: Sequence[str], put: Put, known: Put) -> Beliefs:
    """Attack tasks whose candidates are `classes`. `known` is the attacker's own device, with known prompts."""
    meaning: dict[str, dict[str, int]] = {}
    beliefs = Beliefs([left.tolist() for left in classes], [], [[] for _ in tasks], meaning)
    random = numpy_rng(0, "known")
    weights = [np.full(len(left), 1 / len(left)) for left in classes]
    halves = []
    for number, left in enumerate(classes):
        question, _ = _question(lab, left, number)
        lab.put_question(number, question)
        halves.append((lab.table[left] * question).max(1) > 1)
    # a device's outcomes for known prompts, on either side of the first question
    everything = (lab.table * lab.question(0)).max(1) > 1
    for side in (True, False):
        drawn = random.choice(np.flatnonzero(everything == side), KNOWN, replace=False)
        seen = known(*_orders(lab, 0, [lab.prompts[int(index)] for index in drawn]))
        meaning[str(side)] = dict(Counter(seen))
    kinds = {outcome for counts in meaning.values() for outcome in counts}
    for _ in range(MAX_DEVICE_ATTEMPTS):
        for number, task in enumerate(tasks):
            (outcome,) = put(*_orders(lab, number, [task]))
            beliefs.seen[number].append(outcome)
            count = len(kinds | {outcome})
            likely = {
                side: (meaning[str(side)].get(outcome, 0) + 1) / (KNOWN + count) for side in (True, False)
            }
            weights[number] *= np.where(halves[number], likely[True], likely[False])
            weights[number] /= weights[number].sum()
    beliefs.weights = [part.tolist() for part in weights]
    return beliefs


def _question(lab: Lab, left: np.ndarray, number: int) -> tuple[np.ndarray, float]:
    """Return a question that halves these candidates, and for which a device's public probe does not overflow."""
    for seed in range(100 * number, 100 * number + 100):
        question, bits = best_question(lab.table, [left], seed, 1)
        if (lab.probe * question).max() < 0.999:
            return question, bits
    raise LookupError("every question overflows for the probe")


def _orders(lab: Lab, number: int, tasks: Sequence[str]) -> tuple[RecordDict, list[RecordDict]]:
    genes = Genes(ORDER.name, ORDER.values | {"question": number})
    state = lab.state(genes)
    assert state is not None
    return shared_state_record(state), [lab.finish(genes, task) for task in tasks]


def attack_over(
    pipe: Pipeline,
    base_hash: str,
    send: Callable[[Ask, Sequence[RecordDict]], Sequence[RecordDict | Failure]],
    tasks: Sequence[str],
    seed: int,
) -> Beliefs:
    """Attack over a deployment, where only the kind of a reply is visible and the network hides its time."""
    lab = Lab(pipe, base_hash)

    def put(state: RecordDict, orders: Sequence[RecordDict]) -> list[str]:
        send(Ask.INSTALL, [state])
        return [_kind(reply) for reply in send(Ask.FINISH, orders)]

    (told,) = send(Ask.SIGNATURES, [body()])
    assert isinstance(told, RecordDict), "the device did not say what waits"
    signatures = read_signatures(told)[0]
    guess = by_signature(lab.prompts)
    classes = []
    for task in tasks:
        # a task that is not listed under this name has no signature
        disclosed = signatures.get(task)
        text = "" if disclosed is None else disclosed.to_json()
        classes.append(np.flatnonzero(np.array(guess.classes) == guess.names.index(text)))
    with tempfile.TemporaryDirectory(prefix="fa-") as folder:
        own = _OwnDevice(Path(folder), floor_s=1e-3, timed=False)
        return believe(lab, classes, tasks, put, own.known)


class _OwnDevice:
    """The attacker's copy of a device, with known prompts."""

    def __init__(self, folder: Path, floor_s: float, *, timed: bool) -> None:
        self.folder, self.floor_s, self.timed, self.made = folder, floor_s, timed, 0

    def known(self, state: RecordDict, orders: Sequence[RecordDict]) -> list[str]:
        """Return what is seen of orders whose task ids are prompts: each is queued, then drawn."""
        prompts = [str(order.config_records["body"]["task_id"]) for order in orders]
        self.made += 1
        victim = Victim(self.folder / str(self.made), prompts, reply_floor_s=self.floor_s)
        victim.ask(Ask.INSTALL, state)
        found = []
        for order, task in zip(orders, victim.tasks, strict=True):
            order.config_records["body"]["task_id"] = task
            found.append(_seen(victim, order, timed=self.timed))
        return found


def _seen(victim: Victim, order: RecordDict, *, timed: bool) -> str:
    """Return kind, size and time of the reply to an order, all that a server at the agent's own socket would see."""
    reply = victim.ask(Ask.FINISH, order)
    if not timed:
        return reply.kind
    rung = round(math.log(max(reply.seconds / victim.settings.reply_floor_s, 1)) / math.log(RATIO))
    return f"{reply.kind}, {reply.bytes} bytes, rung {rung}"


def _kind(reply: RecordDict | Failure) -> str:
    failed = reply if isinstance(reply, Failure) else failure_in(reply)
    return "done" if failed is None else failed.value


def record_over(found: dict[str, Any], secrets: Sequence[int], seconds: float, way: str) -> dict[str, Any]:
    """Return the record of an attack with this outcome."""
    guess, count = by_signature(candidates()), len(candidates())
    posteriors = []
    for indices, weights in zip(found["indices"], found["weights"], strict=True):
        posterior = np.zeros(count)
        posterior[indices] = weights
        posteriors.append(posterior)
    outcomes = {outcome for row in found["seen"] for outcome in row}
    pairs = Counter(" then ".join(row) for row in found["seen"])
    bits = MAX_DEVICE_ATTEMPTS * math.log2(len(outcomes))
    return {
        "attack": "two orders a task with factors that overflow for half of its signature's candidates",
        "code": "present",
        "way": way,
        "candidates": count,
        "chance_from_signature": guess.chance,
        "signature_bits": guess.bits,
        "bound_bits": guess.bits + bits,
        "bound_bits_from_replies": bits,
        "outcomes": dict(pairs),
        "outcomes_of_known_prompts": found["meaning"],
        **summary(posteriors, secrets, guess),
        "mean_orders_a_prompt": MAX_DEVICE_ATTEMPTS,
        "seconds": round(seconds, 1),
    }


def search_and_extract(folder: Path, count: int, seed: int, rounds: int) -> dict[str, Any]:
    """Search for orders that distinguish prompts, then attack an agent in this process with the best."""
    prompts = candidates()
    secrets = draw_secrets(prompts, count, seed)
    victim = Victim(folder / "home", [prompts[index] for index in secrets])
    lab = Lab(victim.pipe, victim.agent.base_hash())
    began = time.monotonic()
    seen_control = control(lab)
    print(seen_control, flush=True)
    searched = search(lab, rounds, seed, lambda text: print(text, flush=True))
    searched_s = time.monotonic() - began

    def put(state: RecordDict, orders: Sequence[RecordDict]) -> list[str]:
        victim.ask(Ask.INSTALL, state)
        return [_seen(victim, order, timed=True) for order in orders]

    classes_of = np.array(by_signature(prompts).classes)
    classes = [np.flatnonzero(classes_of == classes_of[secret]) for secret in secrets]
    own = _OwnDevice(folder / "own", victim.settings.reply_floor_s, timed=True)
    began = time.monotonic()
    found = believe(Lab(victim.pipe, victim.agent.base_hash()), classes, victim.tasks, put, own.known)
    extraction = record_over(found.as_dict(), secrets, time.monotonic() - began, "an agent in process")
    return {
        "search": searched | {"seconds": round(searched_s, 1)},
        "control": seen_control,
        "extraction": extraction,
    }
