"""The embedded model, the small model and the knowledge graph, loaded once per session, and small runs."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

# before anything of the package is imported, and so checked
from tests import typechecker as typechecker

# a busy machine is slow, which says nothing about the code
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


# begun first, so that no process is left with one of them when all others are done
LONGEST = (
    "tests/study/test_compare.py",
    "tests/federation/runtime/test_flower_runtime.py",
    "tests/federation/server/test_byzantine.py",
    "tests/packaging",
    "tests/diffusion/sampling/test_segment_exact.py",
    "tests/federation",
    "tests/api",
    "tests/diffusion",
    "tests/wireless/test_fast_radio.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, in the order of `LONGEST`."""

    def place(item: pytest.Item) -> int:
        return next((at for at, start in enumerate(LONGEST) if item.nodeid.startswith(start)), len(LONGEST))

    items.sort(key=place)


# imported inside: most tests need neither torch nor a model
@pytest.fixture(scope="module")
def pipe() -> Any:
    import torch

    from fedaigc.diffusion.loading import load_pipeline

    torch.set_num_threads(1)
    return load_pipeline()


@pytest.fixture(scope="module")
def base_hash(pipe: Any) -> str:
    from fedaigc.diffusion.loading import base_fingerprint

    return base_fingerprint(pipe)


@pytest.fixture(scope="session")
def taxonomy() -> Any:
    from fedaigc.semantics.concepts.taxonomy import Taxonomy

    return Taxonomy.load()


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: Any) -> Path:
    """The folder of a pipeline with 60,000 weights for 32 x 32 pixels."""
    from tests.small_run import save_small_model

    folder: Path = tmp_path_factory.mktemp("model") / "small"
    save_small_model(folder)
    return folder


@pytest.fixture(scope="session")
def atlas_of_small_model(small_model: Path, tmp_path_factory: Any) -> Path:
    """The file of an atlas of the small model; its calibration is small.json beside it. Tests change neither."""
    from tests.small_atlas import small_atlas

    return small_atlas(tmp_path_factory.mktemp("atlas"), small_model)


@pytest.fixture
def quick_replies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let agents and sharers reply without the time by which they hide how long they computed."""
    from fedaigc.deployment.agent import agent
    from fedaigc.deployment.peer import sharing

    monkeypatch.setattr(agent, "_SIGNATURES_FLOOR_S", 1e-3)
    monkeypatch.setattr(sharing, "_MATCH_FLOOR_S", 1e-3)


@pytest.fixture
def make_run(small_model: Path, tmp_path: Path) -> Any:
    """Configurations and homes of runs in a folder of the test (see `tests.small_run.run_maker`)."""
    from tests.small_run import run_maker

    return run_maker(small_model, tmp_path)
