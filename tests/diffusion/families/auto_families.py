"""Small pipelines of the other classes that `AutoPipelineForText2Image` knows.

Many have the parts of an earlier family, and another call.
"""

from dataclasses import replace
from typing import Any

import diffusers
import torch
from PIL import Image

from tests.diffusion import tiny_pipelines as tiny
from tests.diffusion.families.family import (
    FLOW,
    WIDTH,
    WORDS,
    Family,
    by_embeddings,
    eighth_vae,
    picture,
    prompted,
)
from tests.diffusion.families.further_families import kolors, sana
from tests.diffusion.families.later_families import hunyuan_dit, pixart_sigma
from tests.diffusion.families.small_families import qwen_image, z_image


def _flow(**options: Any) -> Any:
    return diffusers.FlowMatchEulerDiscreteScheduler(**FLOW | options)


def _config(network: Any) -> dict[str, Any]:
    return {name: value for name, value in network.config.items() if not name.startswith("_")}


def _noisy(control: Any) -> Any:
    """A ControlNet whose outputs do not start at zero."""
    for name, parameter in control.named_parameters():
        if name.startswith("controlnet") and name.endswith("weight"):
            torch.nn.init.normal_(parameter, std=0.3)
    return control.eval()


def _with_call_of(family: Family, kind: Any, parts: dict[str, Any], **arguments: Any) -> Family:
    pipe = kind(**{**family.pipe.components, **parts})
    return replace(family, pipe=pipe, arguments=family.arguments | arguments)


def kolors_perturbed() -> Family:
    parts = {"pag_applied_layers": "mid"}
    return _with_call_of(kolors(), diffusers.KolorsPAGPipeline, parts, pag_scale=2.0)


def sana_perturbed() -> Family:
    parts = {"pag_applied_layers": "transformer_blocks.0"}
    return _with_call_of(sana(), diffusers.SanaPAGPipeline, parts, pag_scale=2.0)


def pixart_sigma_perturbed() -> Family:
    parts = {"pag_applied_layers": "blocks.0"}
    return _with_call_of(pixart_sigma(), diffusers.PixArtSigmaPAGPipeline, parts, pag_scale=2.0)


def hunyuan_dit_perturbed() -> Family:
    parts = {"pag_applied_layers": "blocks.1", "requires_safety_checker": False}
    family = _with_call_of(hunyuan_dit(), diffusers.HunyuanDiTPAGPipeline, parts, pag_scale=2.0)
    return replace(family, unguided=False)


def controlnet_perturbed() -> Family:
    pipe: Any = tiny.tiny_pipeline("sd1")
    control: Any = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8))
    return prompted(
        diffusers.StableDiffusionControlNetPAGPipeline(
            **pipe.components,
            controlnet=_noisy(control),
            pag_applied_layers="mid",
            requires_safety_checker=False,
        ),
        {"image": picture(1, 32), "pag_scale": 2.0},
        side=32,
    )


def sdxl_controlnet_perturbed() -> Family:
    pipe: Any = tiny.tiny_pipeline("sdxl")
    control: Any = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8))
    return prompted(
        diffusers.StableDiffusionXLControlNetPAGPipeline(
            **pipe.components, controlnet=_noisy(control), pag_applied_layers="mid", add_watermarker=False
        ),
        {"image": picture(1, 32), "pag_scale": 2.0},
        side=32,
    )


def sdxl_controlnet_union() -> Family:
    pipe: Any = tiny.tiny_pipeline("sdxl")
    known = _config(pipe.unet)
    options = {
        name: known[name]
        for name in (
            "addition_embed_type",
            "addition_time_embed_dim",
            "attention_head_dim",
            "block_out_channels",
            "cross_attention_dim",
            "down_block_types",
            "in_channels",
            "layers_per_block",
            "norm_num_groups",
            "projection_class_embeddings_input_dim",
        )
    }
    control: Any = diffusers.ControlNetUnionModel(
        **options,
        conditioning_embedding_out_channels=(8, 8),
        num_trans_channel=8,
        num_trans_head=2,
        num_proj_channel=8,
    )
    return prompted(
        diffusers.StableDiffusionXLControlNetUnionPipeline(
            **pipe.components, controlnet=_noisy(control), add_watermarker=False
        ),
        {"control_image": [picture(1, 32)], "control_mode": [0]},
        side=32,
    )


def sd3_controlnet() -> Family:
    pipe: Any = tiny.tiny_pipeline("sd3")
    control: Any = diffusers.SD3ControlNetModel.from_transformer(
        pipe.transformer, num_layers=1, num_extra_conditioning_channels=0
    )
    return prompted(
        diffusers.StableDiffusion3ControlNetPipeline(**pipe.components, controlnet=_noisy(control)),
        {"control_image": picture(1)},
    )


def flux_kontext() -> Family:
    pipe: Any = tiny.tiny_pipeline("flux")
    # it resizes pictures to one of a list of sizes of a million pixels, unless told otherwise
    more = {"image": picture(1, 16), "_auto_resize": False, "max_area": 256}
    return prompted(diffusers.FluxKontextPipeline(**pipe.components), more)


def lumina() -> Family:
    transformer: Any = diffusers.LuminaNextDiT2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        hidden_size=32,
        num_layers=1,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        cross_attention_dim=WIDTH,
    )
    for name, parameter in transformer.named_parameters():
        if "gate" in name or "adaLN" in name or name.startswith("norm_out"):
            torch.nn.init.normal_(parameter, std=0.3)
    pipe: Any = diffusers.LuminaPipeline(
        transformer=transformer.eval(), scheduler=_flow(), vae=eighth_vae(), text_encoder=None, tokenizer=None
    )
    return by_embeddings(pipe, masked=torch.int64, side=64)


