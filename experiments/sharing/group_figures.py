"""The figures of docs/sharing.md about groups: their conditioning, what it reveals, and who finds one."""

from typing import Any

from experiments.pages.markdown import markdown, share
from experiments.pages.records import record
from experiments.pages.registry import figure, table
from fedaigc import assets
from fedaigc.metrics.intervals import Estimate
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.atlas_build import leaves
from fedaigc.semantics.denoiser.shipped import ATLAS

_SHARED = {
    "alone": "alone",
    "mean": "mean of the members",
    "others": "mean of the other members",
    "public": "public caption of the node",
    "member": "another member's prompt",
    "concepts": "general words of the graph",
    "empty": "empty prompt",
    "noisy": "mean, noise along few directions",
    "plain noise": "mean, noise on all values",
}
_ATTACKS = ("nearest", "decomposition", "decomposition in the node", "node")
_NOISES = {"none": "none", "noisy": "along few directions", "plain noise": "on all values"}
_SPACES = {
    "graph": "knowledge graph",
    "shipped": "embedded model, shipped atlas",
    "denoiser": "embedded model, other sets",
    "sentence": "all-MiniLM-L6-v2, other sets",
    "random clip": "random CLIP, other sets",
}


@figure
def shipped(what: str) -> int:
    """Number of "captions", "nodes" or "leaves" of the shipped atlas."""
    atlas = Atlas.read(assets.path(ATLAS))
    return {"captions": len(atlas.captions), "nodes": len(atlas), "leaves": len(leaves(atlas))}[what]


def _rows() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = record("sharing/conditioning")["summary"]
    return found


def _row(groups: str, shared: str, size: int, epsilon: float | None) -> dict[str, Any]:
    (found,) = (
        row
        for row in _rows()
        if (row["groups"], row["shared"], row["size"], row["epsilon"]) == (groups, shared, size, epsilon)
    )
    return found


@figure
def seen(groups: str, shared: str, size: int, k: int, what: str, epsilon: float = 0) -> Estimate:
    """Share of pictures with "object", "place" or "both", by what the K shared steps ran on."""
    return Estimate(**_row(groups, shared, size, epsilon or None)["K"][str(k)][what])


@figure
def group_gain(groups: str, shared: str, size: int, k: int, other: str, epsilon: float = 0) -> Estimate:
    """Share of pictures with object and place, minus that of "public", "mean" or "member", paired."""
    return _difference(_row(groups, shared, size, epsilon or None)["K"][str(k)][f"minus {other}"])


def _difference(value: dict[str, Any]) -> Estimate:
    return Estimate(value["mean"], value["low"], value["high"], value["n"])


@figure
def left_of_deviation(size: int, epsilon: float) -> float:
    """Share of the squared deviation from the public caption that the best noisy mean is expected to miss."""
    (found,) = (
        cell["missed"]
        for cell in record("sharing/conditioning")["cells"]
        if (cell["shared"], cell["size"], cell["epsilon"]) == ("noisy", size, epsilon)
    )
    return float(found)


@figure
def inversion(attack: str, listed: str, size: int, noise: str, epsilon: float = 0) -> Estimate:
    """Share that an attack finds: of members ("listed"), or of their objects ("unlisted")."""
    (found,) = (
        row[attack]
        for row in record("sharing/inversion")["rows"]
        if (row["listed"], row["size"], row["noise"], row["epsilon"])
        == (listed == "listed", size, noise, epsilon or None)
    )
    return Estimate(**found)


@figure
def grouped(space: str, prompts: str, what: str = "grouped") -> float:
    """Share of a set's prompts that are "grouped" in a space, or another value of the record."""
    found: float = record("sharing/coverage")["spaces"][space][prompts][what]
    return found


@figure
def known(prompts: str, what: str) -> float:
    """Share of a set's "words" that the embedded encoder knows, or of prompts that are "cut"."""
    found: float = record("sharing/coverage")["known"][prompts][what]
    return found


