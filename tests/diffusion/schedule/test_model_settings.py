"""Everything besides weights and plan that decides the picture has a digest, by which machines refuse each other."""

import copy
import inspect
import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from diffusers import EulerDiscreteScheduler
from diffusers.models.attention_dispatch import AttentionBackendName
from diffusers.models.attention_processor import (
    AttnProcessor,
    AttnProcessor2_0,
    IPAdapterAttnProcessor2_0,
    PAGIdentitySelfAttnProcessor2_0,
    SlicedAttnProcessor,
)
from torch import nn

import fedaigc as fa
from fedaigc.diffusion.sampling.pipeline_call import denoiser
from fedaigc.diffusion.schedule.model_settings import _HARMLESS, differences, model_settings
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.diffusion.schedule.stock_schedule import canonical_config
from fedaigc.errors import PacketError, UserError
from tests.diffusion.tiny_pipelines import FAMILIES, SIZE, Tiny, tiny_pipeline


def plan_of(pipe: Any) -> DenoisingPlan:
    return build_plan(
        pipe, num_inference_steps=4, guidance_scale=4.0, height=SIZE, width=SIZE, base_hash="b" * 64
    )


class EulerDiscreteSchedulerOfTheirs(EulerDiscreteScheduler):
    """A scheduler of another package, which may have the name of a stock one."""


EulerDiscreteSchedulerOfTheirs.__name__ = "EulerDiscreteScheduler"


def set_config(name: str, key: str, value: Any) -> Callable[[Any], None]:
    return lambda pipe: getattr(pipe, name).register_to_config(**{key: value})


CHANGES: dict[str, tuple[Callable[[Any], None], str]] = {
    "FreeU": (lambda pipe: pipe.enable_freeu(0.9, 0.2, 1.2, 1.4), "unet switches"),
    "tokenizer length": (lambda pipe: setattr(pipe.tokenizer, "model_max_length", 12), "tokenizer"),
    "token": (lambda pipe: pipe.tokenizer.add_tokens(["<style>"]), "tokenizer"),
    "heads": (set_config("unet", "attention_head_dim", 2), "unet"),
    "scaling factor": (set_config("vae", "scaling_factor", 0.25), "vae"),
    "quantization": (set_config("unet", "quantization_config", {"quant_method": "torchao"}), "unet"),
    "activation": (lambda pipe: setattr(pipe.text_encoder.config, "hidden_act", "gelu"), "text_encoder"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_machines_that_differ_refuse_each_other_by_name(name: str) -> None:
    change, part = CHANGES[name]
    pipe = tiny_pipeline("sd1")
    theirs = PlanRequest.of(plan_of(pipe))
    assert PlanRequest.from_values(theirs.values()).build(pipe, "b" * 64).fingerprint() == theirs.fingerprint
    change(pipe)
    with pytest.raises(UserError, match=f"other settings here than on the machine of the plan: {part};"):
        theirs.build(pipe, "b" * 64)


def test_a_scheduler_of_the_same_name_is_told_apart() -> None:
    pipe = tiny_pipeline("sd1")
    pipe.scheduler = EulerDiscreteScheduler.from_config(pipe.scheduler.config)
    theirs = PlanRequest.of(plan_of(pipe))
    pipe.scheduler = EulerDiscreteSchedulerOfTheirs.from_config(pipe.scheduler.config)
    with pytest.raises(UserError, match=r"other settings .*: scheduler;"):
        theirs.build(pipe, "b" * 64)


def test_a_lora_of_the_user_and_its_scale_are_told_apart() -> None:
    from peft import LoraConfig

    pipe = tiny_pipeline("sd1")
    before = model_settings(pipe)
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]), adapter_name="style")
    full = model_settings(pipe)
    assert differences(full, before) == ["unet switches"]
    pipe.unet.set_adapters("style", 0.5)
    assert differences(model_settings(pipe), full) == ["unet switches"]
    pipe.unet.disable_adapters()
    assert model_settings(pipe) == before


