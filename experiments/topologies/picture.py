"""The plot: where devices move, and what a prompt takes by topology."""

from pathlib import Path
from typing import Any

import numpy as np

from experiments.topologies.session import Setting

_NAMES = {
    "alone": "each\nalone",
    "edge": "one\nedge",
    "edges": "four\nedges",
    "pair": "pairs",
    "cluster": "cluster",
}
_PANELS = (
    ("denoising steps a prompt", "steps_devices", "steps_edges"),
    ("joules a prompt", "joules_devices", "joules_edges"),
    ("seconds until a picture is there", "seconds", None),
    ("kilobits on the air a prompt", "kbit", None),
)
_DEVICES, _EDGES = "#1f77b4", "#ff7f0e"
_SHOWN_S = 600.0


def draw(record: dict[str, Any], setting: Setting, target: Path) -> None:
    """Plot a record, with the ways of the devices of one seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 5, figsize=(17, 3.9), gridspec_kw={"width_ratios": [1.25, 1, 1, 1, 1]})
    _map(axes[0], setting, record["side"])
    for axis, (title, devices, edges) in zip(axes[1:], _PANELS, strict=True):
        for place, name in enumerate(_NAMES):
            way = record["ways"][name]
            below = way[devices]["mean"]
            found = [(below, way[devices], 0.0, _DEVICES)]
            if edges is not None:
                found.append((way[edges]["mean"], way[edges], below, _EDGES))
            for height, interval, bottom, colour in found:
                if height:
                    error = [[max(0.0, height - interval["low"])], [max(0.0, interval["high"] - height)]]
                    axis.bar(place, height, bottom=bottom, color=colour, yerr=error, capsize=3, width=0.7)
        axis.set_xticks(range(len(_NAMES)), _NAMES.values(), fontsize=8)
        axis.set_xlim(-0.6, len(_NAMES) - 0.4)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[1].bar(0, 0, color=_DEVICES, label="on devices")
    axes[1].bar(0, 0, color=_EDGES, label="on edges")
    axes[1].legend(fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
    figure.tight_layout()
    target.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(target, dpi=110)
    plt.close(figure)


def _map(axis: Any, setting: Setting, side: float) -> None:
    times = np.arange(setting.at_s, setting.at_s + _SHOWN_S, 5.0)
    ways = np.array([setting.movement.at(time) for time in times])
    for device in range(ways.shape[1]):
        axis.plot(*ways[:, device].T, lw=0.6, color="0.6")
    axis.plot(*ways[0].T, "o", ms=5, color=_DEVICES, label="device, and its way in 10 min")
    axis.plot(*setting.sites["edge"].T, "s", ms=9, color=_EDGES, label="one edge")
    axis.plot(*setting.sites["edges"].T, "^", ms=8, color=_EDGES, label="four edges")
    axis.set(xlim=(0, side), ylim=(0, side), aspect="equal", xlabel="metres", ylabel="metres")
    axis.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2), frameon=False)
    axis.set_title("devices that move, one of the seeds", fontsize=10)
