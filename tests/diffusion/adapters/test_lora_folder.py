"""LoRA folders: what they hold, what is refused, and that nothing is replaced unasked."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fedaigc.diffusion.adapters.lora_folder import LORA_FILE, export_lora, import_lora
from fedaigc.diffusion.adapters.stages import new_adapter
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.errors import UserError
from fedaigc.rng import rng
from fedaigc.storage.tensor_file import read_tensors


@pytest.fixture(scope="module")
def pipe(small_model: Path) -> Any:
    return load_pipeline(str(small_model))


def with_tensors(file: Path, change: dict[str, Tensor | None]) -> None:
    metadata, tensors = read_tensors(file)
    kept = {name: value for name, value in {**tensors, **change}.items() if value is not None}
    save_file(kept, file, metadata)


def test_a_wrong_lora_is_refused_with_what_was_given_and_expected(pipe: Any, tmp_path: Path) -> None:
    good = new_adapter(pipe, generator=rng(0, "a"), rank=2)
    layer, (down, up) = next(iter(good.lora.items()))
    a, b = f"unet.{layer}.lora_A.weight", f"unet.{layer}.lora_B.weight"
    cases: dict[str, dict[str, Tensor | None]] = {
        rf"factors A \(2, {down.shape[1] - 1}.*expected A \(2, {down.shape[1]}": {a: down[:, 1:].clone()},
        r"layers of ranks \[1, 2\], expected one": {a: down[:1].clone(), b: up[:, :1].clone()},
        r"expected A \(2, .* and B \(\d+, 2": {b: up[:, :1].clone()},
        "only lora_A": {b: None},
        "not finite": {b: up / 0},
        "nowhere.to_q": {"unet.nowhere.to_q.lora_A.weight": down, "unet.nowhere.to_q.lora_B.weight": up},
        "text_encoder.x": {"text_encoder.x.lora_A.weight": down},
        "lora_C": {f"unet.{layer}.lora_C.weight": down},
        "DoRA": {f"unet.{layer}.lora_magnitude_vector": down},
    }
    for number, (told, change) in enumerate(cases.items()):
        file = export_lora(pipe, good, tmp_path / str(number))
        with_tensors(file, change)
        with pytest.raises(UserError, match=told):
            import_lora(pipe, file.parent)
    file = export_lora(pipe, good, tmp_path / "extended")
    metadata, tensors = read_tensors(file)
    config = json.loads(metadata["lora_adapter_metadata"])
    for name, value in (("use_rslora", True), ("use_dora", True), ("alpha_pattern", {layer: 1})):
        save_file(tensors, file, {"lora_adapter_metadata": json.dumps({**config, f"unet.{name}": value})})
        with pytest.raises(UserError, match=name):
            import_lora(pipe, file.parent)
    file.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="damaged"):
        import_lora(pipe, file.parent)


def test_a_file_names_its_base_model_and_fits_no_other(pipe: Any, tmp_path: Path) -> None:
    adapter = new_adapter(pipe, generator=rng(0, "a"), rank=2)
    export_lora(pipe, adapter, tmp_path, base_hash="a" * 64)
    assert import_lora(pipe, tmp_path, base_hash="a" * 64).rank == 2
    with pytest.raises(UserError, match=f"{'a' * 64}, this pipeline has {'b' * 64}"):
        import_lora(pipe, tmp_path, base_hash="b" * 64)


def test_a_folder_with_content_is_kept(pipe: Any, tmp_path: Path) -> None:
    adapter = new_adapter(pipe, generator=rng(0, "a"), rank=2)
    before = export_lora(pipe, adapter, tmp_path).read_bytes()
    (tmp_path / "notes.txt").write_text("mine")
    other = new_adapter(pipe, generator=rng(0, "b"), rank=3)
    with pytest.raises(UserError, match="not empty"):
        export_lora(pipe, other, tmp_path)
    assert (tmp_path / LORA_FILE).read_bytes() == before
    export_lora(pipe, other, tmp_path, exist_ok=True)
    assert import_lora(pipe, tmp_path).rank == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", LORA_FILE]


def test_an_adapter_of_another_architecture_is_not_exported(pipe: Any, tmp_path: Path) -> None:
    other = new_adapter(load_pipeline(), generator=rng(0, "a"), rank=2)
    with pytest.raises(UserError, match=r"not among the adapted layers|expected A"):
        export_lora(pipe, other, tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_pickles_are_not_opened(pipe: Any, tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_lora_weights.bin")
    with pytest.raises(UserError, match="no safetensors file"):
        import_lora(pipe, tmp_path)
