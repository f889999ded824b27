"""Weights of the stages: W0 + R + s B A above t*, W0 + s' B' A' below it, and an unchanged W0."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fedaigc.diffusion.adapters.lora_folder import export_lora, import_lora
from fedaigc.diffusion.adapters.stages import (
    Adapter,
    SharedState,
    Stage,
    activate,
    adapted_layers,
    install,
    install_personal,
    new_adapter,
    read_adapter,
    remove,
    run_stages,
)
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.diffusion.sampling.pipeline_call import denoiser
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.errors import UserError
from fedaigc.rng import rng
from tests.diffusion.tiny_pipelines import tiny_pipeline


@pytest.fixture(scope="module")
def loaded() -> Any:
    return load_pipeline()


@pytest.fixture
def pipe(loaded: Any) -> Any:
    remove(loaded, Stage.SHARED)
    remove(loaded, Stage.PERSONAL)
    return loaded


def trained(pipe: Any, name: str, *, alpha: float = 8.0) -> Adapter:
    """Return factors as after training, with a nonzero B."""
    fresh = new_adapter(pipe, generator=rng(0, name), alpha=alpha)
    noise = rng(1, name)
    moved = {
        key: value + 0.03 * torch.randn(value.shape, generator=noise)
        for key, value in fresh.tensors().items()
    }
    return fresh.with_tensors(moved)


def state_of(adapter: Adapter, **values: Any) -> SharedState:
    return SharedState("base", adapter.lora, adapter.rank, adapter.alpha, **values)


def answer(pipe: Any) -> Tensor:
    """Run one forward pass of the denoiser."""
    noise = torch.randn((1, 8, 16, 16), generator=rng(0, "input"))
    text = torch.randn((1, 16, 96), generator=rng(0, "text"))
    with torch.no_grad():
        result: Tensor = denoiser(pipe)(noise, 500, encoder_hidden_states=text).sample
    return result


def test_factors_sit_on_attention_and_convolutions(pipe: Any) -> None:
    layers = adapted_layers(pipe)
    assert any(name.endswith("to_q") for name in layers)
    assert any(name.endswith("conv1") for name in layers)
    assert not any("conv_in" in name or "conv_out" in name for name in layers)


def test_fresh_factors_change_nothing_and_depend_on_the_seed_only(pipe: Any) -> None:
    before = answer(pipe)
    adapter = new_adapter(pipe, generator=rng(3, "a"))
    again = new_adapter(pipe, generator=rng(3, "a"))
    assert all(torch.equal(again.tensors()[name], value) for name, value in adapter.tensors().items())
    assert all(not up.any() and down.any() for down, up in adapter.lora.values())
    install(pipe, state_of(adapter))
    assert torch.equal(answer(pipe), before)


def test_each_stage_runs_its_own_weights_and_the_base_comes_back(pipe: Any) -> None:
    base = answer(pipe)
    install(pipe, state_of(trained(pipe, "shared")))
    shared = answer(pipe)
    activate(pipe, Stage.PERSONAL)
    assert torch.equal(answer(pipe), base)  # not installed: W0
    install_personal(pipe, trained(pipe, "personal"))
    personal = answer(pipe)
    assert not torch.allclose(shared, base)
    assert not torch.allclose(personal, base)
    assert not torch.allclose(personal, shared)
    for stage, expected in ((Stage.SHARED, shared), (Stage.BASE, base), (Stage.PERSONAL, personal)):
        activate(pipe, stage)
        assert torch.equal(answer(pipe), expected)


def test_the_layer_moves_by_s_b_a(pipe: Any) -> None:
    """Compared with the same pipeline with W0 + s B A written into its weights."""
    adapter = trained(pipe, "shared", alpha=4.0)
    assert adapter.scale == 0.5
    install(pipe, state_of(adapter))
    with_adapter = answer(pipe)
    reference: Any = load_pipeline()
    with torch.no_grad():
        layers: dict[str, Any] = adapted_layers(reference)
        for name, layer in layers.items():
            down, up = adapter.lora[name]
            delta = adapter.scale * (up.flatten(1) @ down.flatten(1))
            layer.weight += delta.reshape(layer.weight.shape)
    torch.testing.assert_close(answer(reference), with_adapter, rtol=1e-4, atol=1e-5)


def residuals(pipe: Any) -> dict[str, Any]:
    """A dense residual on a linear layer and on a convolution, and a low-rank pair on another layer."""
    noise = rng(2, "residual")
    layers: dict[str, Any] = adapted_layers(pipe)
    linear = next(name for name in layers if name.endswith("to_q"))
    other = next(name for name in layers if name.endswith("to_k"))
    convolution = next(name for name in layers if name.endswith("conv1"))
    wide = layers[other].weight
    return {
        linear: 0.05 * torch.randn(layers[linear].weight.shape, generator=noise),
        convolution: 0.05 * torch.randn(layers[convolution].weight.shape, generator=noise),
        other: (
            torch.randn((3, wide.shape[1]), generator=noise),
            0.05 * torch.randn((wide.shape[0], 3), generator=noise),
        ),
    }


def test_a_residual_acts_in_the_shared_stage_only(pipe: Any) -> None:
    base = answer(pipe)
    fresh = new_adapter(pipe, generator=rng(0, "fresh"))
    residual = residuals(pipe)
    install(pipe, state_of(fresh, residual=residual))
    moved = answer(pipe)
    reference: Any = load_pipeline()
    layers: dict[str, Any] = adapted_layers(reference)
    with torch.no_grad():
        for name, value in residual.items():
            dense = value if isinstance(value, Tensor) else value[1] @ value[0]
            layers[name].weight += dense
    torch.testing.assert_close(answer(reference), moved, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(moved, base)
    for stage in (Stage.BASE, Stage.PERSONAL):
        activate(pipe, stage)
        assert torch.equal(answer(pipe), base)
    install(pipe, state_of(fresh))
    assert torch.equal(answer(pipe), base)


def test_w0_is_never_written_to(pipe: Any) -> None:
    layers: dict[str, Any] = adapted_layers(pipe)
    weights = {name: layer.weight.detach().clone() for name, layer in layers.items()}
    install(pipe, state_of(trained(pipe, "shared"), residual=residuals(pipe)))
    install_personal(pipe, trained(pipe, "personal"))
    answer(pipe)
    remove(pipe, Stage.SHARED)
    remove(pipe, Stage.PERSONAL)
    after: dict[str, Any] = adapted_layers(pipe)
    for name, layer in after.items():
        assert torch.equal(layer.weight, weights[name])


def test_installing_another_rank_replaces_the_factors(pipe: Any) -> None:
    install(pipe, state_of(trained(pipe, "shared")))
    smaller = new_adapter(pipe, generator=rng(0, "small"), rank=2, alpha=1.0)
    install(pipe, state_of(smaller))
    found = read_adapter(pipe, Stage.SHARED)
    assert (found.rank, found.alpha) == (2, 1.0)
    assert all(torch.equal(found.tensors()[name], value) for name, value in smaller.tensors().items())


def test_a_state_of_another_architecture_is_refused(pipe: Any) -> None:
    adapter = new_adapter(pipe, generator=rng(0, "a"))
    layer, (down, up) = next(iter(adapter.lora.items()))
    with pytest.raises(UserError, match="nowhere"):
        install(pipe, state_of(replace(adapter, lora={"nowhere.to_q": (down, up)})))
    with pytest.raises(UserError, match="do not fit"):
        install(pipe, state_of(replace(adapter, lora={layer: (down[:, :1], up)})))
    with pytest.raises(ValueError, match="expected rank 8"):
        replace(adapter, lora={layer: (down[:4], up)})
    with pytest.raises(LookupError, match="no personal adapter"):
        read_adapter(pipe, Stage.PERSONAL)


def test_the_hash_covers_every_part_of_the_version(pipe: Any) -> None:
    adapter = trained(pipe, "shared")
    state = state_of(adapter, boundary_log_snr=0.5)
    same = SharedState.from_tensors(state.header(), dict(reversed(state.tensors().items())))
    assert same.hash() == state.hash()
    moved = adapter.tensors()
    name = next(iter(moved))
    moved[name] = moved[name] + 1e-6
    others = [
        replace(state, base_hash="other"),
        replace(state, boundary_log_snr=0.4),
        replace(state, alpha=4.0),
        replace(state, residual=residuals(pipe)),
        replace(state, lora=adapter.with_tensors(moved).lora),
    ]
    assert len({state.hash(), *(other.hash() for other in others)}) == 6


def test_states_survive_the_way_through_tensors(pipe: Any) -> None:
    state = state_of(trained(pipe, "shared"), residual=residuals(pipe), boundary_log_snr=0.1)
    back = SharedState.from_tensors(state.header(), state.tensors())
    assert back.hash() == state.hash()
    assert back.lora.keys() == state.lora.keys()
    assert {type(value) for value in back.residual.values()} == {Tensor, tuple}


def test_an_exported_folder_is_an_ordinary_lora_folder(pipe: Any, tmp_path: Any) -> None:
    """An unmodified pipeline that loads the folder gives the same results bit for bit.

    This holds for both kinds of layers, and for an alpha that differs from the rank.
    """
    shared, personal = trained(pipe, "shared", alpha=4.0), trained(pipe, "personal", alpha=16.0)
    install(pipe, state_of(shared))
    install_personal(pipe, personal)
    for stage, kind in ((Stage.SHARED, state_of(shared)), (Stage.PERSONAL, personal)):
        activate(pipe, stage)
        expected = answer(pipe)
        export_lora(pipe, kind, tmp_path / stage.value)
        stranger: Any = load_pipeline()
        stranger.load_lora_weights(str(tmp_path / stage.value))
        assert torch.equal(answer(stranger), expected)
        imported = import_lora(load_pipeline(), tmp_path / stage.value)
        original = {Stage.SHARED: shared, Stage.PERSONAL: personal}[stage]
        assert (imported.rank, imported.alpha) == (original.rank, original.alpha)
        assert all(torch.equal(imported.tensors()[name], value) for name, value in original.tensors().items())


def test_a_folder_that_another_tool_wrote_can_be_imported(pipe: Any, tmp_path: Any) -> None:
    """In the format of peft and diffusers' training scripts: their own add_adapter and save_lora_adapter."""
    from peft import LoraConfig

    other: Any = load_pipeline()
    other.unet.add_adapter(
        LoraConfig(r=4, lora_alpha=2, target_modules=["to_q", "to_v"]), adapter_name="default"
    )
    with torch.no_grad():
        for name, parameter in other.unet.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    other.save_lora_weights(
        str(tmp_path), unet_lora_layers=_peft_state(other.unet), **_peft_metadata(other.unet)
    )
    imported = import_lora(pipe, tmp_path)
    install_personal(pipe, imported)
    assert (imported.rank, imported.alpha) == (4, 2.0)
    assert torch.equal(answer(pipe), answer(other))


