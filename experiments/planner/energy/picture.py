"""The plot: joules of a picture, of the devices, and seconds, against the size of a group."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

# label, colour, line, marker and its size: in two panels members cost what each alone costs, and all stay visible
_WAYS = {
    ("none", "edge"): ("each alone", "#777777", "-", "o", 11),
    ("two_levels", "member"): ("two levels, a member", "#E69F00", "--", "^", 8),
    ("greedy_tree", "member"): ("tree, members", "#D55E00", "-", "^", 4),
    ("two_levels", "edge"): ("two levels, edge server", "#56B4E9", "--", "s", 7),
    ("greedy_tree", "edge"): ("tree, edge server", "#0072B2", "-", "s", 4),
}
_PANELS = (
    ("joules", "joules of all machines", "joules a picture"),
    ("busiest device", "joules of the device that spends most", "joules"),
    ("seconds", "seconds until a picture is there", "seconds, mean"),
)


def draw(rows: Sequence[dict[str, Any]], target: Path) -> None:
    """Plot the rows of a record."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(_PANELS), figsize=(12.6, 4.0))
    for axis, (key, title, label) in zip(axes, _PANELS, strict=True):
        for way, (told, colour, line, marker, wide) in _WAYS.items():
            mine = [row for row in rows if (row["planner"], row["executor"]) == way]
            mean = [row[key]["mean"] for row in mine]
            error = [
                [max(0.0, row[key]["mean"] - row[key]["low"]) for row in mine],
                [max(0.0, row[key]["high"] - row[key]["mean"]) for row in mine],
            ]
            sizes = [row["size"] for row in mine]
            axis.errorbar(
                sizes,
                mean,
                error,
                color=colour,
                ls=line,
                marker=marker,
                ms=wide,
                mfc=colour if wide < 5 else "none",
                lw=1.4,
                capsize=3,
                label=told,
            )
        axis.set_xscale("log", base=2)
        axis.set_xticks(sizes, [str(size) for size in sizes])
        axis.minorticks_off()
        axis.set_ylim(0, 1.08 * max(row[key]["high"] for row in rows))
        axis.set_xlabel("prompts in the group, the nearest ones")
        axis.set_ylabel(label)
        axis.set_title(title, fontsize=10)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(_WAYS), fontsize=9, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    plt.close(figure)
