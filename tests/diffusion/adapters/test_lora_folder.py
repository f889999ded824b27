"""LoRA folders: what they hold, what is refused, and that nothing is replaced unasked."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

from fedaigc.diffusion.adapters.lora_folder import LORA_FILE, export_lora, import_lora
from fedaigc.diffusion.adapters.stages import Adapter, adapted_layers, install_personal, new_adapter
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.errors import UserError
from fedaigc.rng import rng
from fedaigc.storage.tensor_file import read_tensors
from tests.diffusion.tiny_pipelines import tiny_pipeline


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
        r"expected A \(2, .* and B \(\d+, 2": {b: up[:, :1].clone()},
        "only lora_A": {b: None},
        "not finite": {b: up / 0},
        "nowhere.to_q": {"unet.nowhere.to_q.lora_A.weight": down, "unet.nowhere.to_q.lora_B.weight": up},
        r"a text encoder \('text_encoder.x": {"text_encoder.x.lora_A.weight": down},
        r"a bias of its factors \(lora_bias\)": {b.replace(".weight", ".bias"): down.flatten()[:4].clone()},
        "biases of the model": {f"unet.{layer}.bias": down.flatten()[:4].clone()},
        "LoKr": {f"unet.{layer}.lokr_w1": down},
        "LoHa": {f"unet.{layer}.hada_w1_a": down},
        "Tucker": {f"unet.{layer}.lora_mid.weight": down},
        "whole weights": {f"unet.{layer}.diff": down},
        "factors without an alpha, as others have": {f"unet.{layer}.alpha": torch.tensor(1.0)},
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
    for name, value in {
        "use_dora": True,
        "lora_bias": True,
        "bias": "all",
        "modules_to_save": ["conv_in"],
        "init_lora_weights": "pissa_niter_4",
        "layer_replication": [[0, 1]],
        "use_a_feature_of_tomorrow": 3,
        "peft_type": "LOHA",
    }.items():
        save_file(tensors, file, {"lora_adapter_metadata": json.dumps({**config, f"unet.{name}": value})})
        with pytest.raises(UserError, match=name):
            import_lora(pipe, file.parent)
    file.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="damaged"):
        import_lora(pipe, file.parent)


def drawn(pipe: Any, adapter: Adapter | None) -> Tensor:
    """Return the denoiser's answer to noise with an adapter, or with what the pipeline has."""
    if adapter is not None:
        install_personal(pipe, adapter)
    noise = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    text = torch.randn((1, 5, 32), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        answer: Tensor = pipe.unet(noise, 500, encoder_hidden_states=text).sample
    return answer


def moved(pipe: Any, rank: int = 3) -> Adapter:
    adapter = new_adapter(pipe, generator=rng(0, "a"), rank=rank, alpha=5.0)
    noise = rng(0, "b")
    return adapter.with_tensors(
        {n: v + 0.2 * torch.randn(v.shape, generator=noise) for n, v in adapter.tensors().items()}
    )


@pytest.mark.parametrize(
    "settings",
    [
        {"use_rslora": True},
        {"alpha_pattern": {"attn1.to_q": 20, "resnets.0.conv1": 1}},
        {"rank_pattern": {"attn2.to_k": 1, "to_v": 7}},
        {"rank_pattern": {"to_v": 7}, "alpha_pattern": {"to_v": 3}, "use_rslora": True},
        {"init_lora_weights": "gaussian", "lora_dropout": 0.5},
    ],
)
@pytest.mark.parametrize("folder", ["peft", "diffusers"])
def test_what_peft_applies_is_applied_exactly(settings: dict[str, Any], folder: str, tmp_path: Path) -> None:
    """The picture is that of peft's own layers, which trained the adapter and saved it."""
    trained = tiny_pipeline("sd1")
    config = LoraConfig(r=3, lora_alpha=5, target_modules=sorted(adapted_layers(trained)), **settings)
    trained.unet.add_adapter(config)
    noise = rng(0, "b")
    with torch.no_grad():
        for name, value in trained.unet.named_parameters():
            if "lora_B" in name:
                value.copy_(0.2 * torch.randn(value.shape, generator=noise))
    if folder == "peft":
        state = {f"base_model.model.{n}": v for n, v in get_peft_model_state_dict(trained.unet).items()}
        save_file(state, tmp_path / "adapter_model.safetensors")
        config.save_pretrained(str(tmp_path))
    else:
        state = get_peft_model_state_dict(trained.unet)
        described = {n: sorted(v) if isinstance(v, set) else v for n, v in config.to_dict().items()}
        trained.save_lora_weights(
            tmp_path, unet_lora_layers=state, unet_lora_adapter_metadata={**described, "task_type": None}
        )
    trained.unet.eval()
    expected, plain = drawn(trained, None), drawn(tiny_pipeline("sd1"), None)
    assert float((expected - plain).abs().max()) > 0.01
    own = tiny_pipeline("sd1")
    torch.testing.assert_close(drawn(own, import_lora(own, tmp_path)), expected, rtol=1e-4, atol=1e-5)


def kohya(adapter: Adapter, alphas: dict[str, float]) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for layer, (down, up) in adapter.lora.items():
        name = "lora_unet_" + layer.replace(".", "_")
        found |= {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}
        found[f"{name}.alpha"] = torch.tensor(alphas[layer])
    return found


@pytest.mark.parametrize("one_alpha", [True, False])
def test_kohya_s_names_and_alphas_are_applied(one_alpha: bool, tmp_path: Path) -> None:
    pipe = tiny_pipeline("sd1")
    adapter = moved(pipe)
    alphas = {layer: 2.0 if one_alpha else 1.0 + i for i, layer in enumerate(adapter.lora)}
    save_file(kohya(adapter, alphas), tmp_path / "lora.safetensors")
    found = import_lora(pipe, tmp_path / "lora.safetensors")
    for layer, (down, up) in adapter.lora.items():
        a, b = found.lora[layer]
        change = found.scale * (b.flatten(1) @ a.flatten(1))
        expected = alphas[layer] / 3 * (up.flatten(1) @ down.flatten(1))
        torch.testing.assert_close(change, expected, rtol=1e-5, atol=1e-6)
    if one_alpha:
        assert (found.rank, found.alpha) == (3, 2.0)
        stranger = tiny_pipeline("sd1")
        stranger.load_lora_weights(str(tmp_path), weight_name="lora.safetensors")
        torch.testing.assert_close(drawn(pipe, found), drawn(stranger, None), rtol=1e-4, atol=1e-5)


def test_kohya_s_other_features_are_named(tmp_path: Path) -> None:
    pipe = tiny_pipeline("sd1")
    good = kohya(moved(pipe), dict.fromkeys(moved(pipe).lora, 1.0))
    name = next(iter(good)).partition(".")[0]
    wrong: dict[str, dict[str, Tensor | None]] = {
        r"without its partner lora_up": {f"{name}.lora_up.weight": None},
        r"without its partner lora_down": {f"{name}.lora_down.weight": None},
        r"a text encoder \('lora_te_": {"lora_te_x.lora_down.weight": torch.ones(2, 2)},
        "DoRA": {f"{name}.dora_scale": torch.ones(2)},
        "LoHa": {f"{name}.hada_w1_a": torch.ones(2, 2)},
        "a_surprise": {"lora_unet_x.a_surprise": torch.ones(2)},
    }
    for told, change in wrong.items():
        tensors = {n: v for n, v in {**good, **change}.items() if v is not None}
        save_file(tensors, tmp_path / "lora.safetensors")
        with pytest.raises(UserError, match=told):
            import_lora(pipe, tmp_path / "lora.safetensors")


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
