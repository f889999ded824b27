"""What an observer learns of a person whose prompts are alike, after 1, 10 and 100 disclosures; prints JSON.

    python -m experiments.sharing.repetition --record experiments/records/sharing/repetition.json

A person keeps to one object, or to one place, and asks for it with every relation and every place (object) of Scenes
alike. The observer knows all this, the atlas (over half of the captions), the noise, and what each of the 720 prompts
discloses. By Bayes' rule, with all objects (places) equally likely at first,

    P(object | nodes) ~ product over nodes of sum over own nodes of P(node | own node) P(own node | object)

where P(own node | object) is the share of the object's 30 prompts that have the node; for a place, of its 72. Measured
is how often the observer's best guess is right, and the mean probability that it gives to the truth. Intervals are 95
%, bootstrap over objects (places). With noise, every prompt is taken as worded differently, so that each node is a new
draw: a device says the same node again for the same words.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.progress import Progress

import fedaigc
from experiments.quality.sampling import PROGRESS_CONSOLE, one_thread
from experiments.sharing.local_privacy import EPSILONS, response
from experiments.sharing.scenes_atlas import MINIMUM, Labelled, ScenesAtlas, scenes_atlas
from fedaigc.device.limits import OwnerLimits
from fedaigc.metrics.intervals import clustered_mean
from fedaigc.rng import numpy_rng
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.local_privacy import RandomizedNode
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose, signature_bits
from fedaigc.storage.atomic_file import write_json

COUNTS = (1, 10, 100)
MIN_PUBLIC_PROMPTS = 3


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--people", type=int, default=10, help="people for each object and each place")
    parser.add_argument("--parts", type=Path, help="folder that keeps the vectors of captions")
    parser.add_argument("--record", type=Path, required=True)
    options = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory() as folder, Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("captions", total=None)
        found = scenes_atlas(
            options.seed, options.parts or Path(folder), lambda done: progress.update(task, completed=done)
        )
    record = measure(found, options.people, options.seed)
    write_json(options.record, record)
    print(json.dumps(record, indent=1))


def measure(found: ScenesAtlas, people: int, seed: int) -> dict[str, Any]:
    """Return the record."""
    atlas, taxonomy = found.atlas, Taxonomy.load()

    def concepts(caption: Labelled) -> str:
        told = disclose(parse(caption.text, taxonomy), Policy.KIND, taxonomy, MIN_PUBLIC_PROMPTS)
        assert told is not None
        return told.to_json()

    first = disclose(parse(found.public[0].text, taxonomy), Policy.KIND, taxonomy, MIN_PUBLIC_PROMPTS)
    assert first is not None
    said = [concepts(each) for each in found.everything]
    ways = [_row("concepts", None, signature_bits(first, MIN_PUBLIC_PROMPTS, taxonomy), said, None)]

    def nodes(ends: tuple[int, ...]) -> list[str]:
        return [str(next(node for node in atlas.way(vector) if node in ends)) for vector in found.all_vectors]

    ends = atlas.ends(MINIMUM)
    ways.append(_row("node", None, math.log2(len(ends)), nodes(ends), None))
    for epsilon in reversed(EPSILONS):
        drawing = RandomizedNode.of(atlas, MINIMUM, epsilon)
        assert drawing is not None
        table = response(atlas, drawing.nodes, epsilon)
        names = [str(node) for node in drawing.nodes]
        order = sorted(range(len(names)), key=lambda i: names[i])
        ways.append(_row("node", epsilon, drawing.bits, nodes(drawing.nodes), table[np.ix_(order, order)]))
    for way in ways:
        for part in ("object", "place"):
            way[part] = _people(way, part, found, people, seed)
        for name in ("said", "table"):
            del way[name]
    return {
        "what": "what an observer learns of a person whose prompts are alike",
        "fedaigc": fedaigc.__version__,
        "base": found.base,
        "seed": seed,
        "people": people,
        "objects": len({each.object for each in found.public}),
        "places": len({each.place for each in found.public}),
        "rows": ways,
    }


def _row(
    space: str,
    epsilon: float | None,
    bits: float,
    said: Sequence[str],
    table: Float[np.ndarray, "k k"] | None,
) -> dict[str, Any]:
    budget = OwnerLimits().max_bits_a_day
    return {
        "space": space,
        "epsilon": epsilon,
        "bits": bits,
        "prompts a day": int(budget // bits),
        "said": said,
        "table": table,
    }


def _people(
    way: dict[str, Any], part: str, found: ScenesAtlas, people: int, seed: int
) -> dict[str, dict[str, dict[str, float]]]:
    """Return by number of disclosures: how often the best guess is right, and the probability of the truth."""
    answers = sorted(set(way["said"]))
    at = {answer: i for i, answer in enumerate(answers)}
    values = sorted({getattr(each, part) for each in found.everything})
    own = [
        [at[a] for a, each in zip(way["said"], found.everything, strict=True) if getattr(each, part) == value]
        for value in values
    ]
    shares = np.array([np.bincount(each, minlength=len(answers)) / len(each) for each in own])
    noise = np.eye(len(answers)) if way["table"] is None else way["table"]
    assert len(noise) == len(answers)
    with np.errstate(divide="ignore"):
        logs = np.log(shares @ noise)
    guesses: dict[int, list[float]] = {count: [] for count in COUNTS}
    chances: dict[int, list[float]] = {count: [] for count in COUNTS}
    clusters = []
    for truth, value in enumerate(values):
        for person in range(people):
            random = numpy_rng(seed, "person", part, value, person)
            asked = random.integers(len(own[truth]), size=max(COUNTS))
            seen = [int(random.choice(len(answers), p=noise[own[truth][i]])) for i in asked]
            total = logs[:, seen].cumsum(1)
            for count in COUNTS:
                posterior = np.exp(total[:, count - 1] - total[:, count - 1].max())
                posterior /= posterior.sum()
                guesses[count].append(_best(posterior, truth))
                chances[count].append(float(posterior[truth]))
            clusters.append(value)
    return {
        str(count): {
            "guess": clustered_mean(guesses[count], clusters).as_dict(),
            "posterior": clustered_mean(chances[count], clusters).as_dict(),
        }
        for count in COUNTS
    }


def _best(posterior: Float[np.ndarray, " n"], truth: int) -> float:
    """Return the probability that a best guess is the truth; equal ones are guessed alike."""
    best = np.flatnonzero(np.isclose(posterior, posterior.max(), rtol=1e-9))
    return 1 / len(best) if truth in best else 0.0


if __name__ == "__main__":
    main()
