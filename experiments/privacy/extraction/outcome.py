"""The outcome of an extraction as numbers for a record."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.privacy.extraction.candidates import Guess
from fedaigc.metrics.intervals import proportion


def summary(
    posteriors: Sequence[np.ndarray], secrets: Sequence[int], guess: Guess, *, prior: np.ndarray | None = None
) -> dict[str, Any]:
    """Return what the attacker finally knows of each private prompt, compared with what its signature reveals.

    A prompt is `identified` if it alone is the most probable one. A tie is a guess among the tied candidates, and is
    counted by its share in `expected`.

    Args:
        posteriors: For each prompt, the probabilities of all candidates.
        secrets: Indices of the true prompts.
        guess: The result of the signature alone.
        prior: Probabilities of the candidates before any reply. None is uniform over the candidates with the
            signature of the true prompt.
    """
    classes = np.array(guess.classes)
    hits, expected, ranks, gained = [], [], [], []
    for posterior, secret in zip(posteriors, secrets, strict=True):
        top = np.flatnonzero(posterior >= posterior.max() * (1 - 1e-9))
        hits.append(len(top) == 1 and int(top[0]) == secret)
        expected.append(1 / len(top) if secret in top else 0.0)
        better = int((posterior > posterior[secret] * (1 + 1e-9)).sum())
        tied = int((np.abs(posterior - posterior[secret]) <= posterior[secret] * 1e-9).sum())
        ranks.append(better + (tied + 1) / 2)
        before = 1 / int((classes == classes[secret]).sum()) if prior is None else float(prior[secret])
        gained.append(float(np.log2(max(posterior[secret], 1e-12) / before)))
    return {
        "prompts": len(secrets),
        "identified": sum(hits),
        "share": proportion(hits).as_dict(),
        "expected_share_with_ties_guessed": float(np.mean(expected)),
        "mean_rank_of_true_prompt": float(np.mean(ranks)),
        "mean_bits_from_replies": float(np.mean(gained)),
        "bits_from_replies": [round(bits, 3) for bits in gained],
    }


def uniform(chosen: np.ndarray, count: int) -> np.ndarray:
    """Return equal probabilities for the chosen candidates, and zero for the others of `count`."""
    found = np.zeros(count)
    found[chosen] = 1 / len(chosen)
    return found
