"""The picture of a calibration: damage over distance, a curve for each hand-off."""

from pathlib import Path

from fedaigc.counting import counted
from fedaigc.semantics.denoiser.calibration import Calibration


def plot_calibration(calibration: Calibration, path: Path) -> None:
    """Write the measured pairs, the fitted curves and their 95 % intervals as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    for number, k in enumerate(calibration.handoffs):
        mean, low, high = calibration.curve[k]
        colour = f"C{number}"
        axis.fill_between(calibration.knots, low, high, color=colour, alpha=0.15, linewidth=0)
        axis.plot(calibration.knots, mean, color=colour, label=f"K = {k}")
        axis.plot(calibration.distances, calibration.damages[str(k)], ".", color=colour, markersize=3)
    axis.set_xlim(0)
    axis.set_ylim(0)
    axis.set_xlabel("sharing distance of the two prompts")
    axis.set_ylabel("damage: change of the final latents, as a share")
    axis.set_title(
        f"{calibration.scheduler}, N = {calibration.steps}, guidance {calibration.guidance_scale:g}, "
        f"{counted(len(calibration.distances), 'pair')}",
        fontsize=10,
    )
    axis.legend(frameon=False)
    figure.savefig(path, dpi=120)
