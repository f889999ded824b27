"""Bisection by overflow: questions of a hostile server about prompts that it does not see.

A question is a scale a_j for each coordinate j of a text embedding. A cross-attention with a diagonal of key
weights can be made to overflow for exactly the prompts c with

    max_j a_j M_cj > 1,    M_cj = max_i |e_ij(c)|,    0 <= a_j <= 1

over the tokens i of the prompt: key weights are a_j times the largest float, and every key is one product, so the
order of summation does not matter. The attacker knows M for all candidates. One question goes to all prompts at once:
each answer halves the remaining candidates.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from fedaigc.rng import numpy_rng

Table = Float[np.ndarray, "candidates width"]
Question = Float[np.ndarray, " width"]

# keep candidates this close to the threshold for both answers, since embeddings differ in their last bits
MARGIN = 1e-4
_DIRECTIONS = 120
_THRESHOLDS = 24
_SAMPLE = 400


@dataclass
class Found:
    """The result of the questions.

    Attributes:
        remaining: The remaining candidates of each prompt.
        orders: Number of questions that each prompt answered.
    """

    remaining: list[np.ndarray]
    orders: list[int]
    questions: int = 0
    unanswered: int = 0
    splits: list[float] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the result for JSON."""
        return asdict(self) | {"remaining": [left.tolist() for left in self.remaining]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Found":
        """Invert `as_dict`."""
        return cls(**values | {"remaining": [np.array(left) for left in values["remaining"]]})


def bisect(
    table: Table,
    ask: Callable[[Question, Sequence[int]], Sequence[bool | None]],
    prompts: int,
    *,
    seed: int,
    max_questions: int = 40,
    start: Sequence[np.ndarray] | None = None,
) -> Found:
    """Narrow down the candidates of each prompt by questions.

    Args:
        table: The matrix M.
        ask: Returns the answers of prompts to a question: True for overflow, False for none, None if unknown.
        prompts: Number of prompts.
        seed: Seed of the random questions.
        max_questions: Largest number of questions.
        start: The initial candidates of each prompt. None selects all.
    """
    everything = np.arange(len(table))
    found = Found([everything if start is None else start[i] for i in range(prompts)], [0] * prompts)
    while found.questions < max_questions:
        open_prompts = [i for i in range(prompts) if len(found.remaining[i]) > 1]
        if not open_prompts:
            break
        question, split = best_question(
            table, [found.remaining[i] for i in open_prompts], seed, found.questions
        )
        answers = ask(question, open_prompts)
        found.questions += 1
        found.splits.append(split)
        statistic = (table * question).max(1)
        for prompt, answer in zip(open_prompts, answers, strict=True):
            found.orders[prompt] += 1
            if answer is None:
                found.unanswered += 1
                continue
            left = found.remaining[prompt]
            values = statistic[left]
            kept = values > 1 - MARGIN if answer else values < 1 + MARGIN
            # an empty set means that an answer was wrong, so keep the previous candidates
            if kept.any():
                found.remaining[prompt] = left[kept]
    return found


def best_question(
    table: Table, remaining: Sequence[np.ndarray], seed: int, number: int
) -> tuple[Question, float]:
    """Return the question with the largest mean information among a few hundred random ones, and its bits."""
    random = numpy_rng(seed, "questions", number)
    best, best_bits = np.zeros(table.shape[1]), -1.0
    sets = [
        left if len(left) <= _SAMPLE else random.choice(left, _SAMPLE, replace=False) for left in remaining
    ]
    drawn = np.concatenate(sets)
    owner = np.repeat(np.arange(len(sets)), [len(left) for left in sets])
    sizes = np.bincount(owner, minlength=len(sets))
    for _ in range(_DIRECTIONS):
        chosen = random.random(table.shape[1]) < random.choice([0.02, 0.05, 0.1, 0.2])
        scales = np.where(chosen, random.uniform(0.4, 1, len(chosen)), 0.0)
        values = (table[drawn] * scales).max(1)
        # a weight cannot be larger than the largest float
        usable = values[values > scales.max()] if chosen.any() else np.empty(0)
        for threshold in random.choice(usable, min(_THRESHOLDS, len(usable)), replace=False):
            threshold *= 1 + 3 * MARGIN
            above = np.bincount(owner, values > threshold * (1 + MARGIN), len(sets)) / sizes
            below = np.bincount(owner, values < threshold * (1 - MARGIN), len(sets)) / sizes
            bits = float(_entropy(above, below).mean())
            if bits > best_bits:
                best, best_bits = scales / threshold, bits
    return best, best_bits


def _entropy(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Return the bits of information of an answer, if candidates that are neither above nor below remain for both."""
    both = 1 - above - below
    left_if_above, left_if_below = above + both, below + both
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = -(left_if_above * np.log2(left_if_above) + left_if_below * np.log2(left_if_below))
    return np.nan_to_num(gain)
