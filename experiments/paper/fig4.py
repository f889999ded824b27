"""Figure 4 of [Du23]: seconds on a phone against denoising steps, and the line through them; prints JSON.

    python -m experiments.paper.fig4 --images docs/images/paper --record experiments/records/paper/fig4.json

The ten points of the paper, read from its figure to about a second, give the phone's seconds per step (slope) and
its fixed seconds (intercept), with 95 % intervals of least squares. The paper gives no joules.
"""

import argparse
import json
from pathlib import Path

from scipy.stats import linregress, t

from fedaigc.wireless.profiles import PHONE, PHONE_SECONDS, PHONE_STEPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--record", type=Path)
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    line = linregress(PHONE_STEPS, PHONE_SECONDS)
    wide = float(t.isf(0.025, len(PHONE_STEPS) - 2))

    def estimate(value: float, error: float) -> dict[str, float]:
        return {"mean": value, "low": value - wide * error, "high": value + wide * error}

    record = {
        "what": "seconds on the phone of [Du23] against denoising steps: s = intercept + slope n",
        "steps": PHONE_STEPS,
        "seconds": PHONE_SECONDS,
        "slope_s": estimate(float(line.slope), float(line.stderr)),
        "intercept_s": estimate(float(line.intercept), float(line.intercept_stderr)),
        "r squared": float(line.rvalue) ** 2,
        "profile": {"step_s": PHONE.step_s, "fixed_s": PHONE.image_s(0)},
        "saved by K = 5 of 11 shared steps, share of the seconds": 5 * PHONE.step_s / PHONE.image_s(11),
    }
    text = json.dumps(record, indent=1)
    print(text)
    if options.record is not None:
        options.record.parent.mkdir(parents=True, exist_ok=True)
        options.record.write_text(text + "\n", encoding="utf-8")
    if options.images is not None:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot as plt

        figure, axis = plt.subplots(figsize=(4.6, 3.3))
        axis.plot(PHONE_STEPS, PHONE_SECONDS, "o", label="[Du23], Figure 4")
        axis.plot([0, 20], [PHONE.image_s(0), PHONE.image_s(20)], label="the profile's line")
        axis.set(xlabel="denoising steps on the phone", ylabel="seconds", ylim=(0, None), xlim=(0, 21))
        axis.grid(alpha=0.3)
        axis.legend()
        options.images.mkdir(parents=True, exist_ok=True)
        figure.tight_layout()
        figure.savefig(options.images / "fig4_phone.png", dpi=110)


if __name__ == "__main__":
    main()
