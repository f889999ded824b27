"""What an honest-but-curious server reads from the mean of a group's conditionings; prints JSON.

    python -m experiments.sharing.inversion --record experiments/records/sharing/inversion.json

Rows that --record holds are not computed again.

The server sees the mean, or the noisy mean of `noise`, and knows how it was made, the number n of members and a list of
candidate prompts. Attacks, each with n guesses:

- "nearest": the candidates whose conditionings are nearest to the mean.
- "decomposition": n candidates whose mean is nearest to what the server saw; greedy, then by exchanges of one guess,
  from several starts; also among the captions of the group's node alone.
- "linear": ridge regression from the mean to the number of members with each object, fitted on groups of the list.
- "node": n random candidates of the group's node. It needs no mean: what the disclosed node alone allows.

"listed": the list is the captions of the default atlas, the members among them. "unlisted": half of the captions of
Scenes, the members, are taken off the list; then only their objects can be guessed. A guess counts once for each member
or object that it hits, so the score is the share of members, or of their objects, that are found.
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from rich.progress import Progress

import fedaigc
from experiments.default_atlas.captions import scenes_captions
from experiments.quality.sampling import PROGRESS_CONSOLE, one_thread
from experiments.sharing.groups import LARGEST, MIN_CAPTIONS, common_node
from experiments.sharing.noise import DELTA, Deviations, ShrunkMean, clipped, plain_mean
from fedaigc import assets
from fedaigc.data.scene_words import OBJECTS
from fedaigc.diffusion.encoding import encode_text
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.metrics.intervals import clustered_mean
from fedaigc.rng import numpy_rng
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.shipped import ATLAS
from fedaigc.storage.atomic_file import write_json

SIZES = (2, 3, 4, LARGEST)
EPSILONS = (8.0, 3.0, 1.0)
STARTS, SWEEPS = 4, 6
FITTED, RIDGE = 2000, 1e-2
Rows = Float[np.ndarray, "n values"]
Values = Float[np.ndarray, " values"]


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--groups", type=int, default=200, help="groups of each size")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, required=True)
    options = parser.parse_args()
    one_thread()
    attack = Attack(Atlas.read(assets.path(ATLAS)), options.seed)
    record: dict[str, Any] = {
        "what": "share of members, and of their objects, that are read from the mean of conditionings",
        "fedaigc": fedaigc.__version__,
        "base": attack.base,
        "atlas": attack.atlas.hash,
        "groups": options.groups,
        "candidates": len(attack.captions),
        "delta": DELTA,
        "rows": [],
    }
    before = json.loads(options.record.read_text()) if options.record.is_file() else {"rows": []}
    if before | {"rows": []} == record:
        record = before
    noises = [("none", None), *(("noisy", e) for e in EPSILONS), ("plain noise", EPSILONS[0])]
    todo = [
        (listed, size, shared, epsilon)
        for listed in (True, False)
        for size in SIZES
        for shared, epsilon in noises
        if not any(
            {"listed": listed, "size": size, "noise": shared, "epsilon": epsilon}.items() <= row.items()
            for row in record["rows"]
        )
    ]
    with Progress(console=PROGRESS_CONSOLE) as progress:
        for listed, size, shared, epsilon in progress.track(todo):
            key = {"listed": listed, "size": size, "noise": shared, "epsilon": epsilon}
            found = attack.run(listed, size, shared, epsilon, options.groups)
            record["rows"].append(key | found)
            write_json(options.record, record)
    print(json.dumps(record["rows"], indent=1))


class Attack:
    """The server's knowledge: captions, their conditionings and nodes."""

    def __init__(self, atlas: Atlas, seed: int) -> None:
        pipe = load_pipeline()
        self.atlas, self.seed, self.base = atlas, seed, base_fingerprint(pipe)
        self.captions = list(atlas.captions)
        parts = [
            encode_text(pipe, self.captions[i : i + 64])["prompt_embeds"]
            for i in range(0, len(self.captions), 64)
        ]
        self.rows = torch.cat(parts).float().flatten(1).numpy().astype(float)
        self.empty = encode_text(pipe, [""])["prompt_embeds"].float().flatten().numpy().astype(float)
        scenes = frozenset(scenes_captions())
        self.scenes = np.array([caption in scenes for caption in self.captions])
        half = numpy_rng(seed, "unlisted").random(len(self.captions)) < 0.5
        self.unlisted = self.scenes & half
        self.objects = np.array(
            [[word in caption.replace(",", " ").split() for word in OBJECTS] for caption in self.captions],
            float,
        )

    @cached_property
    def deviations(self) -> Deviations:
        """How public captions deviate from their node's medoid."""
        return Deviations.of(self.atlas, self.rows, MIN_CAPTIONS)

    def run(
        self, listed: bool, size: int, shared: str, epsilon: float | None, groups: int
    ) -> dict[str, dict[str, float]]:
        """Return the score of each attack, with its interval over groups."""
        among = self.scenes if listed else self.unlisted
        candidates = np.flatnonzero(~self.unlisted) if not listed else np.arange(len(self.captions))
        mechanism = None
        if shared == "noisy":
            assert epsilon is not None
            mechanism = ShrunkMean.best(self.deviations, size, epsilon)
        rows = self.rows[candidates]
        gram = rows @ rows.T if mechanism is None else None
        model = self._fitted(candidates, size, mechanism, epsilon) if not listed else None
        scores: dict[str, list[float]] = {}
        for number in range(groups):
            random = numpy_rng(self.seed, "inverted group", listed, size, number)
            members, node = self._group(among, size, random)
            public, seen = self._seen(members, mechanism, epsilon, random)
            features = self._features(self.rows, public, mechanism)
            inside = self._inside(candidates, node)
            least = min(size, len(inside))
            guesses = {
                "nearest": np.argsort(np.linalg.norm(features[candidates] - seen, axis=1), kind="stable")[
                    :size
                ],
                "decomposition": decomposed(features[candidates], seen, size, random, gram),
                "decomposition in the node": inside[
                    decomposed(features[candidates[inside]], seen, least, random)
                ],
                "node": random.permutation(inside)[:size],
            }
            for name, guess in guesses.items():
                scores.setdefault(name, []).append(self._score(members, candidates[guess], listed))
            if model is not None:
                scores.setdefault("linear", []).append(
                    self._objects_found(members, np.r_[seen, 1.0] @ model, size)
                )
        return {name: clustered_mean(values, range(groups)).as_dict() for name, values in scores.items()}

    def _group(
        self, among: np.ndarray, size: int, random: np.random.Generator
    ) -> tuple[Int[np.ndarray, " n"], int]:
        """Return different members of one node, the lowest that has enough, and that node."""
        first = int(random.choice(np.flatnonzero(among)))
        node = self.atlas.way(self.atlas.vectors[first])[-1]
        while len(inside := [row for row in self.atlas.members[node] if among[row]]) < LARGEST:
            node = self.atlas.parents[node]
        others = [row for row in inside if row != first]
        return np.array([first, *random.permutation(others)[: size - 1]]), node

    def _seen(
        self,
        members: Int[np.ndarray, " n"],
        mechanism: ShrunkMean | None,
        epsilon: float | None,
        random: np.random.Generator,
    ) -> tuple[Values, Values]:
        """Return the conditioning of the group's public caption, and what the server sees."""
        rows = self.rows[members]
        public = self.rows[
            self.atlas.medoid(common_node(self.atlas, [self.captions[row] for row in members]))
        ]
        if epsilon is None:
            return public, rows.mean(0)
        if mechanism is None:
            return public, plain_mean(rows, public, self.empty, epsilon, random)
        noise = random.normal(scale=mechanism.std, size=mechanism.rank)
        return public, self._features(rows, public, mechanism).mean(0) + noise

    def _features(self, rows: Rows, public: Values, mechanism: ShrunkMean | None) -> Rows:
        """Return what each of some captions would contribute to what the server sees."""
        if mechanism is None:
            # of members of one node hardly any deviation is clipped
            return rows
        directions = self.deviations.directions[: mechanism.rank]
        return clipped((rows - public) @ directions.T, mechanism.norm)

    def _inside(self, candidates: Int[np.ndarray, " n"], node: int) -> Int[np.ndarray, " m"]:
        """Return the positions of a node's captions among the candidates."""
        return np.flatnonzero(np.isin(candidates, self.atlas.members[node]))

    def _score(self, members: Int[np.ndarray, " n"], guess: Int[np.ndarray, " n"], listed: bool) -> float:
        if listed:
            return len(set(members.tolist()) & set(guess.tolist())) / len(members)
        return _hits(self._words(members), self._words(guess))

    def _words(self, rows: Int[np.ndarray, " n"]) -> list[str]:
        return [OBJECTS[int(each.argmax())] for each in self.objects[rows] if each.any()]

    def _objects_found(self, members: Int[np.ndarray, " n"], counts: Values, size: int) -> float:
        found: list[str] = []
        left = counts.copy()
        for _ in range(size):
            best = int(left.argmax())
            found.append(OBJECTS[best])
            left[best] -= 1
        return _hits(self._words(members), found)

    def _fitted(
        self,
        candidates: Int[np.ndarray, " n"],
        size: int,
        mechanism: ShrunkMean | None,
        epsilon: float | None,
    ) -> Float[np.ndarray, "values objects"]:
        """Return the ridge regression from what the server sees, and 1, to the number of members with each object."""
        listed = np.zeros(len(self.captions), bool)
        listed[candidates] = self.scenes[candidates]
        xs, ys = [], []
        for number in range(FITTED):
            random = numpy_rng(self.seed, "fitted group", size, number)
            members, _ = self._group(listed, size, random)
            xs.append(self._seen(members, mechanism, epsilon, random)[1])
            ys.append(self.objects[members].sum(0))
        x, y = np.c_[np.stack(xs), np.ones(FITTED)], np.stack(ys)
        gram = x.T @ x
        return np.linalg.solve(gram + RIDGE * np.trace(gram) / len(gram) * np.eye(len(gram)), x.T @ y)


