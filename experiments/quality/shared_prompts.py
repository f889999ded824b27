"""Which prompt should shared steps run on: own, another member's, the group's, the empty one? Prints JSON.

    python -m experiments.quality.shared_prompts --images docs/images \\
        --record experiments/records/shared_prompts.json

For each pair of prompts, the first K steps of N run on each kind of shared prompt, and the remaining steps on the
target's own prompt. The judge decides whether the picture shows the target's object and place. Near pairs have
different objects of the same kind at the same place ("a lemon on a table", "an apple on a table"). Far pairs have
nothing in common. In Figures 5 and 6 of [Du23], K = 5 of 11 steps works for a near pair, 7 is worse, and 9 fails.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from rich.progress import Progress

from experiments.paper.record import Comparison, Record, Row, new_record, report
from experiments.paper.setting import output_arguments
from experiments.quality.sampling import BATCH, PROGRESS_CONSOLE
from experiments.quality.setting import kind_of, open_setting
from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS, RELATIONS, Noun
from fedaigc.diffusion.sampling.segment import DenoisingState, finish_segment, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.rng import derived_seed, numpy_rng
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.grouping import group
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose

HAND_OFFS = (0, 3, 5, 7, 9)
KINDS = ("own", "other", "group", "empty")
DISTANCES = ("near", "far")
COMPARISONS = [
    Comparison(
        {"pairs": distance, "shared prompt": "group", "K": k},
        {"pairs": distance, "shared prompt": kind, "K": k},
        ("both",),
    )
    for distance in DISTANCES
    for kind in ("own", "other", "empty")
    for k in HAND_OFFS[1:]
]


@dataclass(frozen=True)
class Pair:
    """A target, the other member's prompt, and the public prompt of the group of both."""

    distance: str
    object: Noun
    place: Noun
    own: str
    other: str
    group: str

    def shared_prompt(self, kind: str) -> str:
        """Return the prompt that the shared steps of this kind run on."""
        return {"own": self.own, "other": self.other, "group": self.group, "empty": ""}[kind]


def draw_pairs(count: int, seed: int, minimum: int = 3) -> list[Pair]:
    """Draw `count` near and `count` far pairs, with `minimum` as in `experiments.paper.pairs.draw_pairs`."""
    taxonomy = Taxonomy.load()
    random = numpy_rng(seed, "pairs")

    def kind(noun: Noun) -> Noun:
        return kind_of(noun, taxonomy)

    def one(items: Sequence[Noun]) -> Noun:
        return items[int(random.integers(len(items)))]

    def build(distance: str) -> Pair | None:
        target, place = one(OBJECT_NOUNS), one(PLACE_NOUNS)
        relation = RELATIONS[int(random.integers(len(RELATIONS)))]
        if distance == "near":
            siblings = [noun for noun in OBJECT_NOUNS if noun != target and kind(noun) == kind(target)]
            if not siblings:
                return None
            other, other_place = one(siblings), place
        else:
            other = one([noun for noun in OBJECT_NOUNS if kind(noun) != kind(target)])
            other_place = one([noun for noun in PLACE_NOUNS if noun != place])
        own = f"{target.phrase} {relation} {place.phrase}"
        theirs = f"{other.phrase} {relation} {other_place.phrase}"
        signatures = {
            str(i): disclose(parse(text, taxonomy), Policy.KIND, taxonomy, minimum)
            for i, text in enumerate((own, theirs))
        }
        # an unbounded distance groups any two tasks, since far pairs should show the effect
        (both,) = group(signatures, taxonomy, max_distance=float("inf"))
        return Pair(distance, target, place, own, theirs, both.prompt)

    pairs: list[Pair] = []
    for distance in DISTANCES:
        found: list[Pair] = []
        while len(found) < count:
            pair = build(distance)
            if pair is not None and pair not in found:
                found.append(pair)
        pairs += found
    return pairs


