"""The figures of docs/sharing.md."""

from statistics import fmean
from typing import Any

from experiments.pages.markdown import markdown, share
from experiments.pages.records import record
from experiments.pages.registry import figure, table
from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate

_TOLD = {
    "phi": "sharing distance",
    "phi, 2 noises": "- with 2 public noises",
    "phi, 4 noises": "- with 4 public noises",
    "phi, 256 numbers": "- projected to 256 numbers",
    "phi, 64 numbers": "- projected to 64 numbers",
    "phi, 16 numbers": "- projected to 16 numbers",
    "cosine of conditional minus unconditional": "- as an angle, minus the empty prompt's",
    "text encoder, tokens": "text encoder, all tokens, cosine",
    "text encoder, mean": "text encoder, mean of tokens, cosine",
    "knowledge graph": "knowledge graph",
    "sentence encoder": "all-MiniLM-L6-v2, cosine",
}
_SCHEDULERS = {
    "DDIMScheduler": "DDIM",
    "DPMSolverMultistepScheduler": "DPM++ 2M",
    "EulerDiscreteScheduler": "Euler",
}


def _settings() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = record("sharing/distance")["settings"]
    return found


def _setting(scheduler: str, steps: int, guidance: float) -> dict[str, Any]:
    for setting in _settings():
        if (_SCHEDULERS[setting["scheduler"]], setting["N"], setting["guidance"]) == (
            scheduler,
            steps,
            guidance,
        ):
            return setting
    raise UserError(f"no setting {scheduler}, N = {steps}, guidance {guidance} in the record")


@figure
def sharing_pairs() -> int:
    """Number of prompt pairs."""
    return len(record("sharing/distance")["pairs"]["own"])


@figure
def sharing_settings() -> int:
    """Number of settings of scheduler, N and guidance."""
    return len(_settings())


@figure
def kept(what: str, k: int, scheduler: str, steps: int, guidance: float) -> float:
    """Share of pictures that keep "object", "place" or "either" (both of them), at a setting and K (0: alone)."""
    value: float = _setting(scheduler, steps, guidance)["kept"][str(k)][what]
    return value


@figure
def sharing_area(distance: str, what: str, k: int, scheduler: str, steps: int, guidance: float) -> Estimate:
    """Area under the ROC curve of a distance for the loss of a part, at a setting and K."""
    return Estimate(**_setting(scheduler, steps, guidance)["areas"][str(k)][what][distance])


@figure
def phi_minus(distance: str, what: str, k: int, scheduler: str, steps: int, guidance: float) -> Estimate:
    """Area of the sharing distance minus that of another distance, paired, at a setting and K."""
    return Estimate(**_setting(scheduler, steps, guidance)["phi minus"][str(k)][what][distance])


@figure
def mean_distance(distance: str, grade: str) -> float:
    """Mean of a distance over the pairs of a grade, at DDIM, N = 11, guidance 5."""
    grades = record("sharing/distance")["pairs"]["grade"]
    values = _setting("DDIM", 11, 5.0)["distances"][distance]
    return fmean(value for value, each in zip(values, grades, strict=True) if each == grade)


@table
def areas(what: str) -> str:
    """All distances at DDIM, N = 11, guidance 5: the area for the loss of a part, by K."""
    setting = _setting("DDIM", 11, 5.0)
    ks = [k for k, found in setting["areas"].items() if what in found]
    rows = [
        [told, *(share(Estimate(**setting["areas"][k][what][name])) for k in ks)]
        for name, told in _TOLD.items()
    ]
    return markdown(["distance", *(f"K = {k}" for k in ks)], rows)


@table
def areas_by_setting() -> str:
    """Sharing distance and its rivals at the first hand-off of every setting: loss of object or place."""
    names = ("phi", "text encoder, tokens", "knowledge graph", "sentence encoder")
    rows = []
    for setting in _settings():
        k = next(iter(setting["areas"]))
        found = setting["areas"][k]["either"]
        told = f"{_SCHEDULERS[setting['scheduler']]}, N = {setting['N']}, guidance {setting['guidance']:g}"
        kept_ = f"{setting['kept'][k]['either']:.2f}".lstrip("0")
        rows.append([told, k, kept_, *(share(Estimate(**found[name])) for name in names)])
    return markdown(["setting", "K", "kept both", *(_TOLD[name] for name in names)], rows)


@table
def label_free() -> str:
    """How well the label-free damage tells lost parts, and how it goes with the distance, at DDIM, 11, 5."""
    setting = _setting("DDIM", 11, 5.0)
    rows = [
        [
            k,
            share(Estimate(**found["area of the damage"])),
            f"{found['rank correlation with phi']:.2f}".lstrip("0"),
        ]
        for k, found in setting["label-free"].items()
    ]
    return markdown(["K", "area of the damage", "rank correlation with the sharing distance"], rows)