def _hits(wanted: Sequence[str], guessed: Sequence[str]) -> float:
    return sum((Counter(wanted) & Counter(guessed)).values()) / len(wanted)


def decomposed(
    features: Rows,
    seen: Values,
    size: int,
    random: np.random.Generator,
    gram: Float[np.ndarray, "n n"] | None = None,
) -> Int[np.ndarray, " size"]:
    """Return different rows of `features` whose mean is near to `seen`: the best of several local searches.

    Args:
        features: What each candidate would contribute.
        seen: The mean of some rows, with noise.
        size: How many.
        random: Draws the starts.
        gram: Products of all rows, if the caller has them.
    """
    products = gram if gram is not None else features @ features.T
    squares, along = np.diagonal(products), features @ seen

    def error(chosen: Int[np.ndarray, " size"]) -> float:
        return float(np.linalg.norm(features[chosen].mean(0) - seen))

    def best_with(others: Int[np.ndarray, " m"]) -> int:
        # |sum of others + f - size seen|^2, without what does not depend on f
        costs = squares + 2 * products[others].sum(0) - 2 * size * along
        costs[others] = np.inf
        return int(costs.argmin())

    found: list[Int[np.ndarray, " size"]] = []
    for start in range(STARTS):
        if start == 0:
            chosen = np.zeros(0, int)
            for _ in range(size):
                chosen = np.append(chosen, best_with(chosen))
        else:
            near = np.argsort(squares - 2 * along, kind="stable")[: 4 * size]
            chosen = random.permutation(near)[:size]
        for _ in range(SWEEPS):
            before = set(chosen.tolist())
            for i in range(size):
                others = np.delete(chosen, i)
                chosen = np.append(others, best_with(others))
            if set(chosen.tolist()) == before:
                break
        found.append(chosen)
    return min(found, key=error)


if __name__ == "__main__":
    main()
