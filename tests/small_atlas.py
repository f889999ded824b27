"""An atlas and a calibration of the small model, for runs of 4 steps of 32 x 32 pixels."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.semantics.denoiser.atlas_build import build_tree
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, phi

CAPTIONS = [
    f"a {thing} on a {place}" for thing in ("dog", "cat", "cup") for place in ("table", "road", "bed")
]


def small_atlas(folder: Path, small_model: Path) -> Path:
    """Write an atlas of the small model, with a calibration beside it in which nothing does damage at K = 2."""
    for name, content in _files(small_model).items():
        (folder / name).write_bytes(content)
    return folder / "small.atlas"


@cache
def _files(small_model: Path) -> dict[str, bytes]:
    """Build both files once a process: to embed the captions takes a second."""
    pipe = load_pipeline(str(small_model))
    plan = build_plan(
        pipe,
        num_inference_steps=4,
        guidance_scale=5.0,
        height=32,
        width=32,
        base_hash=base_fingerprint(pipe),
    )
    space = DenoiserSpace.of(plan)
    captions = sorted(CAPTIONS)
    # as many pairs as it takes to say that few pictures are damaged
    far = tuple(np.linspace(0, 1e6, 40).tolist())
    damages: dict[str, tuple[float, ...]] = {"2": (0.0,) * 40, "3": (0.7,) * 40}
    calibration = Calibration(space.hash, plan.fingerprint(), "DDIMScheduler", 4, 5.0, "c", 0, far, damages)
    with TemporaryDirectory() as folder:
        tree = build_tree(space.hash, {"model": "small"}, captions, phi(pipe, space, captions), 2)
        tree.write(Path(folder) / "small.atlas")
        calibration.write(Path(folder) / "small.json")
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}
