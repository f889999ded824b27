"""The figures of docs/figures: shares of pictures, and differences between rows of a record."""

from typing import Any

from experiments.pages.markdown import markdown, share
from experiments.pages.records import estimate, one_of, record, value_at
from experiments.pages.registry import figure, table
from fedaigc.errors import UserError

# K of the columns or rows that a page shows
_HAND_OFFS = (0, 2, 3, 4, 5, 7, 9, 11)
_MODES = {"open": "other member's prompt (the paper's mode)", "kind": "group's public prompt (ours)"}
_RATES = {0.0: "0", 0.005: "0.5 %", 0.01: "1 %", 0.02: "2 %", 0.04: "4 %", 0.06: "6 %", 0.1: "10 %"}
_BOUNDED = ("fixed8", "fixed8-gray", "float16, clipped", "float32, clipped")
_DRAWS = {
    "figure 5": "this page's pairs",
    "shared prompts": "the pairs of findings",
    "all": "every near pair",
}


def compared(name: str, first: str, second: str, value: str) -> dict[str, Any]:
    """Return the difference between two rows of a record, each named by "KEY=VALUE,...".

    Raises:
        UserError: If the record does not compare them.
    """
    rows = record(name)["rows"]
    wanted = [one_of(rows, condition) for condition in (first, second)]
    for one in record(name)["comparisons"]:
        keys = (one["of"], one["minus"])
        if one["value"] == value and all(
            given.items() <= row.items() for given, row in zip(keys, wanted, strict=True)
        ):
            found: dict[str, Any] = one["difference"]
            return found
    raise UserError(f"{name} does not compare {value!r} of {first} and {second}")


@figure
def difference(name: str, first: str, second: str, value: str) -> list[float]:
    """Mean difference of two rows with its interval.

    Example: `difference paper/fig5 mode=kind,K=5 mode=open,K=5 "judge, object"`.
    """
    found = compared(name, first, second, value)
    return [found["mean"], found["low"], found["high"]]


@figure
def difference_p(name: str, first: str, second: str, value: str) -> float:
    """Chance of such a difference of two rows, by swapping them for all pictures of an object at once."""
    p: float = compared(name, first, second, value)["p"]
    return p


@figure
def each(name: str, condition: str, *keys: str) -> list[Any]:
    """The values of single pictures of a row."""
    found: list[Any] = value_at(name, "rows", condition, "each", *keys)
    return found


def shown_difference(found: dict[str, Any]) -> str:
    """Format a difference with its interval and p."""
    p = found["p"]
    told = f"{p:.0f}" if p == 1 else share(p, 2 if p >= 0.02 else 3 if p >= 0.001 else 4)
    return f"{share(estimate(found))}, p = {told}"


def seen(row: dict[str, Any], what: str) -> str:
    """Format the share of pictures of a row in which the judge sees the target's object or place."""
    return share(estimate(row["judge"][what]))


@table
def figure2() -> str:
    """Eight steps on the device, alone or after shared ones."""
    names = {
        "alone, N = 8": "alone, N = 8",
        "shared (open), N = 15, K = 7": "shared, other member's prompt (the paper's mode), N = 15, K = 7",
        "shared (kind), N = 15, K = 7": "shared, group's public prompt (ours), N = 15, K = 7",
        "alone, N = 15": "alone, N = 15",
    }
    rows = []
    for run, told in names.items():
        row = one_of(record("paper/fig2")["rows"], f"run={run}")
        rows.append([told, str(row["steps on the device"]), seen(row, "object"), seen(row, "place")])
    return markdown(["run", "steps on the device", "target object seen", "target place seen"], rows)


@table
def figure3(mode: str, payload: str) -> str:
    """Pictures after bit errors, against the picture without."""
    rows = []
    for rate, told in _RATES.items():
        row = next(
            row
            for row in record("paper/fig3")["rows"]
            if row["mode"] == mode and row["payload"] == payload and row["bit error rate"] == rate
        )
        against = row["against the error-free picture"]
        mse, ssim = estimate(against["mse"]), estimate(against["ssim"])
        plain = f"{mse.mean:.1f}" if mse.mean < 1 else f"{mse.mean:.0f} [{mse.low:.0f}, {mse.high:.0f}]"
        rows.append([told, plain, share(ssim, 3), seen(row, "object")])
    return markdown(["8-bit fixed point, bit error rate", "MSE", "SSIM", "target object seen"], rows)


