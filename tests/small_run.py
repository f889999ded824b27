"""A small pipeline on disk, and homes with few pictures and prompts: real parts of the smallest size."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from fedaigc import assets
from fedaigc.data.scenes import scenes_dataset
from fedaigc.data.sprites import STYLES
from fedaigc.device.device import Device
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.output.records import GenerationRecord, RunRecord
from fedaigc.federation.preloaded import base_model, taxonomy

PROMPTS = ("an apple on a table", "a shiny lemon on a table", "a dog near a river", "a cat near a river")


def save_small_model(folder: Path) -> None:
    """Save a Stable Diffusion pipeline of 60,000 weights at 32 x 32 pixels, with the embedded tokenizer."""
    from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(7)
    tokenizer = CLIPTokenizer.from_pretrained(assets.path("model") / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    pipe: Any = StableDiffusionPipeline(
        vae=AutoencoderTiny(
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
            latent_channels=4,
            upsampling_scaling_factor=2,
        ),
        unet=UNet2DConditionModel(
            sample_size=16,
            mid_block_type=None,
            in_channels=4,
            out_channels=4,
            block_out_channels=(16, 16),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            cross_attention_dim=16,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        scheduler=DDIMScheduler(clip_sample=False, prediction_type="v_prediction"),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.save_pretrained(folder)


MakeRun = Callable[..., FederationConfig]


def run_maker(small_model: Path, parent: Path) -> MakeRun:
    """Return a function that creates a run's configuration and its homes in `parent`. Keywords replace values."""

    def make(
        folder: str = "run", *, num_clients: int = 3, prompts: Sequence[str] = PROMPTS, **values: Any
    ) -> FederationConfig:
        root = parent / folder
        config = parse_config(
            {
                "homes": root / "homes",
                "output": root / "out",
                "num_clients": num_clients,
                "model": {"name": str(small_model), "height": 32, "width": 32},
                "adapter": {"rank": 2},
                "rounds": {"count": 2},
                "training": {"local_steps": 2, "personal_steps": 1, "batch_size": 2, "learning_rate": 1e-2},
                "generation": {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none"},
                **values,
            }
        )
        pipe, base_hash = base_model(config.model)
        for client in range(num_clients):
            home = config.home(client)
            device = Device(home, pipe, base_hash=base_hash, taxonomy=taxonomy(), seed=client)
            style = STYLES[client % len(STYLES)]
            device.add_images(scenes_dataset(2 + client, client, styles=(style,)))
            for prompt in prompts[client::num_clients]:
                device.add_prompt(prompt)
        return config

    return make


def kept(config: FederationConfig) -> Callable[[], FederationConfig]:
    """Keep a run's homes and output as they are now; the function returned puts them back, for the next test."""
    root = config.homes.parent
    copy = root.with_name(f"{root.name}-kept")
    shutil.copytree(root, copy)

    def restored() -> FederationConfig:
        shutil.rmtree(root)
        shutil.copytree(copy, root)
        return config

    return restored


def generation_of(record: RunRecord) -> GenerationRecord:
    """What a run drew; the test fails if it drew nothing."""
    assert record.generation is not None
    return record.generation


def images(config: FederationConfig) -> dict[str, bytes]:
    """Return the finished pictures of all devices, by task."""
    found = {}
    for path in sorted(config.homes.glob("*/gallery/*.png")):
        found[path.name] = Image.open(path).tobytes()
    return found
