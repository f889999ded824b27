"""Plots of a comparison: loss against rounds, loss against bytes, and differences to a reference.

Names stand next to what they name, without a legend. The colours are those of [Okabe08], which remain distinct
for people with any colour vision, without the yellow, which is faint on white. Beyond seven strategies, the
dashes or markers change too. matplotlib is in the `plots` extra.

Source: [Okabe08] M. Okabe, K. Ito, "Color Universal Design", 2008, https://jfly.uni-koeln.de/color/.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedaigc.errors import UserError
from fedaigc.extras import require_extra
from fedaigc.metrics.intervals import Estimate
from fedaigc.study.results.labels import Box, line_boxes, nearest_free, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES: tuple[Any, ...] = ("-", (0, (4, 1.2)), (0, (1.2, 1.0)), (0, (5, 1.2, 1.2, 1.2)))
MARKERS = ("o", "s", "^", "D")
GREY = "#777777"
INK = "#222222"
DPI = 150
FONT_PT = 9.0
LINE_PT = 1.35 * FONT_PT  # distance between lines of text
LOG_FROM = 20.0  # byte counts that span a larger ratio get a logarithmic axis
BYTES_PER_MB = 1e6


@dataclass(frozen=True)
class Curve:
    """The estimates of a strategy at increasing x. A curve of length one is a point.

    Attributes:
        name: Name of the strategy.
        x: Rounds done, or bytes sent since the start.
        y: Estimate at each x.

    Raises:
        ValueError: There are no points, or the lengths differ.
    """

    name: str
    x: tuple[float, ...]
    y: tuple[Estimate, ...]

    def __post_init__(self) -> None:
        if not self.x or len(self.x) != len(self.y):
            raise ValueError(
                f"{self.name!r}: expected as many x as y, at least one, got {self.x} and {self.y}"
            )


def plot_loss_by_round(path: Path, curves: Sequence[Curve], *, quantity: str = "denoising loss") -> None:
    """Plot mean loss against rounds, one curve per strategy, with its 95 % interval as a band.

    Args:
        path: The file; its suffix is the format: .png, .pdf or .svg.
        curves: The curves.
        quantity: Name of the y axis.

    Raises:
        UserError: The suffix is another one, there are no curves, or matplotlib is missing.
    """
    figure, axes = _new(path, curves, height=max(3.6, 1.0 + 1.6 * len(curves) * LINE_PT / 72))
    for i, curve in enumerate(curves):
        lows, highs = [e.low for e in curve.y], [e.high for e in curve.y]
        axes.fill_between(curve.x, lows, highs, color=_colour(i), alpha=0.13, linewidth=0)
    for i, curve in enumerate(curves):
        axes.plot(curve.x, [e.mean for e in curve.y], color=_colour(i), linestyle=_dash(i), linewidth=1.8)
        axes.plot(curve.x[-1], curve.y[-1].mean, "o", color=_colour(i), markersize=4)
    axes.set_xlabel("round", fontsize=FONT_PT)
    axes.set_ylabel(_with_interval(quantity, curves), fontsize=FONT_PT)
    axes.locator_params(axis="x", integer=True)
    axes.margins(x=0.02)
    _name_ends(figure, axes, curves)
    _save(figure, path)


def plot_loss_by_bytes(path: Path, curves: Sequence[Curve], *, quantity: str = "denoising loss") -> None:
    """Plot mean loss against bytes, up and down together, in megabytes (10^6 bytes), with 95 % error bars.

    A curve of one point is a dot, so many strategies at the end of their runs make a scatter plot. The axis is
    logarithmic if the bytes span more than a factor of 20. Arguments and errors are those of `plot_loss_by_round`.
    """
    figure, axes = _new(path, curves, height=max(4.2, 2.0 + 1.2 * len(curves) * LINE_PT / 72))
    for i, curve in enumerate(curves):
        means = [e.mean for e in curve.y]
        axes.errorbar(
            [x / BYTES_PER_MB for x in curve.x],
            means,
            yerr=[[e.mean - e.low for e in curve.y], [e.high - e.mean for e in curve.y]],
            color=_colour(i),
            marker=MARKERS[i // len(COLOURS) % len(MARKERS)],
            linestyle=_dash(i),
            markersize=5,
            linewidth=1.4,
            elinewidth=1,
            capsize=2,
        )
    every = [x for curve in curves for x in curve.x]
    if min(every) > 0 and max(every) / min(every) > LOG_FROM:
        from matplotlib.ticker import LogLocator, NullFormatter

        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("sent and received by all clients, MB", fontsize=FONT_PT)
    axes.set_ylabel(_with_interval(quantity, curves), fontsize=FONT_PT)
    axes.margins(x=0.12, y=0.1)
    _name_points(figure, axes, curves)
    _save(figure, path)


def plot_differences(
    path: Path,
    differences: Mapping[str, Estimate],
    reference: str,
    *,
    quantity: str = "denoising loss",
    lower_is_better: bool = True,
) -> None:
    """Plot paired differences to the reference with 95 % intervals, one row per strategy, the smallest on top.

    Rows whose interval excludes zero are blue, the others grey. This has no correction for the number of
    comparisons: see `statistics.holm`. Errors are those of `plot_loss_by_round`.

    Args:
        path: The file; its suffix is the format: .png, .pdf or .svg.
        differences: The estimate of each strategy.
        reference: Name of the reference.
        quantity: Name of the quantity.
        lower_is_better: Whether a difference below zero is better, for the label of the axis.
    """
    figure, axes = _new(path, list(differences), height=1.1 + len(differences) * 1.7 * LINE_PT / 72)
    names = sorted(differences, key=lambda name: differences[name].mean)
    axes.axvline(0, color=INK, linewidth=0.8)
    digits = _digits(list(differences.values()))
    for row, name in enumerate(names):
        e = differences[name]
        colour = GREY if e.low <= 0 <= e.high else COLOURS[0]
        axes.plot([e.low, e.high], [row, row], color=colour, linewidth=1.6)
        axes.plot(e.mean, row, "o", color=colour, markersize=6)
        # + 0.0 turns a negative zero into a positive one
        mean, low, high = (round(value, digits) + 0.0 for value in (e.mean, e.low, e.high))
        numbers = f"{mean:+.{digits}f} [{low:+.{digits}f}, {high:+.{digits}f}]"
        axes.annotate(
            numbers.replace("-", "\N{MINUS SIGN}"),
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            fontsize=FONT_PT,
            color=INK,
        )
    axes.set_yticks(range(len(names)), names, fontsize=FONT_PT)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.locator_params(axis="x", nbins=5)
    better = "left is better" if lower_is_better else "right is better"
    axes.set_xlabel(
        f"{quantity}: difference to {reference}, {better}\nmean and 95 % interval"
        + _count(differences.values()),
        fontsize=FONT_PT,
    )
    _save(figure, path)


def _new(path: Path, shown: Sequence[object], height: float) -> "tuple[Figure, Axes]":
    if not shown:
        raise UserError(f"nothing to draw in {path}: the comparison is empty")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"{path} ends in {path.suffix!r}: a plot is written as .png, .pdf or .svg")
    require_extra("plots", "plots")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    # a separate figure without pyplot, which would share state with other plots
    figure = Figure(figsize=(7.0, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=FONT_PT, color=GREY)
    return figure, axes


def _save(figure: "Figure", path: Path) -> None:
    import matplotlib

    path.parent.mkdir(parents=True, exist_ok=True)
    dates: dict[str, dict[str, None]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}, ".png": {}}
    # the same figure gives the same file
    with matplotlib.rc_context({"svg.hashsalt": "fedaigc"}):
        figure.savefig(path, dpi=DPI, metadata=dates[path.suffix])


def _name_ends(figure: "Figure", axes: "Axes", curves: Sequence[Curve]) -> None:
    """Names in the right margin at the height of each curve's end, each after a piece of its line."""
    figure.draw_without_rendering()
    to_fraction = axes.transData + axes.transAxes.inverted()
    ends = [(curve.x[-1], curve.y[-1].mean) for curve in curves]
    wanted = [float(to_fraction.transform(end)[1]) for end in ends]
    height_pt = axes.get_window_extent().height * 72 / figure.dpi
    for i, height in enumerate(spread(wanted, LINE_PT / height_pt)):
        leader = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3}
        axes.annotate("", ends[i], xytext=(1.07, height), textcoords="axes fraction", arrowprops=leader)
        piece: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        axes.plot([1.07, 1.11], [height] * 2, color=_colour(i), linestyle=_dash(i), linewidth=1.8, **piece)
        axes.text(1.12, height, curves[i].name, va="center", fontsize=FONT_PT, color=INK, **piece)


