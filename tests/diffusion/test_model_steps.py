"""A model of few steps says so by its scheduler, in its folder or loaded."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from diffusers import EulerDiscreteScheduler, LCMScheduler

from fedaigc.diffusion.model_steps import default_shared_steps, default_steps


@pytest.mark.parametrize(
    ("scheduler", "steps"), [("LCMScheduler", 4), ("SCMScheduler", 2), ("DDIMScheduler", 11)]
)
def test_the_scheduler_of_a_folder_says_it(tmp_path: Path, scheduler: str, steps: int) -> None:
    (tmp_path / "scheduler").mkdir()
    config = tmp_path / "scheduler" / "scheduler_config.json"
    config.write_text(json.dumps({"_class_name": scheduler}), encoding="utf-8")
    assert default_steps(str(tmp_path)) == steps
    config.write_text("[]", encoding="utf-8")
    assert default_steps(str(tmp_path)) == 11


def test_shipped_models_and_loaded_ones_say_it_too() -> None:
    assert [default_steps(name) for name in ("embedded", "embedded-lcm", "/no/such/folder")] == [11, 4, 11]
    assert default_steps(SimpleNamespace(scheduler=LCMScheduler())) == 4
    assert default_steps(SimpleNamespace(scheduler=EulerDiscreteScheduler())) == 11


def test_at_most_a_third_of_few_steps_is_shared() -> None:
    found = [default_shared_steps(steps) for steps in range(1, 13)]
    assert found == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 3]
