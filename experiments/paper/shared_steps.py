"""Pictures at every number of shared steps K = 0 ... N, for pairs at given distances: Figures 5 and 6."""

import argparse
from collections.abc import Sequence

from PIL import Image
from rich.progress import Progress

from experiments.paper.pairs import MODES, Pair, draw_pairs
from experiments.paper.record import Record, Row, columns, new_record
from experiments.paper.setting import Setting, batches, grid, open_setting, scores, starts
from experiments.quality.sampling import PROGRESS_CONSOLE
from fedaigc.diffusion.sampling.segment import finish_segment, run_segment

STEPS = 11

# the first pair of a distance and mode, and its picture at each K
Example = tuple[Pair, list[Image.Image]]


def measured(options: argparse.Namespace, what: str, among: Sequence[str], pictures: str) -> Record:
    """Return the record of a sweep over pairs, and write the grid of its examples.

    Args:
        options: The options of the command.
        what: Description of the measurement for the record.
        among: The distances of the pairs (see `DISTANCES`).
        pictures: File name of the grid, below `options.images` if that is given.
    """
    setting = open_setting(options)
    rows, examples, pairs = _sweep(setting, options, among)
    if options.images is not None:
        names = [f"K = {k}" for k in range(STEPS + 1)]
        grid(_labelled(examples), names, options.images / pictures)
    return new_record(what, options, setting.base_hash, setting.guidance, pairs, rows)


def _sweep(
    setting: Setting, options: argparse.Namespace, among: Sequence[str]
) -> tuple[list[Row], dict[tuple[str, str], Example], dict[str, dict[str, list[str]]]]:
    """Return rows for each distance, mode and K, examples by distance and mode, and the pairs."""
    plan = setting.plan(STEPS)
    rows: list[Row] = []
    examples: dict[tuple[str, str], Example] = {}
    drawn: dict[str, dict[str, list[str]]] = {}
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("pictures", total=len(among) * len(MODES) * options.pairs)
        for distance in among:
            pairs = draw_pairs(options.pairs, options.seed, distance, minimum=options.min_public_prompts)
            drawn[distance] = columns(pairs)
            for mode in MODES:
                pictures: dict[int, list[Image.Image]] = {k: [] for k in range(STEPS + 1)}
                for numbers in batches(len(pairs)):
                    chunk = [pairs[i] for i in numbers]
                    shared = {"prompt": [pair.shared_prompt(mode) for pair in chunk]}
                    own = {"prompt": [pair.own for pair in chunk]}
                    state = starts(setting, plan, numbers, options.seed)
                    for k in range(STEPS + 1):
                        state = run_segment(setting.pipe, state, shared, plan, k)
                        pictures[k] += finish_segment(setting.pipe, state, own, plan)
                    progress.update(task, advance=len(chunk))
                rows += [
                    {
                        "in common": distance,
                        "mode": mode,
                        "K": k,
                        "each": scores(setting, found, pairs),
                    }
                    for k, found in pictures.items()
                ]
                examples[distance, mode] = (pairs[0], [found[0] for found in pictures.values()])
    return rows, examples, drawn


def _labelled(examples: dict[tuple[str, str], Example]) -> list[tuple[str, list[Image.Image]]]:
    """Return the examples as rows of a grid, labelled with the device's prompt and that of the shared steps."""
    return [
        (f"{pair.own}\nfrom {pair.shared_prompt(mode)}", images)
        for (_, mode), (pair, images) in examples.items()
    ]
