"""A federation that starts from an existing LoRA, and its result in diffusers, by `import fedaigc as fa` alone."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import fedaigc as fa
from tests.diffusion.tiny_pipelines import SIZE, tiny_pipeline

TRAINING = {"local_steps": 2, "personal_steps": 0, "batch_size": 2, "learning_rate": 1e-2}
FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    return fa.scenes(tmp_path / "homes", clients=2, images=3)


def run(homes: Path, model: Any, **settings: Any) -> fa.Run:
    common = {"rounds": 1, "training": TRAINING, "generation": {"enabled": False}, "strategy": "fedit"}
    return fa.simulate(homes, model=model, progress=False, **{**common, **settings})


def random_lora(pipe: Any, folder: Path, *, rank: int, alpha: float, targets: list[str]) -> Path:
    """Write a LoRA with peft and diffusers alone, as their training scripts do."""
    from diffusers.training_utils import _collate_lora_metadata
    from peft import LoraConfig, get_peft_model_state_dict

    part = "unet" if getattr(pipe, "unet", None) is not None else "transformer"
    network = getattr(pipe, part)
    torch.manual_seed(5)
    network.add_adapter(
        LoraConfig(r=rank, lora_alpha=alpha, target_modules=targets, init_lora_weights=False)  # type: ignore[arg-type]
    )
    weights = get_peft_model_state_dict(network)
    metadata = _collate_lora_metadata({part: network})
    pipe.save_lora_weights(folder, **{f"{part}_lora_layers": weights, **metadata})
    network.delete_adapters("default")
    network.unload_lora()
    return folder


def picture(pipe: Any) -> torch.Tensor:
    made = pipe(
        "an apple",
        num_inference_steps=2,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    )
    return torch.as_tensor(made.images)


def close(left: torch.Tensor, right: torch.Tensor) -> bool:
    return bool(torch.allclose(left, right, atol=2e-5))


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_the_run_begins_with_the_function_that_diffusers_loads(
    family: str, homes: Path, tmp_path: Path
) -> None:
    pipe = tiny_pipeline(family)
    bare = picture(pipe)
    targets = ["to_q", "to_out.0", "proj_in" if family in ("sd1", "sdxl") else "proj_out"]
    folder = random_lora(pipe, tmp_path / "lora", rank=3, alpha=1.5, targets=targets)
    begun = run(homes, pipe, rounds=0, start_from=folder, adapter={"boundary_timestep": None})
    assert (begun.shared.rank, begun.shared.alpha) == (3, 1.5)
    fa.install(pipe, begun.shared)
    ours = picture(pipe)
    fa.remove(pipe)
    assert torch.equal(picture(pipe), bare)
    pipe.load_lora_weights(folder)
    theirs = picture(pipe)
    assert close(ours, theirs)
    assert not close(ours, bare)


def test_a_lora_is_trained_on_in_the_shared_stage_and_exported(homes: Path, tmp_path: Path) -> None:
    pipe = tiny_pipeline("sdxl")
    folder = random_lora(pipe, tmp_path / "lora", rank=2, alpha=4.0, targets=["to_q", "to_v", "conv1"])
    begun = run(homes, pipe, rounds=0, start_from=folder, output=tmp_path / "begun")
    done = run(homes, pipe, start_from=folder / FILE, output=tmp_path / "done")
    assert done.shared.lora.keys() == begun.shared.lora.keys()
    assert done.record.shared_hash != begun.record.shared_hash
    moved = {
        name: float((tensor - begun.shared.tensors()[name]).norm())
        for name, tensor in done.shared.tensors().items()
    }
    assert all(moved.values())
    exported = fa.export_lora(done, tmp_path / "exported")
    fa.install(pipe, done.shared)
    ours = picture(pipe)
    fa.remove(pipe)
    pipe.load_lora_weights(exported.parent)
    assert close(picture(pipe), ours)
    pipe.unload_lora_weights()
    # the way back
    again = run(homes, pipe, rounds=0, start_from=exported.parent, output=tmp_path / "again")
    assert again.record.shared_hash == done.record.shared_hash
    assert fa.import_lora(pipe, str(exported.parent)).alpha == 4.0
    with pytest.raises(fa.Error, match="not empty"):
        fa.export_lora(done, exported.parent)


def test_a_peft_folder_and_wider_layers(homes: Path, small_model: Path, tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model

    pipe: Any = fa.load_pipeline(str(small_model))
    config = LoraConfig(r=2, lora_alpha=2, target_modules=["to_q"], init_lora_weights=False)
    get_peft_model(pipe.unet, config).save_pretrained(str(tmp_path / "peft"))
    model = {"name": str(small_model), "height": 32, "width": 32}
    narrow = run(homes, model, start_from=tmp_path / "peft", training={**TRAINING, "personal_steps": 1})
    layers = set(narrow.shared.lora)
    assert layers
    assert all(layer.endswith(".to_q") for layer in layers)
    from fedaigc.device.home.home import Home
    from fedaigc.device.home.versions import AdapterVersions

    for home in (homes / "00", homes / "01"):
        personal = AdapterVersions(Home.open(home)).current_personal()
        assert personal is not None
        assert set(personal.lora) == layers
    wide = run(
        homes,
        model,
        start_from=tmp_path / "peft",
        target_modules=["to_q", "ff.net.2"],
        rounds=0,
        output=tmp_path / "wide",
    )
    assert {layer.rpartition("ff.net")[1] for layer in wide.shared.lora} == {"", "ff.net"}
    given = fa.import_lora(fa.load_pipeline(str(small_model)), tmp_path / "peft")
    for layer, (down, up) in wide.shared.lora.items():
        if layer in layers:
            assert torch.equal(up, given.lora[layer][1])
            assert torch.equal(down, given.lora[layer][0])
        else:
            assert not up.any()
    with pytest.raises(fa.Error, match=r"changes layer '.*to_q', which adapter.target_modules does not"):
        run(homes, model, start_from=tmp_path / "peft", target_modules=["to_v"])


def test_a_start_that_cannot_be_is_refused_before_training(
    homes: Path, small_model: Path, tmp_path: Path
) -> None:
    pipe = fa.load_pipeline(str(small_model))
    model = {"name": str(small_model), "height": 32, "width": 32}
    first = run(homes, model, adapter={"rank": 2}, output=tmp_path / "first")
    lora = fa.export_lora(first, tmp_path / "lora")
    refusals: dict[str, dict[str, Any]] = {
        "no LoRA folder .*nowhere": {"start_from": tmp_path / "nowhere"},
        "has rank 2, adapter.rank is 4: leave adapter.rank out": {"adapter": {"rank": 4}},
        "has alpha 2, adapter.alpha is 3": {"adapter": {"alpha": 3.0}},
        "digest .* the run started from 0000": {"adapter": {"start_digest": "0" * 64}},
        "'flora' begins with factors of its own": {"strategy": "flora"},
        "'full_weights' begins with factors of its own": {"strategy": "full_weights"},
        "fits no linear or convolutional layer of .*: it has|'to_z' fits no .*such as": {
            "target_modules": ["to_z"]
        },
        "is for base model": {"model": "embedded"},
    }
    for told, changes in refusals.items():
        values = {"start_from": lora, "model": model, "output": tmp_path / "refused", **changes}
        with pytest.raises(fa.Error, match=told):
            run(homes, values.pop("model"), **values)
    tensors, metadata = load_file(lora), json.dumps({"unet.use_dora": True})
    save_file(tensors, tmp_path / "dora.safetensors", {"lora_adapter_metadata": metadata})
    with pytest.raises(fa.Error, match="use_dora"):
        run(homes, model, start_from=tmp_path / "dora.safetensors")
    assert fa.import_lora(pipe, lora).rank == 2
    done = run(homes, model, start_from=lora, output=tmp_path / "second")
    told = done.record.config["adapter"]
    assert (told["rank"], len(told["start_digest"])) == (2, 64)
