"""What variants save in a window of a stream, and what the judge finds in its pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.planner.equal.oracle import told_by_judge
from experiments.planner.equal.variants import Variant
from experiments.planner.judged import row_of, setting_of
from experiments.planner.pictures import STEPS, Pictures, ways_of
from experiments.streams.popular import WINDOW, stream, targets
from fedaigc.planning.check import check_plan
from fedaigc.planning.planners.alone import Alone
from fedaigc.planning.planners.greedy_tree import GreedyTree
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks
from fedaigc.rng import derived_seed
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, phi

ALONE = Variant("none", "", 0.0, Alone())
ORACLE = "oracle"
ORACLE_RISK = 0.5

Row = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Studio:
    """Model, judge, and what planners are given.

    Attributes:
        pictures: Draws and judges.
        setting: Curve, machines and link; each variant brings its risk.
        vectors: Vector of each prompt of the streams.
    """

    pictures: Pictures
    setting: Setting
    vectors: Mapping[str, Float[np.ndarray, " d"]]

    @classmethod
    def open(cls, seeds: Iterable[int], windows: int) -> "Studio":
        """Load model and judge, and compute the vectors of the first windows of some streams."""
        pictures = Pictures.open()
        texts = sorted({text for seed in seeds for text in stream(seed)[: windows * WINDOW]})
        vectors = phi(pictures.pipe, DenoiserSpace.of(pictures.plan), texts)
        return cls(pictures, setting_of(pictures), dict(zip(texts, vectors, strict=True)))

    def draw(self, seed: int, window: int, variants: Sequence[Variant], *, oracle: bool) -> list[Row]:
        """Return the rows of variants, in one window: each way of theirs is drawn once.

        Args:
            seed: The stream.
            window: The window.
            variants: The variants.
            oracle: Whether the oracle is asked too, in the trees of `greedy_tree` at the risk `ORACLE_RISK`.

        Raises:
            RuntimeError: If a plan does not keep its promises.
        """
        prompts = stream(seed)[window * WINDOW : (window + 1) * WINDOW]
        tasks = Tasks.of(np.array([self.vectors[text] for text in prompts], dtype=float))
        noises = [derived_seed(seed, "judged", window, row) % 2**32 for row in range(len(prompts))]
        settings = [replace(self.setting, tolerance=each.risk) for each in variants]
        plans = [each.planner(tasks, setting) for each, setting in zip(variants, settings, strict=True)]
        for each, plan, setting in zip(variants, plans, settings, strict=True):
            if faults := check_plan(plan, tasks, setting):
                raise RuntimeError(f"stream {seed}, window {window}, {each.key}: {faults}")
        ways = [ways_of(plan, tasks, prompts, noises, STEPS) for plan in plans]
        if oracle:
            alone = ways_of(ALONE.planner(tasks, self.setting), tasks, prompts, noises, STEPS)
            ways.append(alone)
        seen = self.pictures.verdicts(way for each in ways for way in each)
        rows = [
            {"variant": each.key}
            | row_of(each.name, plan, tasks, setting, [seen[way] for way in mine], prompts)
            for each, plan, setting, mine in zip(variants, plans, settings, ways, strict=False)
        ]
        if oracle:
            setting = replace(self.setting, tolerance=ORACLE_RISK)
            trees = GreedyTree()(tasks, setting)
            told, found = told_by_judge(
                self.pictures,
                ways_of(trees, tasks, prompts, noises, STEPS),
                trees,
                prompts,
                [targets()[text] for text in prompts],
                [seen[way] for way in alone],
            )
            rows.append({"variant": ORACLE} | row_of(ORACLE, told, tasks, setting, found, prompts))
        return [{"seed": seed, "window": window} | row for row in rows]
