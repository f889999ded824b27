"""Shared states, plans and packets of a hostile server for an attack on a prompt."""

import hashlib
import json
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import parametrize

from fedaigc.diffusion.adapters.stages import SharedState, weighted_layers
from fedaigc.diffusion.handoff.header import PacketHeader
from fedaigc.diffusion.handoff.packet import write_packet
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, denoiser

LARGEST = float(torch.finfo(torch.float32).max)


def cross_attention(pipe: Pipeline) -> str:
    """Return the name of the denoiser's first cross-attention, up to the part before `.to_k`."""
    (name, *_) = [layer for layer in weighted_layers(pipe) if layer.endswith("attn2.to_k")]
    return name.removesuffix(".to_k")


def overflowing_state(pipe: Pipeline, base_hash: str, question: np.ndarray) -> SharedState:
    """Return a residual that replaces query and key weights of one cross-attention, for a question of `bisection`.

    Queries become 0 and keys a_j max e_j. A finite key results in logits of 0 and an ordinary picture. An infinite key
    results in 0 x inf, which is not a number, in all following values. Without t*, all steps use the residual.
    """
    attention, layers = cross_attention(pipe), weighted_layers(pipe)
    query, key = (_weight(layers[f"{attention}.{part}"]) for part in ("to_q", "to_k"))
    wanted = torch.zeros_like(key)
    width = min(key.shape)
    wanted[range(width), range(width)] = torch.tensor(question[:width] * LARGEST, dtype=key.dtype)
    residual = {f"{attention}.to_k": wanted - key, f"{attention}.to_q": -query}
    return SharedState(base_hash, {}, 1, 1.0, residual)


def multinomial_plan(pipe: Pipeline, base_hash: str, shared_hash: str) -> dict[str, Any]:
    """Return a plan whose only step samples tokens from softmax(model output), which fails for NaN.

    If all values are finite, the number of draws does not match that of any number of latents of `odd_latents`, and
    the step is refused as a wrong plan. In both cases, the task continues to wait.
    """
    side = 8 * int(pipe.vae_scale_factor)
    # the number of training timesteps is not a setting of this scheduler, but its config keeps it
    config = {"mask_token_id": 0, "num_train_timesteps": 1000}
    return {
        "scheduler_class": "AmusedScheduler",
        "scheduler_config": json.dumps(config, sort_keys=True, separators=(",", ":")),
        "timesteps": [0.0],
        "sigmas": None,
        "guidance_scale": 1.0,
        "negative_prompt": "",
        "height": side,
        "width": side,
        "dtype": "float32",
        "base_hash": base_hash,
        "shared_hash": shared_hash,
        "num_inference_steps": 1,
    }


def plan_text(plan: dict[str, Any]) -> str:
    """Return a plan as canonical JSON."""
    return json.dumps(plan, sort_keys=True, separators=(",", ":"))


def packet_of(plan: dict[str, Any], latents: Tensor, *, step: int = 0, **changed: Any) -> bytes:
    """Return a packet of this plan with these latents and with `changed` entries of its header."""
    header = PacketHeader(
        plan=hashlib.sha256(plan_text(plan).encode()).hexdigest(),
        base=plan["base_hash"],
        shared=plan["shared_hash"],
        handoff="exact",
        step=step,
        noise_seed=0,
        draw_count=1,
    )
    return write_packet(replace(header, **changed), latents, {})


def odd_latents(pipe: Pipeline) -> Tensor:
    """Return latents (1, c, 1, 5): torch draws them in 5 c + 16 numbers, and multinomials over them in 10 c."""
    network: Any = denoiser(pipe)
    return torch.randn((1, int(network.config.in_channels), 1, 5), generator=torch.Generator().manual_seed(0))


def _weight(layer: Any) -> Tensor:
    """Return the base model's weight, since a shared pipeline may hold the residual of an earlier state."""
    held = (
        layer.parametrizations.weight.original
        if parametrize.is_parametrized(layer, "weight")
        else layer.weight
    )
    weight: Tensor = held.detach().float().cpu()
    return weight
