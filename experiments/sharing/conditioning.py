"""What a group's shared steps should run on: the judge on one member's picture; prints JSON.

    python -m experiments.sharing.conditioning --record experiments/records/sharing/conditioning.json
    python -m experiments.sharing.conditioning --record ... --recompute     # statistics only

Groups of 8 are drawn in two ways (`groups`); groups of 2, 3 and 4 are their first members, so that sizes compare on
the same targets. The first member alone finishes, from the noise of its group, under N = 11 and guidance 5; every
group has another noise, the same for all rows. The first K steps run on

- "public": the medoid of the deepest node of the default atlas that holds all members,
- "mean": the mean of the members' conditionings,
- "others": the mean of all but the first member's: what a mean is worth to a member without its own share,
- "noisy", "plain noise": the same with Gaussian noise (`noise`),
- "member": the second member's prompt,
- "concepts": the general words of the knowledge graph, with the first member's relation and place,
- "empty": the empty prompt.

The judge says whether object and place of the first member are there. One picture a group, so intervals are over
groups. Cells that --record holds are not run again, so an interrupted command can be repeated.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

import fedaigc
from experiments.quality.sampling import PROGRESS_CONSOLE
from experiments.quality.setting import Setting, open_setting
from experiments.sharing.groups import (
    KIND,
    LARGEST,
    MIN_CAPTIONS,
    NODE,
    PromptGroup,
    common_node,
    draw_groups,
)
from experiments.sharing.noise import DELTA, Deviations, ShrunkMean, plain_mean
from fedaigc import assets
from fedaigc.diffusion.encoding import encode_text
from fedaigc.diffusion.sampling.segment import decode, initial_state, run_segment
from fedaigc.metrics.intervals import clustered_share, paired_difference
from fedaigc.rng import derived_seed, numpy_rng
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.shipped import ATLAS
from fedaigc.storage.atomic_file import write_json

HANDOFFS, LATER, MIDDLE = (3, 6, 9), (6, 9), (6,)
EPSILONS = (1.0, 3.0, 8.0)
BATCH = 34


@dataclass(frozen=True)
class Cell:
    """A row of the table: what the shared steps of groups of a size run on. Size 0: it does not depend on it."""

    groups: str
    shared: str
    size: int = 0
    epsilon: float | None = None


def cells() -> Iterator[Cell]:
    """Return all cells, in the order in which they are run."""
    for how in (NODE, KIND):
        yield Cell(how, "alone")
        yield Cell(how, "member")
        yield Cell(how, "mean", 4)
        yield Cell(how, "public", 4)
    yield Cell(NODE, "mean", LARGEST)
    yield Cell(NODE, "public", LARGEST)
    yield Cell(NODE, "others", 4)
    for epsilon in EPSILONS[::-1]:
        yield Cell(NODE, "noisy", LARGEST, epsilon)
    yield Cell(NODE, "plain noise", LARGEST, EPSILONS[-1])
    yield Cell(NODE, "mean", 2)
    yield Cell(NODE, "public", 2)
    yield Cell(KIND, "mean", LARGEST)
    yield Cell(KIND, "mean", 2)
    yield Cell(KIND, "public", 2)
    yield Cell(KIND, "concepts")
    yield Cell(NODE, "empty")
    yield Cell(NODE, "mean", 3)
    yield Cell(NODE, "public", 3)
    yield Cell(KIND, "public", LARGEST)
    yield Cell(KIND, "mean", 3)
    yield Cell(KIND, "public", 3)


def handoffs_of(cell: Cell) -> tuple[int, ...]:
    """Return the hand-offs that a cell is run at: all for groups of four, where time is short fewer."""
    if cell.shared == "alone":
        return (0,)
    if cell.shared in ("public", "mean", "others"):
        return HANDOFFS if (cell.shared, cell.size) in (("public", 4), ("mean", 4)) else LATER
    return HANDOFFS if cell.shared == "member" else MIDDLE


def main() -> None:
    """Measure, and print the summary."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--groups", type=int, default=100, help="groups of each way of drawing them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, required=True)
    parser.add_argument("--recompute", action="store_true", help="statistics only")
    options = parser.parse_args()
    record = json.loads(options.record.read_text()) if options.record.is_file() else None
    if not options.recompute:
        record = measure(options, record)
    if record is None:
        parser.error(f"no record {options.record}")
    summarise(record)
    write_json(options.record, record)
    print(json.dumps(record["summary"], indent=1))


