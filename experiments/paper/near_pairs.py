"""Explain why two draws of near pairs differ, for the other member's prompt at K = 5 of 11; prints JSON.

    python -m experiments.paper.near_pairs --record experiments/records/paper/near_pairs.json

Figure 5 draws 100 pairs with one noise sample each, and `experiments.quality.shared_prompts` draws 30 pairs with four.
Both measure whether the judge recognizes the target's object, for objects of one kind at one place, with N = 11 and
guidance 5. This command measures both draws and, in addition, every ordered pair of two objects of one kind, `--each`
times with different places, relations and noise. The rates of these pairs predict the result of each draw from its
objects alone ("expected"). The remaining difference is due to places, relations and noise.
"""

import argparse
from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image
from rich.progress import Progress

from experiments.paper.pairs import Pair, draw_pairs
from experiments.paper.record import Comparison, Record, Row, columns, new_record, report, row_with
from experiments.paper.setting import Setting, arguments, batches, open_setting, scores, starts
from experiments.quality import shared_prompts
from experiments.quality.sampling import PROGRESS_CONSOLE
from experiments.quality.setting import kind_of
from fedaigc.data.scene_words import OBJECT_NOUNS, PLACE_NOUNS, RELATIONS
from fedaigc.diffusion.sampling.segment import finish_segment, run_segment
from fedaigc.rng import numpy_rng
from fedaigc.semantics.concepts.taxonomy import Taxonomy

STEPS, SHARED = 11, 5
FIGURE, PROMPTS, ALL = "figure 5", "shared prompts", "all"
COMPARISONS = [Comparison({"pairs": PROMPTS}, {"pairs": FIGURE}, ("judge", "object"))]


def every_pair(each: int, seed: int) -> list[Pair]:
    """Return every ordered pair of two objects of one kind, `each` times, at random places in random relations."""
    taxonomy, random = Taxonomy.load(), numpy_rng(seed, "every near pair")
    found = []
    for target in OBJECT_NOUNS:
        for other in OBJECT_NOUNS:
            if other == target or kind_of(other, taxonomy) != kind_of(target, taxonomy):
                continue
            for _ in range(each):
                place = PLACE_NOUNS[int(random.integers(len(PLACE_NOUNS)))]
                relation = RELATIONS[int(random.integers(len(RELATIONS)))]
                rest = f"{relation} {place.phrase}"
                own, theirs = f"{target.phrase} {rest}", f"{other.phrase} {rest}"
                # the group's prompt is not used here
                found.append(Pair(target.word, place.word, own, theirs, ""))
    return found


def drawn_pairs(options: argparse.Namespace) -> dict[str, list[Pair]]:
    """Return the pairs of both commands as they draw them, one entry per picture, and every near pair."""
    near = [
        Pair(pair.object.word, pair.place.word, pair.own, pair.other, pair.group)
        for pair in shared_prompts.draw_pairs(30, options.seed)
        if pair.distance == "near"
    ]
    return {
        FIGURE: draw_pairs(options.pairs, options.seed),
        PROMPTS: [pair for pair in near for _ in range(4)],
        ALL: every_pair(options.each, options.seed),
    }


def pictures_of(
    setting: Setting, pairs: Sequence[Pair], seed: int, noise: str, progress: Progress
) -> list[Image.Image]:
    """Draw a picture for each pair, with the first steps on the other member's prompt."""
    plan = setting.plan(STEPS)
    found: list[Image.Image] = []
    task = progress.add_task("pictures", total=len(pairs))
    for numbers in batches(len(pairs)):
        chunk = [pairs[i] for i in numbers]
        state = starts(setting, plan, numbers, seed, noise)
        state = run_segment(setting.pipe, state, {"prompt": [pair.other for pair in chunk]}, plan, SHARED)
        found += finish_segment(setting.pipe, state, {"prompt": [pair.own for pair in chunk]}, plan)
        progress.update(task, advance=len(chunk))
    return found


def measure(options: argparse.Namespace) -> Record:
    """Draw and score all three sets."""
    setting = open_setting(options)
    sets = drawn_pairs(options)
    rows: list[Row] = []
    with Progress(console=PROGRESS_CONSOLE) as progress:
        for name, pairs in sets.items():
            # both commands give picture i noise number i
            noise = "noise" if name != ALL else "noise of every pair"
            images = pictures_of(setting, pairs, options.seed, noise, progress)
            rows.append({"pairs": name, "each": scores(setting, images, pairs)})
    return new_record(
        "two draws of near pairs, and all of them: the target's object, K = 5 on the other member's prompt",
        options,
        setting.base_hash,
        setting.guidance,
        {name: columns(pairs) for name, pairs in sets.items()},
        rows,
    ) | {"pictures of every pair": options.each}


def add_expected(record: Record) -> None:
    """Add to each row the share expected from its objects' rates among all pairs; add the rates by object.

    Without the judge's outcomes nothing is added.
    """
    whole = row_with(record["rows"], {"pairs": ALL})
    if not whole["each"]["judge"]:
        return
    seen = whole["each"]["judge"]["object"]
    names = object_pairs(record["prompt pairs"][ALL])
    rates: dict[tuple[str, str], list[int]] = defaultdict(list)
    for name, outcome in zip(names, seen, strict=True):
        rates[name].append(outcome)
    by_object: dict[str, list[int]] = defaultdict(list)
    for (target, _), outcomes in rates.items():
        by_object[target] += outcomes
    record["share by target object, of all pairs"] = {
        word: round(float(np.mean(outcomes)), 3) for word, outcomes in by_object.items()
    }
    for row in record["rows"]:
        drawn = object_pairs(record["prompt pairs"][row["pairs"]])
        row["expected of these objects"] = round(float(np.mean([np.mean(rates[name]) for name in drawn])), 4)


def object_pairs(pairs: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """Return target and other object of each picture, from the second word of each prompt."""
    return [
        (own.split()[1], other.split()[1]) for own, other in zip(pairs["own"], pairs["other"], strict=True)
    ]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument(
        "--each", type=int, default=4, help="number of pictures of each ordered pair of objects"
    )
    report(parser.parse_args(), measure, COMPARISONS, derive=add_expected)


if __name__ == "__main__":
    main()