def _peft_state(unet: Any) -> Any:
    from peft.utils import get_peft_model_state_dict

    return get_peft_model_state_dict(unet, adapter_name="default")


def _peft_metadata(unet: Any) -> Any:
    from diffusers.training_utils import _collate_lora_metadata

    return _collate_lora_metadata({"unet": unet})


def test_what_is_no_lora_folder_is_refused(pipe: Any, tmp_path: Any) -> None:
    with pytest.raises(UserError, match="no LoRA folder"):
        import_lora(pipe, tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a LoRA folder"):
        import_lora(pipe, tmp_path / "empty")
    with pytest.raises(UserError, match="residual"):
        export_lora(pipe, state_of(trained(pipe, "a"), residual=residuals(pipe)), tmp_path / "out")


def test_run_stages_switches_at_the_boundary(pipe: Any) -> None:
    shared, personal = trained(pipe, "shared"), trained(pipe, "personal")
    log_snr = boundary_log_snr(pipe, 500)
    state = state_of(shared, boundary_log_snr=log_snr)
    plan = build_plan(
        pipe,
        num_inference_steps=6,
        guidance_scale=3.0,
        height=64,
        width=64,
        base_hash="b",
        shared_hash="s",
        boundary_log_snr=log_snr,
    )
    boundary = plan.boundary
    assert 0 < boundary < plan.num_steps
    install(pipe, state)
    install_personal(pipe, personal)
    prompt = {"prompt": "a cat on a table"}
    start = initial_state(pipe, plan, seed=0)
    found = run_stages(pipe, start, prompt, plan, plan.num_steps)

    activate(pipe, Stage.SHARED)
    by_hand = run_segment(pipe, start, prompt, plan, boundary)
    shared_only = run_segment(pipe, by_hand, prompt, plan, plan.num_steps)
    activate(pipe, Stage.PERSONAL)
    by_hand = run_segment(pipe, by_hand, prompt, plan, plan.num_steps)
    assert torch.equal(found.latents, by_hand.latents)
    assert not torch.allclose(found.latents, shared_only.latents)

    for split in range(plan.num_steps + 1):
        first = run_stages(pipe, start, prompt, plan, split)
        second = run_stages(pipe, first, prompt, plan, plan.num_steps)
        assert torch.equal(second.latents, found.latents)


def test_a_lora_that_its_user_loads_later_is_not_switched_off_silently() -> None:
    from peft import LoraConfig

    pipe = tiny_pipeline("sd1")
    theirs = LoraConfig(r=2, target_modules=["to_q"], init_lora_weights=False)
    pipe.unet.add_adapter(theirs, "style")
    with pytest.raises(UserError, match="has the LoRA style, which the stages would switch off"):
        activate(pipe, Stage.SHARED)
    shared = state_of(new_adapter(tiny_pipeline("sd1"), generator=torch.Generator(), rank=2))
    with pytest.raises(UserError, match="has the LoRA style"):
        install(pipe, shared)
    assert pipe.unet.active_adapters() == ["style"]
    pipe.unet.delete_adapters("style")
    install(pipe, shared)
    pipe.unet.add_adapter(theirs, "style")
    with pytest.raises(UserError, match="has the LoRA style"):
        activate(pipe, Stage.PERSONAL)
