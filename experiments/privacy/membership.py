"""Measure what an update reveals of the private pictures: whether a picture was among them, and their style.

A client trains one default round (20 steps, rank 8, batch 8) on n pictures of one style. An observer of the update
installs it and compares losses with the state before, at noise levels and noise of its own choice:

    membership   pictures whose loss decreases more are guessed to be private. The AUC is over the n pictures of the
                 client and n others of the same style, with captions from one distribution. Chance is .5.
    style        the style is guessed, of seven, whose public pictures gain most beyond the mean gain of each style
                 over all updates. Chance is 1/7.

The server sees each update. Other devices see the mean of a round: `mean of clients` is over one client of each
style, and `noise` is the same with differential privacy of the stated z (updates clipped to the median norm C, noise
z C / K on each value of the mean).

    python -m experiments.privacy.membership --output experiments/records/privacy/membership.json
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import mannwhitneyu
from torch import Tensor

import fedaigc
from fedaigc.data.scenes import draw_scenes
from fedaigc.data.sprites import STYLES
from fedaigc.device.training.local_round import SharedStageWork
from fedaigc.diffusion.adapters.stages import SharedState, Stage, activate, install, new_adapter
from fedaigc.diffusion.encoding import EncodedImages, encode_images
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.diffusion.training import TimestepSampler, TrainingSettings, denoising_loss
from fedaigc.metrics.intervals import clustered_mean, proportion
from fedaigc.rng import derived_seed, rng

SIZE = 64
# clients of each style by their number of pictures, and probes of each picture
CLIENTS = {4: 2, 32: 1}
PROBES = {4: 32, 32: 8}
PUBLIC, PUBLIC_PROBES = 6, 8
BATCH = 32


def encoded(pipe: Any, count: int, seed: int, style: str) -> EncodedImages:
    """Return pictures of a style with their captions, encoded as on a device."""
    drawn = list(draw_scenes(count, seed, styles=(style,)))
    pictures, captions = [picture for _, picture in drawn], [scene.caption for scene, _ in drawn]
    return encode_images(pipe, pictures, captions, height=SIZE, width=SIZE)


def rows_of(data: EncodedImages, rows: slice) -> EncodedImages:
    """Return some of the pictures."""
    text = {name: value[rows] for name, value in data.text.items()}
    return EncodedImages(data.latents[rows], text, data.empty_text)


@torch.no_grad()
def losses(pipe: Any, state: SharedState, data: EncodedImages, probes: int) -> Tensor:
    """Return the loss of each picture under a state, over the same probes for every state: [pictures]."""
    install(pipe, state)
    activate(pipe, Stage.SHARED)
    sampler = TimestepSampler(pipe, Stage.SHARED, state.boundary_log_snr)
    settings = TrainingSettings(condition_dropout=0.0)
    found = []
    for row in range(len(data)):
        sums = [
            denoising_loss(
                pipe,
                sampler,
                data,
                torch.full((min(BATCH, probes - start),), row),
                rng(0, "probe", row, start),
                settings,
            )
            * min(BATCH, probes - start)
            for start in range(0, probes, BATCH)
        ]
        found.append(torch.stack(sums).sum() / probes)
    return torch.stack(found)


def auc(gains: Tensor, members: int) -> float:
    """Return the probability that a member gained more than a non-member."""
    inside, outside = gains[:members].numpy(), gains[members:].numpy()
    return float(mannwhitneyu(inside, outside).statistic) / (len(inside) * len(outside))


def difference(after: SharedState, before: SharedState) -> dict[str, Tensor]:
    """Return the update, tensor by tensor."""
    start = before.tensors()
    return {name: tensor - start[name] for name, tensor in after.tensors().items()}


def moved(start: SharedState, update: dict[str, Tensor]) -> SharedState:
    """Return the state after an update."""
    tensors = {name: tensor + update[name] for name, tensor in start.tensors().items()}
    return SharedState.from_tensors(start.header(), tensors)


def mean_of(
    updates: list[dict[str, Tensor]], noise_multiplier: float | None, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return the mean of a round's updates, clipped and noised if a multiplier is given."""
    norms = [float(torch.cat([t.flatten() for t in update.values()]).norm()) for update in updates]
    limit = float(np.median(norms))
    scales = [min(1.0, limit / norm) if noise_multiplier is not None else 1.0 for norm in norms]
    found = {}
    for name in updates[0]:
        total: Any = sum(scale * update[name] for scale, update in zip(scales, updates, strict=True)) / len(
            updates
        )
        if noise_multiplier is not None:
            deviation = noise_multiplier * limit / len(updates)
            total = total + deviation * torch.randn(total.shape, generator=generator)
        found[name] = total
    return found