def measure(options: argparse.Namespace, record: dict[str, Any] | None) -> dict[str, Any]:
    """Run the cells that the record does not have yet; it is written after each."""
    setting, atlas = open_setting(), Atlas.read(assets.path(ATLAS))
    drawn = {how: draw_groups(how, atlas, options.groups, options.seed) for how in (KIND, NODE)}
    told = {how: [asdict(group) | {"members": list(group.members)} for group in drawn[how]] for how in drawn}
    if record is None or record["groups"] != told or record["base"] != setting.plan.base_hash:
        record = {
            "what": "object and place of one member's picture, by what the group's shared steps ran on",
            "fedaigc": fedaigc.__version__,
            "torch": torch.__version__,
            "base": setting.plan.base_hash,
            "atlas": atlas.hash,
            "seed": options.seed,
            "delta": DELTA,
            "groups": told,
            "cells": [],
        }
    record["atlas"] = atlas.hash
    study = Study(setting, atlas)
    with Progress(console=PROGRESS_CONSOLE) as progress:
        whole = progress.add_task("cells", total=len(list(cells())))
        for cell in cells():
            if not any(asdict(cell).items() <= done.items() for done in record["cells"]):
                record["cells"].append(asdict(cell) | study.run(cell, drawn[cell.groups], options.seed))
                write_json(options.record, record)
            progress.advance(whole)
    return record


class Study:
    """The model, and the conditionings of the atlas's captions."""

    def __init__(self, setting: Setting, atlas: Atlas) -> None:
        self.setting, self.atlas = setting, atlas
        captions = atlas.captions
        self.shape = self._encoded([""]).shape[1:]
        chunks = [self._encoded(captions[i : i + 64]).flatten(1) for i in range(0, len(captions), 64)]
        rows = torch.cat(chunks).numpy()
        self.known = dict(zip(captions, rows, strict=True))
        self.rows = rows
        self.empty = self._encoded([""]).flatten().numpy()

    @cached_property
    def deviations(self) -> Deviations:
        """How public captions deviate from their node's medoid."""
        return Deviations.of(self.atlas, self.rows, MIN_CAPTIONS)

    def _encoded(self, prompts: Sequence[str]) -> Tensor:
        return encode_text(self.setting.pipe, list(prompts))["prompt_embeds"].float()

    def run(self, cell: Cell, groups: Sequence[PromptGroup], seed: int) -> dict[str, Any]:
        """Return what is known of a cell: by K, object and place seen (one digit a group)."""
        pipe, plan = self.setting.pipe, self.setting.plan
        told, given = self.conditionings(cell, groups, seed)
        handoffs = handoffs_of(cell)
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(groups), BATCH):
            rows = range(start, min(start + BATCH, len(groups)))
            chunk = [groups[i] for i in rows]
            own = {"prompt": [group.members[0] for group in chunk]}
            begun = [initial_state(pipe, plan, derived_seed(seed, "noise", i)) for i in rows]
            state = replace(begun[0], latents=torch.cat([one.latents for one in begun]))
            for k in handoffs:
                if given is not None:
                    shared = {"prompt_embeds": given[start : rows.stop]}
                    state = run_segment(pipe, state, shared, plan, k)
                final = run_segment(pipe, state, own, plan, plan.num_steps)
                verdicts = self.setting.judge.score(decode(pipe, final, plan))
                into = found.setdefault(str(k), {"object": "", "place": ""})
                for verdict, group in zip(verdicts, chunk, strict=True):
                    into["object"] += str(int(verdict.object == group.object))
                    into["place"] += str(int(verdict.place == group.place))
        return {"K": found, **told}

    def conditionings(
        self, cell: Cell, groups: Sequence[PromptGroup], seed: int
    ) -> tuple[dict[str, Any], Tensor | None]:
        """Return what a record should say of a cell, and each group's shared conditioning; None: no shared steps."""
        if cell.shared == "alone":
            return {}, None
        members = [group.members[: cell.size] for group in groups]
        if cell.shared in ("empty", "member", "concepts"):
            prompts = {
                "empty": ["" for _ in groups],
                "member": [group.members[1] for group in groups],
                "concepts": [general(group) for group in groups],
            }[cell.shared]
            return {}, self._encoded(prompts)
        rows = [np.stack([self.known[prompt] for prompt in each]) for each in members]
        if cell.shared == "mean":
            return {}, self._tensor([each.mean(0) for each in rows])
        if cell.shared == "others":
            return {}, self._tensor([each[1:].mean(0) for each in rows])
        medoids = [self.atlas.captions[self.atlas.medoid(common_node(self.atlas, each))] for each in members]
        if cell.shared == "public":
            return {"captions": medoids}, self._tensor([self.known[caption] for caption in medoids])
        assert cell.epsilon is not None
        randoms = [numpy_rng(seed, "noise of the mean", i) for i in range(len(groups))]
        if cell.shared == "plain noise":
            noisy = [
                plain_mean(each, self.known[caption], self.empty, cell.epsilon, random)
                for each, caption, random in zip(rows, medoids, randoms, strict=True)
            ]
            return {}, self._tensor(noisy)
        mechanism = ShrunkMean.best(self.deviations, cell.size, cell.epsilon)
        noisy = [
            mechanism(each, self.known[caption], self.deviations, random)
            for each, caption, random in zip(rows, medoids, randoms, strict=True)
        ]
        kept = {"directions": mechanism.rank, "clipping norm": round(mechanism.norm, 3)}
        return kept | {"missed": round(mechanism.left, 4)}, self._tensor(noisy)

    def _tensor(self, rows: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(rows).astype(np.float32)).reshape(len(rows), *self.shape)


