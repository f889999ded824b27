"""The common parts of the figures: options, model and plan, drawing in batches, scores, plots."""

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from experiments.paper.pairs import Pair
from experiments.paper.record import CLIP_SCORE
from experiments.quality.sampling import BATCH, one_thread
from fedaigc.data.scene_words import OBJECT_NOUNS
from fedaigc.diffusion.loading import EMBEDDED, SHIPPED, base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.segment import DenoisingState, initial_state
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import UserError
from fedaigc.metrics.image_quality import image_quality
from fedaigc.metrics.judge import Judge
from fedaigc.metrics.perceptual import CLIP, ClipScore
from fedaigc.rng import derived_seed


@dataclass(frozen=True)
class Setting:
    """The model, and what scores its pictures.

    Attributes:
        judge: The judge of Scenes; None for pictures that it cannot read, or if it is not asked.
        clip: CLIP; None if it is not asked.
    """

    pipe: Any
    base_hash: str
    guidance: float
    size: int
    judge: Judge | None
    clip: ClipScore | None = None

    def plan(self, steps: int) -> DenoisingPlan:
        """Return a plan of N = `steps` with the model's own scheduler."""
        return build_plan(
            self.pipe,
            num_inference_steps=steps,
            guidance_scale=self.guidance,
            height=self.size,
            width=self.size,
            base_hash=self.base_hash,
        )


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """Return the parser with the options of every figure."""
    parser = argparse.ArgumentParser(description=(doc or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default=EMBEDDED, help='"embedded", a diffusers folder or a hub name')
    parser.add_argument(
        "--size", type=int, help="image size in pixels; default: 64 for the embedded model, else 512"
    )
    parser.add_argument(
        "--guidance",
        type=float,
        help="guidance scale; default: 5 for the embedded model, else 7.5 as in the paper",
    )
    parser.add_argument(
        "--scorer",
        choices=("judge", "clip", "none"),
        help="what scores the pictures; default: the judge for the embedded model, else none",
    )
    parser.add_argument("--clip", help="folder of a CLIP model, or its hub name in the local cache")
    output_arguments(parser)
    return parser


def output_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the group's prompt, of the outputs, and of recomputing from a record."""
    parser.add_argument(
        "--min-public-prompts",
        type=int,
        default=3,
        choices=range(1, len(OBJECT_NOUNS) + 1),
        metavar="M",
        help="number of objects of Scenes that must produce a word of the group's prompt, as on devices",
    )
    parser.add_argument("--record", type=Path, help="also write the figures to this file, as JSON")
    parser.add_argument("--images", type=Path, help="folder for the picture grid and the curves")
    parser.add_argument(
        "--recompute",
        action="store_true",
        help="draw no pictures: read --record, recompute intervals, comparisons and curves, and write it",
    )


def open_setting(options: argparse.Namespace) -> Setting:
    """Load the model and what scores its pictures, and use one thread.

    Raises:
        UserError: If the weights of CLIP are missing, or --clip is given for another scorer.
    """
    one_thread()
    embedded = options.model in SHIPPED
    scorer = options.scorer or ("judge" if embedded else "none")
    if options.clip is not None and scorer != "clip":
        raise UserError("--clip names a model that no scorer uses: add --scorer clip")
    # first: nothing is drawn if its weights are missing
    clip = ClipScore.load(options.clip or CLIP) if scorer == "clip" else None
    pipe = load_pipeline(options.model)
    return Setting(
        pipe,
        base_fingerprint(pipe),
        options.guidance if options.guidance is not None else (5.0 if embedded else 7.5),
        options.size or (64 if embedded else 512),
        Judge.load() if scorer == "judge" else None,
        clip,
    )


def batches(count: int) -> Iterator[range]:
    """Return the row numbers, one batch at a time."""
    for start in range(0, count, BATCH):
        yield range(start, min(start + BATCH, count))


def starts(
    setting: Setting, plan: DenoisingPlan, rows: Sequence[int], seed: int, name: str = "noise"
) -> DenoisingState:
    """Return the initial states of pairs: each has its own noise, independent of the rest of the batch."""
    begun = [initial_state(setting.pipe, plan, derived_seed(seed, name, row)) for row in rows]
    return replace(begun[0], latents=torch.cat([one.latents for one in begun]))


def scores(setting: Setting, images: Sequence[Image.Image], pairs: Sequence[Pair]) -> dict[str, Any]:
    """Return what is known of each picture: whether the judge sees object and place of the target, the CLIP score.

    The CLIP score is that of the picture and the target's own prompt.
    """
    found: dict[str, Any] = {"judge": {}}
    if setting.judge is not None:
        verdicts = setting.judge.score(images)
        found["judge"] = {
            "object": [int(v.object == p.object) for v, p in zip(verdicts, pairs, strict=True)],
            "place": [int(v.place == p.place) for v, p in zip(verdicts, pairs, strict=True)],
        }
    if setting.clip is not None:
        found[CLIP_SCORE] = setting.clip.score(images, [pair.own for pair in pairs])
    return found


def distances(images: Sequence[Image.Image], references: Sequence[Image.Image]) -> dict[str, list[float]]:
    """Return for each picture the mean squared error in 8-bit pixels and the SSIM against its reference."""
    found = image_quality(images, references)
    return {
        "mse": [round(float(q.mse) * 255**2, 3) for q in found],
        "ssim": [round(float(q.ssim), 5) for q in found],
    }


def grid(rows: Sequence[tuple[str, Sequence[Image.Image]]], columns: Sequence[str], target: Path) -> None:
    """Write a labelled grid of pictures."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(1.05 * len(columns) + 1.6, 1.1 * len(rows) + 0.3), squeeze=False
    )
    for line, (label, images) in zip(axes, rows, strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.imshow(image, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name, fontsize=8)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout(pad=0.3)
    figure.savefig(target, dpi=110, bbox_inches="tight")
    plt.close(figure)


SHARES = (
    "share of pictures",
    "the target's object",
    "the target's place",
    "target object seen",
    "object seen",
    "SSIM",
)


# title, y label, {curve: [(x, estimate), ...]}
Panel = tuple[str, str, dict[str, list[tuple[float, dict[str, float]]]]]


def curves(
    panels: Sequence[Panel],
    xlabel: str,
    target: Path,
) -> None:
    """Plot the panels, each with its 95 % intervals."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.transforms import ScaledTranslation

    most = max(len(lines) for _, _, lines in panels)
    size = (4.2 * len(panels), 3.3 + 0.09 * most)
    figure, axes = plt.subplots(1, len(panels), figsize=size, squeeze=False)
    for axis, (title, ylabel, lines) in zip(axes[0], panels, strict=True):
        for (name, points), marker in zip(lines.items(), cycle("os^vDPX*"), strict=False):
            x = [point[0] for point in points]
            y = [point[1]["mean"] for point in points]
            low = [max(0.0, point[1]["mean"] - point[1]["low"]) for point in points]
            high = [max(0.0, point[1]["high"] - point[1]["mean"]) for point in points]
            axis.errorbar(x, y, [low, high], marker=marker, ms=4, lw=1, capsize=2, label=name)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel(xlabel)
        axis.set_ylabel(ylabel)
        axis.grid(alpha=0.3)
        if any(lines):
            # below the axis: a legend inside would hide some of many curves
            under = axis.transAxes + ScaledTranslation(0, -0.42, figure.dpi_scale_trans)
            axis.legend(
                fontsize=7,
                ncols=2,
                loc="upper center",
                bbox_to_anchor=(0.5, 0),
                bbox_transform=under,
                frameon=False,
            )
        values = [point[1]["high"] for points in lines.values() for point in points]
        # shares and similarities range from 0 to 1, so that panels are comparable and a flat line looks flat
        if ylabel in SHARES:
            axis.set_ylim(min(0.0, *values), 1.05)
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    figure.savefig(target, dpi=110, bbox_inches="tight")
    plt.close(figure)
