"""A hostile server cannot infer private prompts from the replies to its orders to finish.

The whole attack, the search and the records are in `experiments.privacy.prompt_extraction`. Here they run on a small
model with a few prompts.

At b8a6c4d, `test_bisection_by_overflow_learns_nothing` fails: INSTALL accepted any residual and a plan any
scheduler. A cross-attention that overflows for half of the candidates, with a scheduler that samples tokens from
softmax(model output), ended as `internal` for this half and as `plan_refused` for the other. The tasks continued to
wait, and after about 6 questions each prompt was the only remaining candidate. The other tests use orders in a
format that b8a6c4d did not support.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import RecordDict

from experiments.privacy.extraction import before
from experiments.privacy.extraction.bisection import bisect
from experiments.privacy.extraction.candidates import candidates, text_embeddings
from experiments.privacy.extraction.hostile import overflowing_state
from experiments.privacy.extraction.victim import Victim
from fedaigc.device.replies import Failure
from fedaigc.federation.wire import messages
from fedaigc.federation.wire.messages import Ask, shared_state_record

# every 11th of the plain prompts: 66 of them
CANDIDATES = candidates()[:720:11]
SECRETS = (3, 29, 55)


def test_bisection_by_overflow_learns_nothing(small_model: Path, tmp_path: Path) -> None:
    victim = Victim(
        tmp_path / "home", [CANDIDATES[i] for i in SECRETS], model=str(small_model), reply_floor_s=1e-3
    )
    table = text_embeddings(victim.pipe, CANDIDATES).abs().amax(1).numpy().astype(np.float64)

    if not hasattr(messages, "PLAN"):
        ask = before.overflow_oracle(victim.pipe, victim.agent.base_hash(), victim.send, victim.tasks)
    else:
        ask = _present_oracle(victim)
    found = bisect(table, ask, len(SECRETS), seed=0, max_questions=12)

    assert [len(left) for left in found.remaining] == [len(CANDIDATES)] * len(SECRETS)
    assert found.unanswered == sum(found.orders)


def _present_oracle(victim: Victim) -> Callable[[np.ndarray, Sequence[int]], list[bool | None]]:
    """The same states and schedulers in today's form of an order, where a strategy declares a residual."""
    from experiments.privacy.extraction.orders import Genes, Lab

    lab = Lab(victim.pipe, victim.agent.base_hash(), CANDIDATES)

    def ask(question: np.ndarray, prompts: Sequence[int]) -> list[bool | None]:
        lab.put_question(7, question)
        values = {
            "state": "residual_overflow",
            "question": 7,
            "scheduler": "AmusedScheduler",
            "packet": "odd",
        }
        genes = Genes("overflow", values | {"steps": 1})
        config = victim.config(strategy="full_weights")
        state = overflowing_state(victim.pipe, victim.agent.base_hash(), question)
        victim.ask(Ask.INSTALL, shared_state_record(state), config)
        kinds = [victim.ask(Ask.FINISH, lab.finish(genes, victim.tasks[i]), config).record for i in prompts]
        meaning: dict[Failure | None, bool] = {Failure.INTERNAL: True, Failure.PLAN_REFUSED: False}
        answers = [meaning.get(before.kind_of(reply)) for reply in kinds]
        # told apart by anything else than a kind that was known before? then it is an answer too
        return [index > 0 for index in _numbers(kinds)] if len(set(_numbers(kinds))) > 1 else answers

    return ask


def _numbers(replies: Sequence[RecordDict]) -> list[int]:
    """Return equal numbers for equal replies."""
    texts = [
        repr(sorted((name, sorted(record.items())) for name, record in reply.items())) for reply in replies
    ]
    return [sorted(set(texts)).index(text) for text in texts]


@pytest.fixture(scope="module")
def lab(small_model: Path) -> Any:
    orders = pytest.importorskip("experiments.privacy.extraction.orders")
    from fedaigc.federation.config.run_config import ModelSection
    from fedaigc.federation.preloaded import base_model

    return orders.Lab(*base_model(ModelSection(name=str(small_model))), CANDIDATES)


HOSTILE: tuple[dict[str, Any], ...] = (
    {},
    {"packet": "noise", "step": 1},
    {"state": "overflow", "steps": 1},
    {"state": "replaced", "strategy": "full_weights"},
    {"packet": "odd", "scheduler": "AmusedScheduler", "steps": 1},
    {"packet": "not_a_number", "delivery": "tolerant"},
    {"packet": "scaled", "scale": 1e38},
)


@pytest.mark.slow
def test_no_reply_differs_between_prompts(lab: Any, small_model: Path) -> None:
    """Three times each, over restarts and runs: kind, size, content, and what waits afterwards."""
    from experiments.privacy.extraction.orders import Genes
    from experiments.privacy.extraction.search import observe

    for values in HOSTILE:
        seen = observe(
            lab, Genes("hostile", values), CANDIDATES[:2] + CANDIDATES[-1:], model=str(small_model)
        )
        assert not seen.leaks, values
        assert all(len(row) >= 3 for row in seen.replies), values


def test_the_search_sees_a_planted_leak(lab: Any, small_model: Path) -> None:
    from experiments.privacy.extraction.orders import Genes
    from experiments.privacy.extraction.search import observe, planted_leak

    prompts = ("an apple on a table", "a guitar on a table")
    with planted_leak("guitar"):
        assert observe(lab, Genes("honest"), prompts, model=str(small_model)).leaks


def test_training_keeps_nothing_of_the_prompt_that_was_drawn_before(
    lab: Any, small_model: Path, tmp_path: Path
) -> None:
    from experiments.privacy.extraction.orders import Genes
    from fedaigc.data.scenes import scenes_dataset
    from fedaigc.device.device import Device
    from fedaigc.federation.preloaded import taxonomy
    from fedaigc.federation.wire.messages import train_record
    from fedaigc.rng import numpy_rng
    from fedaigc.strategy.fingerprint import strategy_code
    from fedaigc.strategy.rule import Received

    replies: list[tuple[str, Any]] = []
    for prompt in (CANDIDATES[0], CANDIDATES[-1]):
        home = tmp_path / str(len(replies))
        device = Device(home, lab.pipe, base_hash=lab.base_hash, taxonomy=taxonomy(), seed=1)
        device.add_images(scenes_dataset(2, 0))
        victim = Victim(home, [prompt], model=str(small_model), reply_floor_s=1e-3)
        state = lab.state(Genes("factors", {"state": "random", "amplitude": 0.1}))
        drawn = victim.ask(Ask.FINISH, lab.finish(Genes("honest", {"side": 32}), victim.tasks[0]))
        # a small rate: steps from these factors go far, and count for as many as they are worth
        training = {"local_steps": 2, "personal_steps": 1, "batch_size": 2, "learning_rate": 3e-5}
        config = victim.config(adapter={"rank": 1}, training=training)
        order = train_record(Received(state, 1, {}), "float32", numpy_rng(0, "o"), strategy_code("fedavg"))
        replies.append((drawn.kind, victim.ask(Ask.TRAIN, order, config)))

    assert [kind for kind, _ in replies] == ["done", "done"]
    assert [reply.kind for _, reply in replies] == ["done", "done"]
    assert len(set(_numbers([reply.record for _, reply in replies]))) == 1
