"""The time that a study will take: a few local steps and an evaluation, measured here, times their number."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaigc.study.design.runs import RunSpec

_WARM_STEPS, _STEPS = 1, 4
_IMAGES = 16


@dataclass(frozen=True)
class Measured:
    """Seconds on this machine, with all workers computing at once.

    Attributes:
        start_s: From the start of a process until its model is loaded.
        step_s: One local step.
        evaluation_s: One client under one state.
        image_s: Rendering and encoding one image.
        gallery_s: Drawing one image of a gallery.
    """

    start_s: float
    step_s: float
    evaluation_s: float
    image_s: float
    gallery_s: float

    @classmethod
    def mean(cls, measured: Iterable[dict[str, float]]) -> "Measured":
        """Return the mean of the values that several workers measured at the same time."""
        found = list(measured)
        return cls(**{name: sum(each[name] for each in found) / len(found) for name in found[0]})


def measure(job: dict[str, Any]) -> dict[str, float]:
    """Measure the values of `Measured` for the model, the training and the triples of the run in `job`.

    Call it in a fresh process: `start_s` counts from the start of the process.
    """
    import psutil
    import torch

    from fedaigc.device.training.local_round import SharedStageWork
    from fedaigc.diffusion.encoding import encode_images
    from fedaigc.federation.preloaded import base_model
    from fedaigc.federation.server.initial_state import initial_shared_state, prepared
    from fedaigc.study.design.clients import split_clients
    from fedaigc.study.execute.evaluation import Evaluator

    torch.set_num_threads(1)
    run = RunSpec.model_validate(job["run"])
    config = prepared(run.config(Path()))
    pipe, base_hash = base_model(config.model)
    start_s = time.time() - psutil.Process().create_time()
    began = time.perf_counter()
    rows = list(split_clients(run.data)[0].fresh_pictures(_IMAGES, 0, "measured"))
    images, captions = [row["image"] for row in rows], [row["caption"] for row in rows]
    data = encode_images(pipe, images, captions, height=config.model.height, width=config.model.width)
    image_s = (time.perf_counter() - began) / _IMAGES
    shared = initial_shared_state(config)
    work = SharedStageWork(pipe, data, config.training, _STEPS, seed=0, round=1)
    for steps in (_WARM_STEPS, _STEPS):
        began = time.perf_counter()
        trained = work.train(shared, trained=lambda name: ".lora_" in name, steps=steps)
    step_s = (time.perf_counter() - began) / _STEPS
    evaluator = Evaluator(
        pipe, [data], boundary_log_snr=shared.boundary_log_snr, count=run.evaluation.triples, seed=0
    )
    began = time.perf_counter()
    evaluator.shared_loss(trained, 0)
    evaluation_s = time.perf_counter() - began
    return {
        "start_s": start_s,
        "step_s": step_s,
        "evaluation_s": evaluation_s,
        "image_s": image_s,
        "gallery_s": _gallery_seconds(run, pipe, base_hash, trained) if run.evaluation.gallery else 0.0,
    }


def _gallery_seconds(run: RunSpec, pipe: Any, base_hash: str, trained: Any) -> float:
    from fedaigc.study.design.clients import split_clients
    from fedaigc.study.execute.picture_distance import Galleries

    model = run.config(Path()).model
    few = run.evaluation.model_copy(update={"gallery": _IMAGES})
    clients = split_clients(run.data)[:1]
    if run.data.own is not None:  # whose test pictures may be fewer
        few = few.model_copy(update={"gallery": min(_IMAGES, len(clients[0].own.test))})  # type: ignore[union-attr]
    galleries = Galleries(
        pipe,
        base_hash,
        model,
        clients,
        few,
        boundary_log_snr=trained.boundary_log_snr,
        seed=0,
    )
    began = time.perf_counter()
    drawn = galleries.draw(lambda client: trained)
    return (time.perf_counter() - began) / len(drawn)


def run_seconds(run: RunSpec, measured: Measured, *, personal: bool = False) -> float:
    """Estimate the seconds of one run: start, local steps, evaluations and gallery, without messages and aggregation.

    Args:
        run: The run.
        measured: The measured seconds.
        personal: Whether devices have models of their own, which are evaluated as well.
    """
    states = 2 if personal else 1
    evaluations = len(run.evaluation.rounds) * run.data.number * states
    return (
        measured.start_s
        + run.work_units * measured.step_s
        + evaluations * measured.evaluation_s
        + run.evaluation.gallery * states * measured.gallery_s
    )


def data_seconds(runs: Iterable[RunSpec], measured: Measured) -> float:
    """Estimate the seconds for images: once for each partition and seed, and for each split that is evaluated."""
    made: dict[object, int] = {}
    for run in runs:
        key = run.data.model_dump_json()
        made[key, run.seed] = run.data.images * (run.kind != "base")
        made[key, run.evaluation.split] = run.evaluation.images * run.data.number
    return sum(made.values()) * measured.image_s


def told(seconds: float) -> str:
    """Format a duration, e.g. "2 h 05 min", "3 min 20 s" or "12 s"."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 60} min {whole % 60:02d} s" if whole >= 60 else f"{whole} s"