class HalfAttention(AttnProcessor2_0):
    """A processor of a user, which gives other pictures."""

    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.share * super().__call__(*arguments, **options)


def set_kernel(network: nn.Module, kernel: AttentionBackendName) -> None:
    """As `set_attention_backend`, which wants the package of the kernel."""
    processors: list[Any] = [part.processor for part in network.modules() if hasattr(part, "processor")]
    assert processors
    for processor in processors:
        processor._attention_backend = kernel


def test_attention_of_another_result_is_told_apart_and_so_are_its_values() -> None:
    pipe = tiny_pipeline("sd1")
    theirs = PlanRequest.of(plan_of(pipe))
    before = model_settings(pipe)
    pipe.unet.set_attn_processor(HalfAttention())
    half = model_settings(pipe)
    with pytest.raises(
        UserError, match="other settings here than on the machine of the plan: unet switches;"
    ):
        theirs.build(pipe, "b" * 64)
    pipe.unet.set_attn_processor(HalfAttention(0.25))
    assert differences(model_settings(pipe), half) == ["unet switches"]
    # one layer of all
    layers = pipe.unet.attn_processors
    pipe.unet.set_attn_processor(
        {name: AttnProcessor2_0() for name in layers} | {max(layers): HalfAttention()}
    )
    assert differences(model_settings(pipe), half) == ["unet switches"]
    assert differences(model_settings(pipe), before) == ["unet switches"]
    pipe.unet.set_attn_processor({name: PAGIdentitySelfAttnProcessor2_0() for name in layers})
    assert differences(model_settings(pipe), before) == ["unet switches"]


def test_the_scale_of_an_ip_adapter_is_told_apart() -> None:
    pipe = tiny_pipeline("sd1")
    layers = pipe.unet.attn_processors
    found = []
    for scale in (1.0, 0.5):
        pipe.unet.set_attn_processor(
            {name: IPAdapterAttnProcessor2_0(8, 32, num_tokens=(2,), scale=scale) for name in layers}
        )
        found.append(model_settings(pipe))
    assert differences(*found) == ["unet switches"]


@pytest.mark.parametrize("family", ["sd1", "sd3", "flux"])
def test_the_same_attention_computed_in_another_way_is_the_same(family: str) -> None:
    pipe = tiny_pipeline(family)
    before = model_settings(pipe)
    assert not any("switches" in name for name in before)
    network = denoiser(pipe)
    if family == "sd1":
        for processor in (AttnProcessor(), AttnProcessor2_0(), SlicedAttnProcessor(2)):
            pipe.unet.set_attn_processor(processor)
            assert model_settings(pipe) == before
    set_kernel(network, AttentionBackendName.NATIVE)
    assert model_settings(pipe) == before


def test_attention_in_integers_is_told_apart() -> None:
    pipe = tiny_pipeline("flux")
    before = model_settings(pipe)
    set_kernel(pipe.transformer, AttentionBackendName.SAGE)
    assert differences(model_settings(pipe), before) == ["transformer switches"]


@pytest.mark.parametrize("family", FAMILIES)
def test_any_changed_value_of_a_config_changes_its_digest_or_is_harmless(tiny: Tiny, family: str) -> None:
    pipe = tiny(family)
    before = model_settings(pipe)
    walked = 0
    for name, component in pipe.components.items():
        if name == "scheduler" or not hasattr(component, "config"):
            continue
        values = (
            component.config.to_dict() if hasattr(component.config, "to_dict") else dict(component.config)
        )
        for key, value in values.items():
            if key.startswith("_") or key in _HARMLESS or isinstance(value, dict):
                continue
            with changed(component, key, value):
                assert differences(model_settings(pipe), before) == [name], (name, key)
            walked += 1
    assert model_settings(pipe) == before
    assert walked > 60