def rate(hits: list[bool]) -> dict[str, float]:
    """Return the share with Wilson's 95 % interval."""
    found = proportion(hits)
    return {"hits": sum(hits), "trials": found.n, "rate": found.mean, "low": found.low, "high": found.high}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--noise-multiplier", type=float, default=1.0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe = load_pipeline()
    base = base_fingerprint(pipe)
    fresh = new_adapter(pipe, generator=rng(options.seed, "shared adapter"), rank=8)
    start = SharedState(
        base, fresh.lora, fresh.rank, fresh.alpha, {}, boundary_log_snr=boundary_log_snr(pipe, 500)
    )
    settings, names = TrainingSettings(), set(start.tensors())
    public = {
        style: encoded(pipe, PUBLIC, derived_seed(options.seed, "public", style), style) for style in STYLES
    }
    base_public = {style: losses(pipe, start, data, PUBLIC_PROBES) for style, data in public.items()}
    commit = subprocess.run(
        ["git", "-C", str(Path(fedaigc.__file__).parents[1]), "rev-parse", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    record: dict[str, Any] = {
        "what": "membership of a picture and style of a client, from one default update",
        "commit": commit,
        "seed": options.seed,
        "training": {"steps": settings.local_steps, "rank": 8, "batch": settings.batch_size},
        "chance": {"AUC": 0.5, "style": 1 / len(STYLES)},
        "membership": {},
    }
    gains_by_style, whose, kept = [], [], []
    for pictures, clients in CLIENTS.items():
        found, clusters = [], []
        for number, style in enumerate(style for style in STYLES for _ in range(clients)):
            name = f"{pictures} {number}"
            data = encoded(pipe, 2 * pictures, derived_seed(options.seed, "client", name), style)
            private = rows_of(data, slice(0, pictures))
            work = SharedStageWork(
                pipe, private, settings, settings.local_steps, derived_seed(options.seed, name), 1
            )
            after = work.train(start, trained=names.__contains__)
            before = losses(pipe, start, data, PROBES[pictures])
            found.append(auc(before - losses(pipe, after, data, PROBES[pictures]), pictures))
            clusters.append(number)
            gains_by_style.append(
                [
                    float((base_public[s] - losses(pipe, after, public[s], PUBLIC_PROBES)).mean())
                    for s in STYLES
                ]
            )
            whose.append(STYLES.index(style))
            if pictures == max(CLIENTS):
                kept.append((data, before, difference(after, start)))
            print(f"{pictures} pictures, {style}: AUC {found[-1]:.3f}", file=sys.stderr, flush=True)
        record["membership"][f"{pictures} pictures, the update itself"] = clustered_mean(
            found, clusters
        ).as_dict()
    gains = np.array(gains_by_style)
    # the gain of a style that all updates have in common does not identify the client
    told = (gains - gains.mean(0)).argmax(1)
    record["style"] = rate([bool(guess == own) for guess, own in zip(told, whose, strict=True)])
    updates = [update for _, _, update in kept]
    for what, multiplier in (
        ("mean of clients", None),
        ("mean of clients and noise", options.noise_multiplier),
    ):
        mean = moved(start, mean_of(updates, multiplier, rng(options.seed, "privacy noise")))
        found = [
            auc(before - losses(pipe, mean, data, PROBES[max(CLIENTS)]), max(CLIENTS))
            for data, before, _ in kept
        ]
        entry = clustered_mean(found, list(range(len(found)))).as_dict() | {"clients": len(kept)}
        if multiplier is not None:
            entry |= {"noise_multiplier": multiplier}
        record["membership"][f"{max(CLIENTS)} pictures, {what}"] = entry
        print(f"{what}: {entry['mean']:.3f}", file=sys.stderr, flush=True)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
