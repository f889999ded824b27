"""One training step of a small family."""

from typing import Any

import torch
from PIL import Image

from fedaigc.diffusion.adapters.stages import Stage
from fedaigc.diffusion.encoding import EncodedImages, encode_images
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.diffusion.training import TrainingSettings, train_stage
from fedaigc.diffusion.training_call import latents_by_call, text_by_call, trains_by_call
from fedaigc.rng import rng
from tests.diffusion.families.family import Family

SETTINGS = TrainingSettings(batch_size=2, learning_rate=1e-2)
# families that cannot be trained, or whose small pipeline cannot encode, with what is said of them
CANNOT_TRAIN = {
    "lcm": "embedding of the guidance scale",
    "inpainting": "inputs of 9 channels",
    "sdxl_inpainting": "inputs of 9 channels",
    "cogview4": "told other times than the noise levels",
    "wan": "no `image_processor` for pictures",
    "ltx": "no `image_processor` for pictures",
    "kolors": "not callable",  # the small one has no tokenizer
    "kolors_perturbed": "not callable",
    "sana_sprint": "Intermediate timesteps",
    "hidream": "draws no pictures of 32 x 32 pixels",
    "qwen_image_21": "its autoencoder refuses pictures",
    "flux_control": "takes 32 channels",
    "cogview4_control": "refuses these settings",
    "qwen_image_controlnet": "refuses these settings",
    "z_image_controlnet": "can sample but not train here",
    "z_image_controlnet_inpainting": "can sample but not train here",
    "glm_image": "refuses these settings",
    "qwen_image_edit": "refuses these settings",
    "kandinsky3": "no `vae` for pictures",
    "deep_floyd": "no `vae` for pictures",
    "kandinsky22": "no `vae` for pictures",
    "latent_diffusion": "no `vae` for pictures",
}


def encoded(family: Family) -> EncodedImages:
    """Two pictures with the two prompts of a family, which may be embeddings."""
    pipe = family.pipe
    side = family.side if not family.side % 16 else -(-family.side // 64) * 64
    pictures = [Image.new("RGB", (side, side), colour) for colour in ("red", "blue")]
    if not trains_by_call(pipe):
        return encode_images(pipe, pictures, ["an apple", "a lemon"], height=side, width=side)
    if getattr(pipe, "image_processor", None) is None:
        encode_images(pipe, pictures, ["", ""], height=side, width=side)
    text = text_by_call(pipe, [family.prompt, family.other, family.prompt])
    pixels = pipe.image_processor.preprocess(pictures, height=side, width=side)
    return EncodedImages(
        latents_by_call(pipe, pixels),
        {name: rows[:2] for name, rows in text.items()},
        {name: rows[2:] for name, rows in text.items()},
    )


def train_one_step(pipe: Any, data: EncodedImages, stage: Stage) -> list[float]:
    """Train a step of a stage, and return its loss."""
    with torch.random.fork_rng(devices=[]):
        return train_stage(
            pipe,
            stage,
            data,
            steps=1,
            settings=SETTINGS,
            boundary_log_snr=boundary_log_snr(pipe, 500),
            generator=rng(0, "train"),
        )
