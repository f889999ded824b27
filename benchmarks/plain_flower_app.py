"""A federated LoRA app in the style of Flower's quickstart examples, for comparison only.

Each message loads the pipeline and the client's pictures again, and every tensor is sent as a separate array.
"""

from typing import Any

import torch
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from peft import LoraConfig, get_peft_model_state_dict, set_peft_model_state_dict

app = ClientApp()
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2", "conv", "conv_shortcut"]


def load_model(model: str, rank: int) -> Any:
    """Load the pipeline, with a LoRA adapter on its denoiser."""
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(model, safety_checker=None, dtype=torch.float32)
    pipe.unet.requires_grad_(False)
    pipe.unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=TARGETS))
    return pipe


def load_data(pipe: Any, client: int, num_images: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return latents and text embeddings of the client's pictures."""
    from fedaigc.data.scenes import scenes_dataset
    from fedaigc.data.sprites import STYLES

    rows = scenes_dataset(num_images, seed + client, styles=(STYLES[client % len(STYLES)],))
    pixels = pipe.image_processor.preprocess([row["image"] for row in rows], height=64, width=64)
    with torch.no_grad():
        latents = pipe.vae.encode(pixels).latents * pipe.vae.config.scaling_factor
        text = pipe.encode_prompt(list(rows["caption"]), "cpu", 1, False)[0]
    return latents, text


def train_steps(
    pipe: Any, latents: torch.Tensor, text: torch.Tensor, steps: int, lr: float, low: int, high: int
) -> float:
    """Train the adapter on timesteps [low, high); returns the mean loss."""
    parameters = [p for p in pipe.unet.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    total = 0.0
    for _ in range(steps):
        rows = torch.randint(len(latents), (8,))
        noise = torch.randn_like(latents[rows])
        timesteps = torch.randint(low, high, (8,))
        noisy = pipe.scheduler.add_noise(latents[rows], noise, timesteps)
        target = pipe.scheduler.get_velocity(latents[rows], noise, timesteps)
        predicted = pipe.unet(noisy, timesteps, encoder_hidden_states=text[rows]).sample
        loss = torch.nn.functional.mse_loss(predicted, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
    return total / steps


@app.train()
def train(message: Message, context: Context) -> Message:
    """Run one round of a client."""
    values = context.run_config
    pipe = load_model(str(values["model"]), int(values["rank"]))
    set_peft_model_state_dict(pipe.unet, message.content.array_records["arrays"].to_torch_state_dict())
    client = int(context.node_config["partition-id"])
    latents, text = load_data(pipe, client, int(values["num-images"]), int(values["seed"]))
    steps, lr = int(values["steps"]), float(values["learning-rate"])
    loss = train_steps(pipe, latents, text, steps, lr, 500, 1000)
    content = RecordDict(
        {
            "arrays": ArrayRecord(get_peft_model_state_dict(pipe.unet)),
            "metrics": MetricRecord({"train_loss": loss, "num-examples": len(latents)}),
        }
    )
    return Message(content=content, reply_to=message)