@table
def conditioning(groups: str) -> str:
    """Object / place seen by what the shared steps ran on, without noise."""
    ks = ("3", "6", "9")
    rows = []
    for shared, told in _SHARED.items():
        for row in sorted(_rows(), key=lambda each: each["size"]):
            if (row["groups"], row["shared"]) != (groups, shared) or row["epsilon"] is not None:
                continue
            cells = [
                " / ".join(share(Estimate(**row["K"][k][what])) for what in ("object", "place"))
                if k in row["K"]
                else ""
                for k in ks
            ]
            if shared == "alone":
                cells = [
                    " / ".join(share(Estimate(**row["K"]["0"][what])) for what in ("object", "place"))
                ] + [""] * 2
            rows.append([told, str(row["size"] or ""), *cells])
    return markdown(["shared steps on", "members", *(f"K = {k}" for k in ks)], rows)


@table
def mean_minus_public() -> str:
    """Both seen: the mean minus the public caption, paired by group."""
    ks = ("3", "6", "9")
    rows = [
        [
            row["groups"],
            str(row["size"]),
            *(share(_difference(found["minus public"])) if (found := row["K"].get(k)) else "" for k in ks),
        ]
        for row in sorted(_rows(), key=lambda each: (each["groups"], each["size"]))
        if row["shared"] == "mean" and all("minus public" in found for found in row["K"].values())
    ]
    return markdown(["groups", "members", *(f"K = {k}" for k in ks)], rows)


@table
def noisy_means() -> str:
    """Both seen at K = 6 with noise on the mean, and the differences to public caption and mean."""
    rows = []
    for row in sorted(_rows(), key=lambda r: (r["shared"], -r["size"], -(r["epsilon"] or 0))):
        if row["epsilon"] is None:
            continue
        found = row["K"]["6"]
        rows.append(
            [
                _SHARED[row["shared"]],
                str(row["size"]),
                f"{row['epsilon']:g}",
                share(Estimate(**found["both"])),
                share(_difference(found["minus public"])),
                share(_difference(found["minus mean"])),
            ]
        )
    return markdown(
        ["shared steps on", "members", "epsilon", "both seen", "minus public", "minus mean"], rows
    )


@table
def inverted() -> str:
    """What is read from a mean: members by the best attack on listed prompts, objects of unlisted ones."""
    found = record("sharing/inversion")["rows"]
    rows = []
    for row in found:
        if not row["listed"]:
            continue
        same = [
            each
            for each in found
            if not each["listed"] and all(each[key] == row[key] for key in ("size", "noise", "epsilon"))
        ]
        best = max(_ATTACKS[:3], key=lambda name: row[name]["mean"])
        line = [
            _NOISES[row["noise"]] + (f", epsilon {row['epsilon']:g}" if row["epsilon"] else ""),
            str(row["size"]),
            f"{share(Estimate(**row[best]))} ({best})",
            share(Estimate(**row["node"])),
            "",
            "",
        ]
        # unlisted prompts were not attacked under every noise
        for other in same:
            objects = max(("linear", *_ATTACKS[:3]), key=lambda name: other[name]["mean"])
            line[4:] = [f"{share(Estimate(**other[objects]))} ({objects})", share(Estimate(**other["node"]))]
        rows.append(line)
    heads = ["noise", "members", "listed: members found", "by the node alone"]
    return markdown([*heads, "unlisted: objects found", "by the node alone"], rows)


@table
def covered() -> str:
    """Share of prompts in a group, by space: by risk / by expected damage / with a partner by expected damage."""
    told = record("sharing/coverage")

    def cell(space: str, name: str) -> str:
        found = told["spaces"][space][name]
        if space == "graph":
            return f"{_short(found['grouped'])} ({_short(found['vague'])})"
        return " / ".join(_short(found[key]) for key in ("grouped", "expected", "expected partner"))

    spaces = [space for space in _SPACES if space in told["spaces"]]
    rows = [
        [name.replace("_", " "), f"{count:,}", *(cell(space, name) for space in spaces)]
        for name, count in told["prompts"].items()
    ]
    return markdown(["prompts", "number", *(_SPACES[space] for space in spaces)], rows)


def _short(value: float) -> str:
    return f"{value:.2f}".removeprefix("0")
