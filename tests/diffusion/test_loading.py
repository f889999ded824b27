"""Models on disk: variants, single files, missing packages, and the size that a model was made for."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest

from fedaigc.api.denoising import default_side
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.model_size import model_size
from fedaigc.errors import UserError
from fedaigc.federation.config.config_file import config_text
from fedaigc.federation.config.model_config import ModelSection
from fedaigc.federation.config.run_config import read_config
from tests.diffusion.tiny_pipelines import tiny_pipeline


def copied(small_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small_model, tmp_path / "model"))


def test_a_folder_with_one_variant_is_loaded_and_others_are_named(small_model: Path, tmp_path: Path) -> None:
    folder = copied(small_model, tmp_path)
    plain = base_fingerprint(load_pipeline(str(folder)))
    files = sorted(folder.glob("*/*.safetensors"))
    for file in files:
        file.rename(file.with_suffix(".fp16.safetensors"))
    assert base_fingerprint(load_pipeline(str(folder))) == plain
    assert base_fingerprint(load_pipeline(str(folder), variant="fp16")) == plain
    with pytest.raises(
        UserError, match=r"lacks the variant 'bf16' and has the variant 'fp16': set `variant`"
    ):
        load_pipeline(str(folder), variant="bf16")
    files[-1].with_suffix(".fp16.safetensors").rename(files[-1])
    with pytest.raises(UserError, match=r"lacks files without a variant and has the variant 'fp16'"):
        load_pipeline(str(folder))


def test_a_scheduler_without_its_package_is_named_with_the_package(small_model: Path, tmp_path: Path) -> None:
    folder = copied(small_model, tmp_path)
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DPMSolverSDEScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(UserError, match=r"needs a package that is missing.*torchsde.*pip install torchsde"):
        load_pipeline(str(folder))


def test_a_single_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"")
    with pytest.raises(UserError, match=r"single file.*\n.*\n.*from_single_file\('.*model.safetensors'\)"):
        load_pipeline(str(file))


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_the_size_is_that_of_the_pipeline(family: str, tmp_path: Path) -> None:
    pipe: Any = tiny_pipeline(family)
    pipe.save_pretrained(tmp_path)
    side = default_side(pipe)
    assert model_size(str(tmp_path)) == (side, side)
    assert side == {"flux": 256}.get(family, 16)


def test_a_configuration_takes_the_size_of_its_model(small_model: Path, tmp_path: Path) -> None:
    name = str(small_model)
    assert (ModelSection().height, ModelSection().width) == (64, 64)
    own = ModelSection(name=name)
    assert (own.height, own.width) == (32, 32)
    half = ModelSection(name=name, height=48)
    assert (half.height, half.width) == (48, 32)
    assert ModelSection.model_validate_json(own.model_dump_json()) == own
    # the printed configuration leaves the size to the model
    (tmp_path / "run.toml").write_text(config_text().replace('name = "embedded"', f'name = "{name}"'))
    read = read_config(tmp_path / "run.toml").model
    assert (read.name, read.height, read.width) == (name, 32, 32)
    assert model_size(str(tmp_path / "nowhere")) is None


def test_half_precision_that_a_cpu_is_slow_in_is_told(small_model: Path) -> None:
    with pytest.warns(UserWarning, match="float16 on a CPU: a step takes about 10 times as long"):
        load_pipeline(str(small_model), dtype="float16", device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pipeline(str(small_model), dtype="bfloat16")