def _with_errors(mode: str, payload: str, rate: float) -> dict[str, Any]:
    wanted = {"mode": mode, "payload": payload, "bit error rate": rate}
    found = [row for row in record("paper/fig3")["rows"] if wanted.items() <= row.items()]
    if len(found) != 1:
        raise UserError(f"{len(found)} rows of paper/fig3 have {wanted}: expected one")
    return found[0]


@figure
def bit_errors(mode: str, payload: str, rate: float, what: str) -> float:
    """Mean of "ssim", "mse", "object" or "place" after bit errors at a rate."""
    row = _with_errors(mode, payload, rate)
    kind = "judge" if what in ("object", "place") else "against the error-free picture"
    mean: float = row[kind][what]["mean"]
    return mean


@figure
def bounded_seen(mode: str, rate: float) -> tuple[float, float]:
    """Smallest and largest share of pictures with the target's object, over all formats with bounded values."""
    found = [bit_errors(mode, payload, rate, "object") for payload in _BOUNDED]
    return min(found), max(found)


@figure
def noise_matched_gain(mode: str, *rates: float) -> list[float]:
    """Mean SSIM of resuming at the noise level of the latents minus that of going on at K, at each rate."""
    return [
        bit_errors(mode, "fixed8, noise-matched", rate, "ssim") - bit_errors(mode, "fixed8", rate, "ssim")
        for rate in rates
    ]


@table
def figure5() -> str:
    """Near pairs against the number of shared steps, by whose prompt they run on."""
    rows = []
    for k in _HAND_OFFS:
        cells = [
            seen(one_of(record("paper/fig5")["rows"], f"mode={mode},K={k}"), "object") for mode in _MODES
        ]
        last = ""
        if k:
            last = shown_difference(
                compared("paper/fig5", f"mode=kind,K={k}", f"mode=open,K={k}", "judge, object")
            )
        rows.append([str(k), *cells, last])
    return markdown(["target object seen at K =", *_MODES.values(), "group minus other"], rows)


@table
def near_pairs() -> str:
    """Two draws of near pairs, and all of them."""
    found = record("paper/near_pairs")
    rows = []
    for pairs, told in _DRAWS.items():
        row = one_of(found["rows"], f"pairs={pairs}")
        expected = "" if pairs == "all" else share(row["expected of these objects"])
        targets = len(set(found["prompt pairs"][pairs]["object"]))
        rows.append([told, str(row["judge"]["object"]["n"]), str(targets), seen(row, "object"), expected])
    return markdown(
        ["", "pictures", "target objects", "target object seen", "expected of these objects"], rows
    )


@table
def figure6(k: int) -> str:
    """Pairs at four distances after K shared steps."""
    names = {
        "kind and place": "kind and place in common",
        "place": "place in common",
        "kind": "kind in common",
        "nothing": "nothing in common",
    }
    rows = []
    for common, told in names.items():
        found = [
            one_of(record("paper/fig6")["rows"], f"in common={common},mode={mode},K={k}") for mode in _MODES
        ]
        rows.append([told, *(seen(row, what) for what in ("object", "place") for row in found)])
    header = [f"{what}, {whose} prompt" for what in ("object", "place") for whose in ("other", "group")]
    return markdown([f"K = {k}, target seen", *header], rows)


@figure
def seen_at(mode: str, k: int, what: str) -> tuple[float, float]:
    """Smallest and largest share of pictures with the target's object or place, over all distances of figure 6."""
    rows = record("paper/fig6")["rows"]
    found = [row["judge"][what]["mean"] for row in rows if row["mode"] == mode and row["K"] == k]
    return min(found), max(found)