@pytest.mark.parametrize("family", FAMILIES)
def test_any_changed_value_of_a_scheduler_or_of_the_pipeline_is_told_apart(tiny: Tiny, family: str) -> None:
    pipe = tiny(family)
    plan, before = plan_of(pipe), model_settings(pipe)
    assert plan.scheduler_config == canonical_config(pipe.scheduler)
    keys = inspect.signature(type(pipe.scheduler).__init__).parameters.keys() - {"self"}
    assert len(keys) > 5
    for key in keys:
        with changed(pipe.scheduler, key, pipe.scheduler.config[key]):
            other = replace(plan, scheduler_config=canonical_config(pipe.scheduler))
            assert other.fingerprint() != plan.fingerprint(), key
    for key, value in pipe.config.items():
        if key in pipe.components or key.startswith("_") or key in _HARMLESS:
            continue
        with changed(pipe, key, value):
            assert differences(model_settings(pipe), before) == ["pipeline"], key
    assert model_settings(pipe) == before


class changed:
    """Within the context, a value of a component's config is another one."""

    def __init__(self, component: Any, key: str, value: Any) -> None:
        self.component, self.key, self.config = component, key, component.config
        self.other: Any = "other"
        if isinstance(value, bool):
            self.other = not value
        elif isinstance(value, int | float):
            self.other = value + 1 if math.isfinite(value) else 0.5

    def __enter__(self) -> None:
        if hasattr(self.config, "to_diff_dict"):
            self.component.config = copy.deepcopy(self.config)
            object.__setattr__(self.component.config, self.key, self.other)
        else:
            self.component._internal_dict = type(self.config)({**self.config, self.key: self.other})

    def __exit__(self, *_: object) -> None:
        if hasattr(self.config, "to_diff_dict"):
            self.component.config = self.config
        else:
            self.component._internal_dict = self.config


def test_what_cannot_matter_is_left_out(tiny: Tiny) -> None:
    import torch

    pipe = tiny_pipeline("sd1")
    before = model_settings(pipe)
    pipe.unet.register_to_config(_name_or_path="/elsewhere")
    pipe.vae.config["_diffusers_version"] = "0.1"
    pipe.unet = torch.compile(pipe.unet)
    assert model_settings(pipe) == before


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"unet":1}', '{"unet":"AB"}', '{"Unet!":"0123456789abcdef"}', "x" * 9000]
)
def test_a_request_with_other_settings_than_digests_is_refused(tiny: Tiny, text: str) -> None:
    request = PlanRequest.of(plan_of(tiny("sd1")))
    with pytest.raises(UserError, match="expected digests by name"):
        replace(request, settings=text)


def test_a_packet_that_is_passed_by_hand_is_refused_by_the_name_of_what_differs() -> None:
    pipe = tiny_pipeline("sd1")
    plan = DenoisingPlan.from_json(plan_of(pipe).to_json())  # as it comes from another machine
    begun = fa.start(pipe, plan).run("a cat", until=2)
    packet = begun.pack()
    assert fa.unpack(pipe, plan, packet).step == 2
    for name, (change, part) in CHANGES.items():
        other = tiny_pipeline("sd1")
        change(other)
        with pytest.raises(PacketError, match=f"model has other settings: {part};"):
            fa.unpack(other, plan, packet)
        assert name
    # the bits of a packet for the air are counted, so it has none
    assert b"settings" not in begun.pack(number_format="float16")
    fa.unpack(pipe, plan, begun.pack(number_format="float16"))


def test_a_plan_has_no_settings_of_its_own(tiny: Tiny) -> None:
    plan = plan_of(tiny("sd1"))
    assert plan == replace(plan, settings="")
    assert "settings" not in plan.to_json()
    with pytest.raises(UserError, match="settings"):
        DenoisingPlan.from_json(plan.to_json()[:-1] + ',"settings":"{}"}')
