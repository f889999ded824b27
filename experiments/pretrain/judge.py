"""Stage 2: the judge, trained so that it does not rely on colours alone."""

import json
from pathlib import Path

import numpy as np
import torch
from rich.progress import track
from torch.nn import functional

from experiments.pretrain import loop, recipe
from experiments.pretrain.negatives import TEST_ONLY, TRAINED, draw_negative
from experiments.pretrain.scenes import Pictures, draw
from fedaigc.data.scene_words import OBJECTS, PLACES
from fedaigc.data.scenes import combinations, held_out_combinations
from fedaigc.data.sprites import STYLES
from fedaigc.metrics.judge import NONE, OBJECT_LABELS, PLACE_LABELS, JudgeNet
from fedaigc.rng import rng

BATCH = 64
NEGATIVES = 27_000
CHANNELS_LAST = torch.channels_last
MEAN_GREY = torch.tensor([0.299, 0.587, 0.114])[None, :, None, None]


def _labels(pictures: Pictures) -> torch.Tensor:
    rows = [(OBJECTS.index(s.object), PLACES.index(s.place), STYLES.index(s.style)) for s in pictures.scenes]
    return torch.tensor(rows)


def _negatives(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    kinds, pixels, labels = list(TRAINED), torch.empty((NEGATIVES, 3, 64, 64), dtype=torch.uint8), []
    for i in track(range(NEGATIVES), description="negatives"):
        place, image = draw_negative(kinds[i % len(kinds)], seed, i)
        pixels[i] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
        labels.append((OBJECT_LABELS.index(NONE), PLACES.index(place), -1))
    return pixels, torch.tensor(labels)


def rebuild(model: recipe.Model, pixels: torch.Tensor) -> torch.Tensor:
    """Return the autoencoder's reconstruction of pixels in [-1, 1]."""
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        return model(pixels.to(memory_format=CHANNELS_LAST)).sample.float().clamp(-1, 1)


def _jitter(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Change the colours of half of the pictures strongly: hue, brightness, contrast, grey."""
    n = len(pixels)
    weight = (torch.rand(n, 1, 1, 1, generator=generator) < 0.5).float()
    mix = torch.eye(3) + 0.35 * torch.randn(n, 3, 3, generator=generator)
    turned = torch.einsum("nij,njhw->nihw", mix / mix.sum(2, keepdim=True).clamp(min=0.3), pixels)
    gain = 1 + 0.3 * torch.randn(n, 1, 1, 1, generator=generator)
    turned = turned * gain + 0.15 * torch.randn(n, 3, 1, 1, generator=generator)
    grey = (torch.rand(n, 1, 1, 1, generator=generator) < 0.15).float()
    turned = turned * (1 - grey) + (pixels * MEAN_GREY).sum(1, keepdim=True) * grey
    return (pixels * (1 - weight) + turned * weight).clamp(-1, 1)


def _soften(pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Blur a third of the pictures slightly and add slight noise to all, like the artefacts of small models."""
    chosen = torch.rand(len(pixels), generator=generator) < 0.33
    if chosen.any():
        pixels = pixels.clone()
        pixels[chosen] = functional.avg_pool2d(
            functional.pad(pixels[chosen], (1, 1, 1, 1), "replicate"), 3, 1
        )
    strength = 0.06 * torch.rand(len(pixels), 1, 1, 1, generator=generator)
    return (pixels + strength * torch.randn(pixels.shape, generator=generator)).clamp(-1, 1)


def train(work: Path, autoencoder: recipe.Model, *, scenes: int, steps: int, seed: int) -> JudgeNet:
    """Train the judge on scenes of all styles and all pairs, and on negatives.

    Pairs that are held out of the diffusion model must not be held out here: a judge that never saw them learns that
    these objects do not occur in these places (accuracy 0.998 on other pairs, 0.81 on these).
    """
    positives = draw(scenes, seed, styles=STYLES, triples=combinations(include_held_out=True))
    negative_pixels, negative_labels = _negatives(seed)
    pixels = torch.cat([positives.pixels, negative_pixels])
    labels = torch.cat([_labels(positives), negative_labels])
    net = JudgeNet()
    # torch declares no `to` with a memory format alone
    net = net.to(memory_format=CHANNELS_LAST)  # type: ignore[call-overload]
    share = 2 * BATCH // 3

    def loss_of_step(step: int) -> torch.Tensor:
        generator = rng(seed, "judge", step)
        rows = torch.cat(
            [
                torch.randint(scenes, (share,), generator=generator),
                scenes + torch.randint(NEGATIVES, (BATCH - share,), generator=generator),
            ]
        )
        batch, truth = pixels[rows].float() / 127.5 - 1, labels[rows].clone()
        # the last pictures of the batch become blends of two whole scenes: neither object nor place nor style
        batch[-4:] = 0.5 * (batch[-4:] + batch[:4])
        truth[-4:] = torch.tensor([OBJECT_LABELS.index(NONE), PLACE_LABELS.index(NONE), -1])
        third = torch.randperm(BATCH, generator=generator)[: BATCH // 3]
        batch[third] = rebuild(autoencoder, batch[third])
        batch = _soften(_jitter(batch, generator), generator)
        shift = torch.randint(-3, 4, (2,), generator=generator).tolist()
        batch = torch.roll(batch, shift, dims=(2, 3)).to(memory_format=CHANNELS_LAST)
        with torch.autocast("cpu", torch.bfloat16):
            heads = net(batch)
        return sum(
            (
                functional.cross_entropy(logits.float(), truth[:, i], ignore_index=-1, label_smoothing=0.02)
                for i, logits in enumerate(heads)
            ),
            start=torch.zeros(()),
        )

    loop.train("judge", work, {"judge": net}, loss_of_step, steps=steps, peak=2e-3, weight_decay=2e-2)
    return net.eval()


def measure(net: JudgeNet, autoencoder: recipe.Model, *, seed: int, n: int = 2000) -> dict[str, float]:
    """Measure accuracy on clean and rebuilt scenes of held-out pairs, and the rejection rate of each negative."""
    pictures = draw(n, seed, styles=STYLES, triples=held_out_combinations())
    truth = _labels(pictures)

    def answers(pixels: torch.Tensor) -> list[torch.Tensor]:
        with torch.no_grad():
            chunks = [net(chunk) for chunk in pixels.split(128)]
        return [torch.cat(head).argmax(1) for head in zip(*chunks, strict=True)]

    report: dict[str, float] = {"seed": seed, "scenes": n, "pictures of each negative": n // 8}
    clean = pictures.pixels.float() / 127.5 - 1
    rebuilt = torch.cat([rebuild(autoencoder, chunk) for chunk in clean.split(128)])
    for name, pixels in (("clean", clean), ("rebuilt", rebuilt)):
        seen = answers(pixels)
        for i, question in enumerate(("object", "place", "style")):
            report[f"{name} {question} accuracy"] = (seen[i] == truth[:, i]).float().mean().item()
    for kind in (*TRAINED, *TEST_ONLY):
        images = [np.array(draw_negative(kind, seed + 1, i)[1]) for i in range(n // 8)]
        seen = answers(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1)
        report[f"rejected: {kind}"] = (seen[0] == OBJECT_LABELS.index(NONE)).float().mean().item()
    kinds = [value for name, value in report.items() if name.startswith("rejected")]
    report["rejected, mean of the kinds"] = sum(kinds) / len(kinds)
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in report.items()}


def save(net: JudgeNet, report: dict[str, float], folder: Path) -> None:
    """Write judge.safetensors (float16) and judge.json, its measured accuracy."""
    from safetensors.torch import save_file

    save_file(
        {key: value.half().contiguous() for key, value in net.state_dict().items()},
        folder / "judge.safetensors",
    )
    (folder / "judge.safetensors").chmod(0o644)
    (folder / "judge.json").write_text(json.dumps(report, indent=1) + "\n")
