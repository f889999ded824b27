"""The small pipeline of the federation's tests, and local work on it."""

import gc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedaigc.data.scenes import scenes_dataset
from fedaigc.data.sprites import STYLES
from fedaigc.device.training.local_round import SharedStageWork
from fedaigc.diffusion.adapters.stages import SharedState, new_adapter
from fedaigc.diffusion.encoding import EncodedImages, encode_images
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.rng import rng

MakeWork = Callable[..., SharedStageWork]


@pytest.fixture(scope="module", autouse=True)
def _few_objects_to_collect() -> Iterator[None]:
    """Some of Flower's strategies call gc.collect for every message, which is slow with torch loaded."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def pipe(small_model: Path) -> Any:
    return load_pipeline(str(small_model))


@pytest.fixture(scope="module")
def data(pipe: Any) -> EncodedImages:
    rows = list(scenes_dataset(4, 0, styles=(STYLES[0],)))
    return encode_images(
        pipe, [row["image"] for row in rows], [row["caption"] for row in rows], height=32, width=32
    )


@pytest.fixture
def start(pipe: Any) -> SharedState:
    """Return slightly trained factors with a nonzero B, so that A has a gradient."""
    fresh = new_adapter(pipe, generator=rng(0, "start"), rank=2, alpha=4.0)
    noise = rng(1, "start")
    lora = {
        layer: (down, 0.1 * up.new_empty(up.shape).normal_(generator=noise))
        for layer, (down, up) in fresh.lora.items()
    }
    return SharedState("base", lora, 2, 4.0, boundary_log_snr=boundary_log_snr(pipe, 500))


@pytest.fixture
def make_work(pipe: Any, data: EncodedImages) -> MakeWork:
    """Local work with plain SGD, whose steps can easily be repeated by hand."""

    def make(
        steps: int = 1, *, round: int = 1, optimizer: str = "sgd", rate: float = 0.05
    ) -> SharedStageWork:
        settings = TrainingSettings(batch_size=2, learning_rate=rate, optimizer=optimizer)  # type: ignore[arg-type]
        return SharedStageWork(pipe, data, settings, steps, 7, round)

    return make