def finish_all(
    pipe: object, plan: DenoisingPlan, pairs: Sequence[Pair], seeds: Sequence[int], progress: Progress
) -> dict[tuple[str, int], list[Image.Image]]:
    """Draw one picture per item for each kind and K. The shared steps of a kind run once for all K.

    The solo run, on the target's own prompt in all steps, is the result for K = 0 and for the kind "own".
    """
    pictures: dict[tuple[str, int], list[Image.Image]] = {(kind, k): [] for kind in KINDS for k in HAND_OFFS}
    task = progress.add_task("pictures", total=len(pairs))
    for start in range(0, len(pairs), BATCH):
        chunk, chunk_seeds = pairs[start : start + BATCH], seeds[start : start + BATCH]
        begun = [initial_state(pipe, plan, seed) for seed in chunk_seeds]
        state = replace(begun[0], latents=torch.cat([one.latents for one in begun]))
        own = {"prompt": [pair.own for pair in chunk]}

        def complete(at: DenoisingState, own: dict[str, list[str]] = own) -> list[Image.Image]:
            return finish_segment(pipe, at, own, plan)

        solo = complete(state)
        for kind in KINDS:
            at = state
            for k in HAND_OFFS:
                if k == 0 or kind == "own":
                    pictures[kind, k] += solo
                    continue
                shared = {"prompt": [pair.shared_prompt(kind) for pair in chunk]}
                at = run_segment(pipe, at, shared, plan, k)
                pictures[kind, k] += complete(at)
        progress.update(task, advance=len(chunk))
    return pictures


def plot(rows: Sequence[Row], folder: Path) -> None:
    """Plot the accuracy of object and place against K, near and far, one line per kind of shared prompt."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6.4), sharex=True, sharey=True)
    for column, distance in enumerate(DISTANCES):
        for line, question in enumerate(("object", "place")):
            axis = axes[line][column]
            for number, kind in enumerate(KINDS):
                found = [row for row in rows if row["pairs"] == distance and row["shared prompt"] == kind]
                estimates = [row[question] for row in found]
                middle = [e["mean"] for e in estimates]
                below = [e["mean"] - e["low"] for e in estimates]
                above = [e["high"] - e["mean"] for e in estimates]
                shifted = [row["K"] + 0.12 * (number - 1.5) for row in found]
                axis.errorbar(shifted, middle, [below, above], marker="o", ms=4, capsize=2, label=kind)
            axis.set_title(f"{distance} pairs: target's {question}", fontsize=10)
            axis.grid(alpha=0.3)
            axis.set_xticks(HAND_OFFS)
    for axis in axes[1]:
        axis.set_xlabel("shared steps K of 11")
    for line in axes:
        line[0].set_ylabel("accuracy by the judge")
    axes[0][0].legend(title="shared prompt", fontsize=8)
    figure.tight_layout()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / "shared_prompts.png", dpi=110)
    pyplot.close(figure)


def measure(options: argparse.Namespace) -> Record:
    """Draw every pair from every seed on every kind of shared prompt."""
    setting = open_setting()
    plan = setting.plan
    drawn = draw_pairs(options.pairs, options.seed, options.min_public_prompts)
    pairs = [pair for pair in drawn for _ in range(options.seeds)]
    seeds = [derived_seed(options.seed, "noise", i) for i in range(len(pairs))]
    with Progress(console=PROGRESS_CONSOLE) as progress:
        pictures = finish_all(setting.pipe, plan, pairs, seeds, progress)
    rows: list[Row] = []
    for (kind, k), images in pictures.items():
        verdicts = setting.judge.score(images)
        for distance in DISTANCES:
            chosen = [(v, p) for v, p in zip(verdicts, pairs, strict=True) if p.distance == distance]
            objects = [int(v.object == pair.object.word) for v, pair in chosen]
            places = [int(v.place == pair.place.word) for v, pair in chosen]
            each = {
                "object": objects,
                "place": places,
                "both": [a * b for a, b in zip(objects, places, strict=True)],
            }
            rows.append({"pairs": distance, "shared prompt": kind, "K": k, "each": each})
    record = new_record(
        "the target's object and place after K shared steps, by the judge",
        options,
        plan.base_hash,
        plan.guidance_scale,
        {distance: picture_columns([p for p in pairs if p.distance == distance]) for distance in DISTANCES},
        rows,
    )
    return record | {"seeds a pair": options.seeds, "steps": plan.num_steps}


def picture_columns(pairs: Sequence[Pair]) -> dict[str, list[str]]:
    """Return a list for each field of a pair, with one entry per picture."""
    return {
        "object": [pair.object.word for pair in pairs],
        "place": [pair.place.word for pair in pairs],
        "own": [pair.own for pair in pairs],
        "other": [pair.other for pair in pairs],
        "group": [pair.group for pair in pairs],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=30, help="number of near pairs, and of far pairs")
    parser.add_argument("--seeds", type=int, default=4, help="number of noise seeds per pair")
    parser.add_argument("--seed", type=int, default=0)
    output_arguments(parser)
    report(parser.parse_args(), measure, COMPARISONS, plot)


if __name__ == "__main__":
    main()
