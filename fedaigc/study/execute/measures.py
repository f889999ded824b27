"""Measures of the pictures that runs draw: distances to real ones, CLIP score, and functions of a researcher's own.

They are computed from the kept pictures after the runs, and stand in the records. A measure is no part of a run: a
new one is computed for recorded runs, and none of them is run again.
"""

import hashlib
import inspect
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image

from fedaigc.errors import UserError
from fedaigc.metrics.distribution import frechet_distance, kernel_distance
from fedaigc.metrics.intervals import clustered_mean
from fedaigc.study.design.clients import gallery_counts, participants
from fedaigc.study.design.config import StudyConfig
from fedaigc.study.design.planned_runs import Plan, Prepared
from fedaigc.study.execute.kept_pictures import kept_pictures
from fedaigc.study.execute.provenance import model_fingerprint
from fedaigc.study.results.records import StudyRecord, add_measures

Metric = Callable[[list[Image.Image], list[str]], Any]
Features = Callable[[list[Image.Image]], Any]
CLIP_SCORE = "CLIP score"


@dataclass(frozen=True)
class Values:
    """The values of one measure for the pictures of one run.

    Attributes:
        mean: Their mean, or the one value of the whole set.
        low: Lower end of the 95 % interval over pictures; None for a value of the whole set.
        high: Upper end.
        n: Number of pictures.
    """

    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True)
class Measure:
    """A measure of a set of pictures.

    Attributes:
        names: The columns that it fills.
        code: Fingerprint of what computes it; values of another code are computed again.
        apply: Takes drawn pictures, their captions, and as many real pictures; returns values by name.
        cut: Returns the places of the captions of which it reads the beginning only; None if it reads all of each.
    """

    names: tuple[str, ...]
    code: str
    apply: Callable[[list[Image.Image], list[str], list[Image.Image]], dict[str, Values]]
    cut: Callable[[Sequence[str]], list[int]] | None = None


def study_measures(
    study: StudyConfig, metrics: Mapping[str, Metric] | None = None, features: Features | None = None
) -> list[Measure]:
    """Return the measures of a study, with their networks loaded.

    Args:
        study: The study; its evaluation names the features and the scorer.
        metrics: Own measures by name: functions of pictures and captions to a number, or to one for each picture.
        features: Own features for the distances: a function of pictures to an array [n, d].

    Raises:
        UserError: The weights of a network are missing, or a name is taken.
    """
    found = []
    section = study.evaluation
    if features is not None:
        name = getattr(features, "__name__", type(features).__name__)
        own = "own features" if name in ("features", "<lambda>") else f"own features {name}"
        found.append(_distances(features, own, _code_of(features)))
    elif section.features == "inception":
        from fedaigc.metrics.inception import InceptionFeatures, weights_file

        file = weights_file(section.inception_weights)
        code = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        found.append(_distances(InceptionFeatures.load(file), "", code))
    if section.scorer == "clip":
        from fedaigc.metrics.perceptual import ClipScore

        clip, name = ClipScore.load(section.clip_model), CLIP_SCORE
        code = model_fingerprint(section.clip_model)[:64]
        found.append(Measure((name,), code, _metric(name, clip.score), clip.cut))
    found += [Measure((name,), _code_of(each), _metric(name, each)) for name, each in (metrics or {}).items()]
    names = [name for measure in found for name in measure.names]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two measures are called {name!r}: give yours another name")
    return found