def general(group: PromptGroup) -> str:
    """Return the first member's prompt with the general word of its object."""
    from fedaigc.data.scene_words import GENERAL_OBJECT_NOUNS

    noun = next(noun for noun in GENERAL_OBJECT_NOUNS if noun.word == group.kind)
    _, relation, article, place = group.members[0].rsplit(" ", 3)
    return f"{noun.phrase} {relation} {article} {place}"


def summarise(record: dict[str, Any]) -> None:
    """Compute shares, and what the mean gains over the public caption and over another member's prompt."""

    def seen(cell: dict[str, Any], k: str, what: str) -> list[bool]:
        values = cell["K"][k]
        both = zip(values["object"], values["place"], strict=True)
        return [a + b == "11" for a, b in both] if what == "both" else [v == "1" for v in values[what]]

    record["summary"] = []
    by_name = {
        tuple(cell[name] for name in ("groups", "shared", "size", "epsilon")): cell
        for cell in record["cells"]
    }
    for (how, shared, size, epsilon), cell in by_name.items():
        row: dict[str, Any] = {"groups": how, "shared": shared, "size": size, "epsilon": epsilon, "K": {}}
        for k in cell["K"]:
            names = range(len(record["groups"][how]))
            row["K"][k] = {
                what: clustered_share(seen(cell, k, what), names).as_dict()
                for what in ("object", "place", "both")
            }
            for other in (("public", size, None), ("mean", size, None), ("member", 0, None)):
                against = by_name.get((how, *other))
                if against is None or against is cell or k not in against["K"]:
                    continue
                one, two = (list(map(float, seen(each, k, "both"))) for each in (cell, against))
                row["K"][k][f"minus {other[0]}"] = paired_difference(one, two, names).as_dict()
        row["mean of both"] = round(fmean(row["K"][k]["both"]["mean"] for k in cell["K"]), 4)
        record["summary"].append(row)


if __name__ == "__main__":
    main()
