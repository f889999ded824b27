"""Quicker ways through a pipeline's modules end where those of torch, diffusers and peft end."""

from typing import Any

import pytest
import torch
from torch import nn

from fedaigc.diffusion.adapters.layers import run_with
from fedaigc.diffusion.sampling.pipeline_call import execution_device, parts_of
from tests.diffusion.tiny_pipelines import Tiny, tiny_pipeline


@pytest.mark.parametrize("family", ["sd1", "flux"])
def test_parts_are_the_modules_in_their_order(tiny: Tiny, family: str) -> None:
    for network in tiny(family).components.values():
        if isinstance(network, nn.Module):
            assert list(parts_of(network)) == list(network.modules())
    shared = nn.Linear(2, 2)
    twice = nn.ModuleDict({"a": nn.Sequential(shared, nn.ReLU()), "b": shared, "c": nn.Identity()})
    twice.register_module("none", None)
    assert list(parts_of(twice)) == list(twice.modules())


def test_the_device_is_that_of_diffusers() -> None:
    from diffusers.hooks.group_offloading import apply_group_offloading

    pipe: Any = tiny_pipeline("sd1")
    assert execution_device(pipe) == pipe._execution_device == torch.device("cpu")
    # weights are on one device, and computation on another
    pipe.text_encoder.to("meta")
    assert execution_device(pipe) == pipe._execution_device
    apply_group_offloading(
        pipe.unet,
        onload_device=torch.device("cpu"),
        offload_device=torch.device("cpu"),
        offload_type="leaf_level",
    )
    pipe.vae.to("meta")
    assert pipe.device == torch.device("meta")
    assert execution_device(pipe) == pipe._execution_device == torch.device("cpu")


@pytest.mark.parametrize("hook_on", ["unet", "text_encoder"])
def test_the_device_is_that_of_accelerate_s_hooks(hook_on: str) -> None:
    from accelerate.hooks import AlignDevicesHook, add_hook_to_module

    pipe: Any = tiny_pipeline("sd1")
    add_hook_to_module(getattr(pipe, hook_on), AlignDevicesHook(execution_device="meta"))
    assert execution_device(pipe) == pipe._execution_device


def test_a_layer_runs_with_one_stage_and_trains_nothing() -> None:
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    network = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    for name in ("shared", "personal"):
        inject_adapter_in_model(LoraConfig(r=2, target_modules=["0"]), network, name)
    layer: Any = network[0]
    assert isinstance(layer, LoraLayer)
    factors = [part.weight for part in (*layer.lora_A.values(), *layer.lora_B.values())]

    def state() -> tuple[object, ...]:
        return layer.active_adapters, layer.disable_adapters, [each.requires_grad for each in factors]

    for chosen in ("shared", "shared", None, "personal", None, "shared", None, None, "personal", "shared"):
        for trained in ([], factors[:1]):
            for factor in trained:
                factor.requires_grad_(True)
            active = layer.active_adapters
            run_with(layer, chosen)
            assert state() == ([chosen] if chosen else active, chosen is None, [False] * 4)