def measure_runs(
    prepared: Prepared, plan: Plan, records: Mapping[str, StudyRecord], measures: Sequence[Measure]
) -> None:
    """Compute the measures that the records of finished runs do not have yet, and write them there.

    Args:
        prepared: The study.
        plan: Its runs.
        records: Their records by hash.
        measures: The measures.

    Raises:
        UserError: The pictures of a run are gone, or a function returned something else than numbers.
    """
    study, reals = prepared.study, dict[str, list[Image.Image]]()
    for run in plan.runs:
        record = records.get(run.hash)
        if record is None or record.status != "finished" or not run.evaluation.gallery:
            continue
        old = record.measures
        missing = [each for each in measures if not _known(old, each)]
        if not missing:
            continue
        pictures = kept_pictures(study.work, record.id)
        if run.partition not in reals:
            reals[run.partition] = _real(prepared, run.partition, run.evaluation.gallery)
        real = reals[run.partition]
        found: dict[str, dict[str, Any]] = {}
        for mode, own in pictures.items():
            images, captions = [each.image for each in own], [each.caption for each in own]
            found[mode] = dict(old.get(mode, {}))
            for measure in missing:
                for name, values in measure.apply(images, captions, real).items():
                    found[mode][name] = {**vars(values), "code": measure.code}
        if "device" not in found and record.evaluations[-1]["device"] is not None:
            found["device"] = found["collaborative"]  # every device runs what the edge runs
        add_measures(study.records_folder, record, found)


def _known(old: Mapping[str, Mapping[str, Any]], measure: Measure) -> bool:
    return bool(old) and all(
        values.get(name, {}).get("code") == measure.code for values in old.values() for name in measure.names
    )


def _real(prepared: Prepared, partition: str, count: int) -> list[Image.Image]:
    """The real pictures that a gallery is compared with: as many of each client."""
    seed = prepared.study.clients.seed
    counts = gallery_counts(participants(prepared.clients[partition]), count)
    return [
        row["image"] for client, own in counts.items() for row in client.fresh_pictures(own, seed, "gallery")
    ]


def _distances(features: Features, name: str, code: str) -> Measure:
    # FID and KID are the names of these distances in Inception's features, and in no others
    names = ("FID", "KID") if not name else (f"Frechet distance in {name}", f"KID in {name}")
    known: dict[int, torch.Tensor] = {}

    def apply(images: list[Image.Image], captions: list[str], real: list[Image.Image]) -> dict[str, Values]:
        if id(real) not in known:
            known[id(real)] = _rows(features, real, name)
        both = known[id(real)], _rows(features, images, name)
        far = (frechet_distance(*both, min_images=2), kernel_distance(*both, min_images=2))
        return {key: Values(value, None, None, len(images)) for key, value in zip(names, far, strict=True)}

    return Measure(names, code, apply)


def _rows(features: Features, images: list[Image.Image], name: str) -> torch.Tensor:
    found = torch.as_tensor(features(images))
    if found.ndim != 2 or len(found) != len(images):
        raise UserError(
            f"{name} returned an array {list(found.shape)} for {len(images)} pictures: expected [{len(images)}, d]"
        )
    return found.double()


def _metric(name: str, function: Metric) -> Callable[..., dict[str, Values]]:
    def apply(images: list[Image.Image], captions: list[str], real: list[Image.Image]) -> dict[str, Values]:
        return {name: summarized(name, function(list(images), list(captions)), captions)}

    return apply


def summarized(name: str, value: Any, captions: Sequence[str]) -> Values:
    """Return the values of an own measure: a number, or the mean of one for each picture.

    The interval draws captions, since pictures of one caption are not independent.

    Raises:
        UserError: It is neither.
    """
    try:
        found = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.empty((0, 0))
    if found.ndim > 1 or (found.ndim == 1 and len(found) != len(captions)) or not np.isfinite(found).all():
        raise UserError(
            f"the measure {name!r} returned {value!r:.60} for {len(captions)} pictures: expected a finite number, or "
            "one for each picture"
        )
    if found.ndim == 0:
        return Values(float(found), None, None, len(captions))
    estimate = clustered_mean(found.tolist(), captions)
    return Values(estimate.mean, estimate.low, estimate.high, len(captions))


def _code_of(function: Any) -> str:
    """A fingerprint of a function's source; of one without source, no two calls have the same."""
    try:
        text = inspect.getsource(function if inspect.isroutine(function) else type(function))
    except (OSError, TypeError):
        text = secrets.token_hex()
    return hashlib.sha256(text.encode()).hexdigest()[:16]