def cogview3() -> Family:
    transformer: Any = diffusers.CogView3PlusTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
        pos_embed_max_size=16,
        sample_size=8,
    )
    tiny._scale(transformer, "proj_out", 5.0)
    pipe: Any = diffusers.CogView3PlusPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=eighth_vae(),
        transformer=transformer.eval(),
        scheduler=diffusers.CogVideoXDDIMScheduler(),
    )
    return by_embeddings(pipe, side=64)


def cogview4_control() -> Family:
    transformer: Any = diffusers.CogView4Transformer2DModel(
        in_channels=8,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=4,
        text_embed_dim=WIDTH,
        time_embed_dim=8,
        condition_dim=4,
    )
    pipe: Any = diffusers.CogView4ControlPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=eighth_vae(),
        transformer=transformer.eval(),
        scheduler=_flow(use_dynamic_shifting=True, time_shift_type="linear"),
    )
    family = by_embeddings(pipe, side=64)
    for prompt in (family.prompt, family.other):
        prompt["control_image"] = picture(1, 64)
    return family


def ovis() -> Family:
    transformer: Any = diffusers.OvisImageTransformer2DModel(
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=WIDTH,
        axes_dims_rope=(8, 4, 4),
    )
    tiny._scale(transformer, "proj_out", 5.0)
    pipe: Any = diffusers.OvisImagePipeline(
        scheduler=_flow(use_dynamic_shifting=True),
        vae=tiny._vae(4),
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
    )
    return by_embeddings(pipe, side=32)


def prx() -> Family:
    vae = eighth_vae()
    vae.register_to_config(shift_factor=0.1)
    transformer: Any = diffusers.PRXTransformer2DModel(
        in_channels=4,
        patch_size=2,
        context_in_dim=WIDTH,
        hidden_size=32,
        mlp_ratio=2.0,
        num_heads=2,
        depth=1,
        axes_dim=[8, 8],
    )
    for parameter in transformer.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    pipe: Any = diffusers.PRXPipeline(
        transformer=transformer.eval(), scheduler=_flow(), text_encoder=None, tokenizer=None, vae=vae
    )
    return by_embeddings(pipe, masked=torch.bool, side=64, arguments={"use_resolution_binning": False})


def krea2() -> Family:
    transformer: Any = diffusers.Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=WIDTH,
        num_text_layers=2,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=32,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(8, 4, 4),
    )
    family = qwen_image()
    pipe: Any = diffusers.Krea2Pipeline(
        scheduler=_flow(use_dynamic_shifting=True),
        vae=family.pipe.vae,
        text_encoder=None,
        tokenizer=None,
        transformer=transformer.eval(),
    )
    for prompt in (family.prompt, family.other):
        for key in ("prompt_embeds", "negative_prompt_embeds"):
            prompt[key] = torch.stack([prompt[key], prompt[key].flip(1)], 2)
        for key in ("prompt_embeds_mask", "negative_prompt_embeds_mask"):
            prompt[key] = torch.ones(1, WORDS, dtype=torch.bool)
    return replace(family, pipe=pipe, arguments={})


def qwen_image_controlnet() -> Family:
    family = qwen_image()
    control: Any = diffusers.QwenImageControlNetModel.from_transformer(
        family.pipe.transformer, num_layers=1, attention_head_dim=16, num_attention_heads=2
    )
    for prompt in (family.prompt, family.other):
        prompt["control_image"] = picture(1, 32)
    return _with_call_of(family, diffusers.QwenImageControlNetPipeline, {"controlnet": _noisy(control)})


def z_image_controlnet() -> Family:
    return _z_image_controlnet(diffusers.ZImageControlNetPipeline, 4, {"control_image": picture(1, 32)})


def z_image_controlnet_inpainting() -> Family:
    mask = Image.new("L", (32, 32))
    mask.paste(255, (8, 8, 24, 32))
    more = {"control_image": picture(1, 32), "image": picture(2, 32), "mask_image": mask}
    return _z_image_controlnet(diffusers.ZImageControlNetInpaintPipeline, 9, more)


def _z_image_controlnet(kind: Any, channels: int, more: dict[str, Any]) -> Family:
    family = z_image()
    control: Any = diffusers.ZImageControlNetModel(
        control_layers_places=[0],
        control_refiner_layers_places=[0],
        control_in_dim=channels,
        add_control_noise_refiner="control_noise_refiner",
        dim=32,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
    )
    for name, parameter in control.named_parameters():
        if "before_proj" in name or "after_proj" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    for prompt in (family.prompt, family.other):
        prompt |= more
    return _with_call_of(family, kind, {"controlnet": control.eval()})


AUTO_FAMILIES = (
    kolors_perturbed,
    sana_perturbed,
    pixart_sigma_perturbed,
    hunyuan_dit_perturbed,
    controlnet_perturbed,
    sdxl_controlnet_perturbed,
    sdxl_controlnet_union,
    sd3_controlnet,
    flux_kontext,
    lumina,
    cogview3,
    cogview4_control,
    ovis,
    prx,
    krea2,
    qwen_image_controlnet,
    z_image_controlnet,
    z_image_controlnet_inpainting,
)
