"""Random tasks and damage curves, drawn from a seed; no model is involved.

Vectors are nested: topics, scenes within a topic, prompts within a scene, each level a normal step around the one above
of the stated length. Prompts are asked for with Zipf popularity. The damage curve is

    D(K, d) = .5 (K / K_max)^a (d / 20)^b

with N = 11 and hand-offs at 3, 5, 7 and 9, the lengths in the unit of d.
"""

import numpy as np
from jaxtyping import Float

from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.planners.optimal import candidates
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks
from fedaigc.rng import numpy_rng

STEPS, LADDER = 11, (3, 5, 7, 9)
LENGTHS = (14.0, 7.0, 4.0)  # topics, scenes, prompts
SMALL = range(4, 13)
MOST_CANDIDATES = 2000


def damage_curve(by_steps: float = 1.2, by_distance: float = 0.8) -> DamageCurve:
    """Return the curve with exponents a and b."""
    knots = np.linspace(0, 40, 81)
    share = (np.array(LADDER) / LADDER[-1])[:, None] ** by_steps
    return DamageCurve(STEPS, LADDER, knots, 0.5 * share * (knots / 20) ** by_distance)


def nested(
    random: np.random.Generator, counts: tuple[int, ...], dimensions: int
) -> Float[np.ndarray, "prompts d"]:
    """Return prompts: `counts` nodes on each level below every node of the level above."""
    found = np.zeros((1, dimensions))
    for count, length in zip(counts, LENGTHS, strict=True):
        found = np.repeat(found, count, axis=0)
        found = found + random.normal(0, length / np.sqrt(dimensions), found.shape)
    return found


def popularity(number: int, exponent: float) -> Float[np.ndarray, " n"]:
    """Return Zipf's probabilities of `number` prompts."""
    weights = 1 / np.arange(1, number + 1) ** exponent
    return np.asarray(weights / weights.sum())


def small(seed: int) -> tuple[Tasks, Setting]:
    """Return 4 to 12 tasks of 1 to 3 topics, with a curve and a tolerance of .05, .075, .1 or .15.

    One with more than `MOST_CANDIDATES` sets to choose from is drawn anew: its optimum takes minutes.
    """
    random = numpy_rng(seed, "small instance")
    while True:
        number = int(random.choice(SMALL))
        prompts = random.permutation(nested(random, (int(random.integers(1, 4)), 3, 3), 16))
        chance = popularity(len(prompts), float(random.uniform(0, 1.2)))
        vectors = prompts[random.choice(len(prompts), number, p=chance)]
        # half of the instances have no two equal prompts
        vectors = vectors + random.normal(0, float(random.choice([0.0, 1.5])) / 4, vectors.shape)
        curve = damage_curve(float(random.uniform(1, 2)), float(random.uniform(0.7, 1.2)))
        found = Tasks.of(vectors), Setting(curve, float(random.choice([0.05, 0.075, 0.1, 0.15])))
        if candidates(*found) <= MOST_CANDIDATES:
            return found


def waiting(number: int, seed: int, exponent: float = 1.0) -> Tasks:
    """Return `number` tasks in 64 dimensions, asked for from 1,000 prompts of 5 topics with 5 scenes each."""
    random = numpy_rng(seed, "waiting tasks", number)
    prompts = random.permutation(nested(random, (5, 5, 40), 64))
    return Tasks.of(prompts[random.choice(len(prompts), number, p=popularity(len(prompts), exponent))])


def large(number: int, seed: int, exponent: float = 0.8) -> Tasks:
    """Return `number` tasks in 64 dimensions, asked for from as many prompts as half of them."""
    random = numpy_rng(seed, "large instance", number)
    scenes = max(1, number // 80)
    prompts = nested(random, (max(1, scenes // 8), 8, 40), 64)
    prompts = random.permutation(prompts)[: max(1, number // 2)]
    return Tasks.of(prompts[random.choice(len(prompts), number, p=popularity(len(prompts), exponent))])
