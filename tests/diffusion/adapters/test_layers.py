"""The layers that adapters train: chosen as peft chooses them, and refused where nothing is chosen."""

from pathlib import Path
from typing import Any

import pytest
import torch

from fedaigc.diffusion.adapters.layers import names_of, selected_layers, weighted_layers
from fedaigc.diffusion.adapters.stages import SharedState, Stage, install, new_adapter, read_adapter
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.errors import UserError
from fedaigc.rng import rng
from tests.diffusion.tiny_pipelines import tiny_pipeline

TARGETS = (
    ["to_q"],
    ["attn1.to_k", "ff.net.2", "conv_in"],
    ["conv1", "proj_out"],
    r".*attn2\.to_(q|v)",
)


@pytest.fixture(scope="module")
def pipe(small_model: Path) -> Any:
    return load_pipeline(str(small_model))


@pytest.mark.parametrize("targets", TARGETS)
def test_layers_are_those_of_peft(pipe: Any, targets: Any) -> None:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    wrapped = inject_adapter_in_model(
        LoraConfig(r=1, target_modules=targets), type(pipe.unet).from_config(pipe.unet.config)
    )
    theirs = {name for name, module in wrapped.named_modules() if isinstance(module, LoraLayer)}
    assert selected_layers(pipe, targets).keys() == theirs
    assert selected_layers(pipe, names_of(pipe, targets)).keys() == theirs


def test_a_choice_of_nothing_is_refused_with_examples(pipe: Any) -> None:
    for targets in (["to_q", "to_z"], "to_q", "nowhere.*"):
        with pytest.raises(
            UserError, match=r"fits no linear or convolutional layer of .*; it has \d+, such as "
        ):
            selected_layers(pipe, targets)
    with pytest.raises(UserError, match="not a regular expression"):
        selected_layers(pipe, "to_q(")
    with pytest.raises(UserError, match="empty list"):
        selected_layers(pipe, [])
    assert all(name in str(refusal(pipe)) for name in list(weighted_layers(pipe))[:1])


def refusal(pipe: Any) -> UserError:
    with pytest.raises(UserError) as found:
        selected_layers(pipe, ["to_z"])
    return found.value


def test_a_layer_whose_name_ends_another_s_is_installed_alone() -> None:
    """FLUX has `proj_out`, and `single_transformer_blocks.0.proj_out`."""
    pipe = tiny_pipeline("flux")
    adapter = new_adapter(pipe, generator=rng(0, "a"), rank=1, target_modules=["proj_out"])
    assert {"proj_out", "single_transformer_blocks.0.proj_out"} <= adapter.lora.keys()
    alone = {"proj_out": adapter.lora["proj_out"]}
    install(pipe, SharedState("0" * 64, alone, 1, 1.0))
    held = read_adapter(pipe, Stage.SHARED).lora
    assert held.keys() == {"proj_out"}
    assert torch.equal(held["proj_out"][0], alone["proj_out"][0])
    with pytest.raises(UserError, match=r"the end of 'single_transformer_blocks.0.proj_out': select both"):
        names_of(pipe, "proj_out")
