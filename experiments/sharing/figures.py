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
    for setting in _ordered():
        k = _handoffs(setting)[0]
        found = setting["areas"][k]["either"]
        rows.append([_told(setting), k, *_kept(setting, k), *(share(Estimate(**found[n])) for n in names)])
    return markdown(["setting", "K", "alone", "kept both", *(_TOLD[name] for name in names)], rows)


@table
def areas_by_steps() -> str:
    """The sharing distance at each of the three hand-offs, by N, at DDIM and guidance 5."""
    rows = []
    for setting in _ordered():
        if (setting["scheduler"], setting["guidance"]) != ("DDIMScheduler", 5.0):
            continue
        for k in _handoffs(setting):
            found = setting["areas"][k]
            rows.append(
                [
                    str(setting["N"]),
                    k,
                    share(int(k) / setting["N"]),
                    _kept(setting, k)[1],
                    *(
                        share(Estimate(**found[what]["phi"])) if what in found else ""
                        for what in ("either", "place", "object, same place")
                    ),
                    share(Estimate(**setting["label-free"][k]["area of the damage"])),
                ]
            )
    header = ["N", "K", "K / N", "kept both", "either", "place", "object, same place", "area of the damage"]
    return markdown(header, rows)


def _ordered() -> list[dict[str, Any]]:
    """The settings by N, scheduler and guidance."""
    schedulers = list(_SCHEDULERS)
    return sorted(_settings(), key=lambda s: (s["N"], schedulers.index(s["scheduler"]), s["guidance"]))


def _handoffs(setting: dict[str, Any]) -> list[str]:
    return sorted(setting["areas"], key=int)


def _told(setting: dict[str, Any]) -> str:
    return f"{_SCHEDULERS[setting['scheduler']]}, N = {setting['N']}, guidance {setting['guidance']:g}"


def _kept(setting: dict[str, Any], k: str) -> list[str]:
    """Object and place both seen, alone and after K shared steps."""
    return [share(setting["kept"][each]["either"]) for each in ("0", k)]


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