def _name_points(figure: "Figure", axes: "Axes", curves: Sequence[Curve]) -> None:
    """Names next to each curve's last point, at the nearest place that covers no name, point, bar or line."""
    figure.draw_without_rendering()

    def pixels(x: float, y: float) -> tuple[float, float]:
        across, up = axes.transData.transform((x / BYTES_PER_MB, y))
        return float(across), float(up)

    inside = Box(*axes.get_window_extent().extents)
    taken: list[Box] = []
    for i, curve in enumerate(curves):
        points = [pixels(x, e.mean) for x, e in zip(curve.x, curve.y, strict=True)]
        bars = [(*pixels(x, e.low), pixels(x, e.high)[1]) for x, e in zip(curve.x, curve.y, strict=True)]
        taken += [Box(x - 8, y - 8, x + 8, y + 8, i) for x, y in points]
        taken += [Box(x - 6, low - 3, x + 6, high + 3, i) for x, low, high in bars]
        taken += line_boxes(points, i)
    for i, curve in enumerate(curves):
        x, y = pixels(curve.x[-1], curve.y[-1].mean)
        text = axes.annotate(
            curve.name,
            (curve.x[-1] / BYTES_PER_MB, curve.y[-1].mean),
            xytext=(0, 0),
            textcoords="offset points",  # a pixel has another length in .svg and .pdf
            ha="center",
            va="center",
            fontsize=FONT_PT,
            color=INK,
            arrowprops={"arrowstyle": "-", "color": _colour(i), "linewidth": 0.7, "shrinkA": 0},
        )
        text.set_in_layout(False)  # it stays inside the axes
        extent = text.get_window_extent().padded(2)
        box = Box(x - extent.width / 2, y - extent.height / 2, x + extent.width / 2, y + extent.height / 2, i)
        offset = nearest_free(box, (x, y), taken, inside, nearest=6 * DPI / 72)
        taken += [box.moved(offset), *line_boxes([(x, y), (x + offset[0], y + offset[1])], i, half=1)]
        text.set_position((offset[0] * 72 / DPI, offset[1] * 72 / DPI))


def _colour(i: int) -> str:
    return COLOURS[i % len(COLOURS)]


def _dash(i: int) -> Any:
    return DASHES[i // len(COLOURS) % len(DASHES)]


def _with_interval(quantity: str, curves: Sequence[Curve]) -> str:
    return f"{quantity}\nmean and 95 % interval{_count(e for curve in curves for e in curve.y)}"


def _count(estimates: Iterable[Estimate]) -> str:
    found = {e.n for e in estimates}
    return f", n = {found.pop()}" if len(found) == 1 else ""


def _digits(estimates: Sequence[Estimate]) -> int:
    """The decimals that give the widest interval two significant figures."""
    widest = max(e.high - e.low for e in estimates)
    return max(0, 1 - math.floor(math.log10(widest))) if widest > 0 else 3
