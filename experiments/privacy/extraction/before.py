"""The attack on the earlier code (b8a6c4d), with its format of the order to finish a task.

The earlier code must precede this one on the path (see `experiments.privacy.prompt_extraction`).
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import RecordDict

from experiments.privacy.extraction.bisection import Found, bisect
from experiments.privacy.extraction.candidates import by_signature, candidates, draw_secrets, text_embeddings
from experiments.privacy.extraction.hostile import (
    multinomial_plan,
    odd_latents,
    overflowing_state,
    packet_of,
    plan_text,
)
from experiments.privacy.extraction.outcome import summary, uniform
from experiments.privacy.extraction.victim import Victim
from fedaigc.device.replies import Failure
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.federation.wire.messages import Ask, body, failure_in, shared_state_record

COMMIT = "b8a6c4d"
# sends orders of one kind and returns the replies in the same order; a Failure if there is no reply
Send = Callable[[Ask, Sequence[RecordDict]], Sequence[RecordDict | Failure]]


def overflow_oracle(
    pipe: Pipeline, base_hash: str, send: Send, tasks: Sequence[str]
) -> Callable[[np.ndarray, Sequence[int]], list[bool | None]]:
    """Return a function that asks the earlier code whether the private prompts of these tasks overflow.

    It sends one INSTALL per question and one FINISH per prompt: `internal` means overflow, `plan_refused` means
    none, and after both the task waits for the next order.
    """

    def ask(question: np.ndarray, prompts: Sequence[int]) -> list[bool | None]:
        state = overflowing_state(pipe, base_hash, question)
        send(Ask.INSTALL, [shared_state_record(state)])
        plan = multinomial_plan(pipe, base_hash, state.hash())
        packet = packet_of(plan, odd_latents(pipe))
        orders = [
            body(task_id=tasks[prompt], plan=plan_text(plan), noise_seed=0, packet=packet)
            for prompt in prompts
        ]
        meaning: dict[Failure | None, bool] = {Failure.INTERNAL: True, Failure.PLAN_REFUSED: False}
        return [meaning.get(kind_of(reply)) for reply in send(Ask.FINISH, orders)]

    return ask


def kind_of(reply: RecordDict | Failure) -> Failure | None:
    """Return the kind of failure that a reply is or contains, or None for success."""
    return reply if isinstance(reply, Failure) else failure_in(reply)


def attack(pipe: Pipeline, base_hash: str, send: Send, tasks: Sequence[str], seed: int) -> Found:
    """Bisect the prompts of these tasks, without their signatures."""
    table = text_embeddings(pipe, candidates()).abs().amax(1).numpy().astype(np.float64)
    return bisect(table, overflow_oracle(pipe, base_hash, send, tasks), len(tasks), seed=seed)


def record(found: Found, secrets: Sequence[int], seconds: float, way: str) -> dict[str, Any]:
    """Return the record of an attack with this outcome."""
    prompts = candidates()
    guess, count = by_signature(prompts), len(prompts)
    prior = np.full(count, 1 / count)
    posteriors = [uniform(left, count) for left in found.remaining]
    return {
        "attack": "bisection by overflow in cross-attention",
        "code": COMMIT,
        "way": way,
        "candidates": count,
        "chance": 1 / count,
        "chance_from_signature": guess.chance,
        **summary(posteriors, secrets, guess, prior=prior),
        "mean_orders_a_prompt": float(np.mean(found.orders)),
        "questions": found.questions,
        "unanswered": found.unanswered,
        "seconds": round(seconds, 1),
    }


def record_over(found: dict[str, Any], secrets: Sequence[int], seconds: float, way: str) -> dict[str, Any]:
    """Return the record from the output of the hostile app."""
    return record(Found.from_dict(found), secrets, seconds, way)


def in_process(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Attack an agent in this process."""
    prompts = candidates()
    secrets = draw_secrets(prompts, count, seed)
    victim = Victim(folder / "home", [prompts[index] for index in secrets])
    began = time.monotonic()
    found = attack(victim.pipe, victim.agent.base_hash(), victim.send, victim.tasks, seed)
    return record(found, secrets, time.monotonic() - began, "an agent in process")
