"""A resumable training loop for the three networks of the shipped model."""

import math
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SAVE_EVERY = 250


def cosine(step: int, steps: int, peak: float, warm_up: int = 100) -> float:
    """Return the learning rate: linear warm-up to `peak`, then a half cosine down to 2 % of it."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(
    name: str,
    work: Path,
    modules: dict[str, torch.nn.Module],
    loss_of_step: Callable[[int], torch.Tensor],
    *,
    steps: int,
    peak: float,
    weight_decay: float = 1e-2,
    ema_decay: float = 0.999,
) -> None:
    """Train `modules` in place and leave them with their averaged (EMA) weights.

    A checkpoint is kept in `work`/NAME.pt; a second call continues from it. `loss_of_step(step)` must derive all its
    randomness from the step number, so that a resumed run equals an uninterrupted one.
    """
    parameters = [p for module in modules.values() for p in module.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=peak, weight_decay=weight_decay, betas=(0.9, 0.99))
    averages = [p.detach().clone() for p in parameters]
    start = 0
    file = work / f"{name}.pt"
    if file.exists():
        saved = torch.load(file, map_location="cpu", weights_only=True)
        for key, module in modules.items():
            module.load_state_dict(saved["modules"][key])
        optimizer.load_state_dict(saved["optimizer"])
        averages, start = saved["averages"], saved["step"]
    columns = (
        TextColumn(f"{name} {{task.fields[loss]:.4f}}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    mean_loss = float("nan")
    with Progress(*columns, refresh_per_second=0.5) as progress:
        task = progress.add_task(name, total=steps, completed=start, loss=mean_loss)
        for step in range(start, steps):
            for group in optimizer.param_groups:
                group["lr"] = cosine(step, steps, peak)
            loss = loss_of_step(step)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            decay = min(ema_decay, (step + 1) / (step + 10))
            torch._foreach_lerp_(averages, [p.detach() for p in parameters], 1 - decay)
            mean_loss = loss.item() if math.isnan(mean_loss) else 0.98 * mean_loss + 0.02 * loss.item()
            progress.update(task, advance=1, loss=mean_loss)
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
                state = {
                    "step": step + 1,
                    "modules": {key: module.state_dict() for key, module in modules.items()},
                    "optimizer": optimizer.state_dict(),
                    "averages": averages,
                    "loss": mean_loss,
                }
                torch.save(state, file.with_suffix(".tmp"))
                file.with_suffix(".tmp").rename(file)
    with torch.no_grad():
        for parameter, average in zip(parameters, averages, strict=True):
            parameter.copy_(average)
