"""Build the atlas of the embedded model that ships with the package, and its calibrations.

    python -m experiments.default_atlas                 # all files, into fedaigc/assets
    python -m experiments.default_atlas --only atlas

The captions are those of `captions`, and for the calibration of Scenes those of Scenes without style; the plan is that
of a run's default settings.
"""

import argparse
from pathlib import Path

from experiments.default_atlas.build import SCENES_PAIRS, build, calibrated, default_setting
from experiments.default_atlas.captions import default_captions, scenes_captions
from experiments.quality.sampling import one_thread
from fedaigc import assets
from fedaigc.semantics.denoiser.shipped import ATLAS, CALIBRATION, SCENES_CALIBRATION


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=("atlas", "calibration", "scenes"))
    parser.add_argument("--folder", type=Path, help="where to write; default: the package's assets")
    options = parser.parse_args()
    one_thread()
    pipe, plan, space = default_setting()
    folder = options.folder or Path(assets.__file__).parent
    if options.only in (None, "atlas"):
        atlas = build(pipe, space, default_captions())
        atlas.write(folder / ATLAS)
        print(f"{len(atlas.captions)} captions, {len(atlas)} nodes, hash {atlas.hash}")
    if options.only in (None, "calibration"):
        calibrated(pipe, plan, space, default_captions()).write(folder / CALIBRATION)
    if options.only in (None, "scenes"):
        calibrated(pipe, plan, space, scenes_captions(), SCENES_PAIRS).write(folder / SCENES_CALIBRATION)


if __name__ == "__main__":
    main()
