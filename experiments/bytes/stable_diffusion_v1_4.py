"""Bytes of one client's update for the shapes of Stable Diffusion v1-4, without its weights:

    python -m experiments.bytes.stable_diffusion_v1_4

Counts the tensors that a strategy sends (full weights of all linear and convolutional layers, or LoRA factors on
attention and convolutions) in each number format of the wire, including the scales of int8. Prints JSON.
"""

import argparse
import json
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from fedaigc.diffusion.adapters.stages import adapted_layers, weighted_layers
from fedaigc.federation.wire.codec import BYTES_PER_VALUE

RANKS = (2, 4, 8, 16)


def pipeline() -> Any:
    """Return Stable Diffusion v1-4's UNet on torch's meta device: shapes without values."""
    with torch.device("meta"):
        # the defaults of UNet2DConditionModel are those of Stable Diffusion 1, except for these
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return SimpleNamespace(unet=unet)


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    pipe = pipeline()
    total = sum(parameter.numel() for parameter in pipe.unet.parameters())
    layers: dict[str, Any] = weighted_layers(pipe)
    adapted: dict[str, Any] = adapted_layers(pipe)
    counts = {"full weights": [layer.weight.numel() for layer in layers.values()]}
    for rank in RANKS:
        counts[f"rank {rank}"] = [
            size
            for layer in adapted.values()
            for size in (rank * layer.weight[0].numel(), layer.weight.shape[0] * rank)
        ]
    scales = {"int8": 4}
    rows = {
        name: {
            "values": sum(sizes),
            "share_of_unet": sum(sizes) / total,
            "bytes": {
                format: BYTES_PER_VALUE[format] * sum(sizes) + scales.get(format, 0) * len(sizes)
                for format in BYTES_PER_VALUE
            },
        }
        for name, sizes in counts.items()
    }
    print(json.dumps({"unet_parameters": total, "updates": rows}, indent=1))


if __name__ == "__main__":
    main()
