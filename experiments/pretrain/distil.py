"""Distil the few-step twin of the embedded model:

    python -m experiments.pretrain.distil --work runs/distil --seed 0

The teacher is the embedded model. It solves its guided ODE from noise to the end, and the twin learns to give the end
from any point of the way in one evaluation: the consistency function of Song et al., "Consistency models", 2023, with
the guidance scale as an input as in Luo et al., "Latent consistency models", 2023. Both of them compare neighbouring
points, which costs less memory; here the ends are stored, since so few steps of training would not carry what the
last points know to the first.

Resumes from what is in --work. With --install the result replaces fedaigc/assets/model_lcm.
"""

import argparse
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import LCMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from rich.progress import track
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from experiments.pretrain import denoiser, loop, recipe
from fedaigc import assets
from fedaigc.data.scenes import Scene, combinations
from fedaigc.data.sprites import TRAINED_STYLES
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.rng import numpy_rng, rng

SHARD = 128  # ways that the teacher solves at once
FIRST_STEPS, SECOND_STEPS = 8, 4
GUIDANCE = (2.0, 8.0)
GUIDANCE_WIDTH = 64  # of the embedding of the guidance scale
BATCH = 16
# share of the batch that begins in pure noise, where the way is longest
FROM_NOISE = 0.3


@dataclass(frozen=True)
class Ways:
    """Points of the teacher's ways: `states` [points, 8, 16, 16] with timesteps, tokens, guidance, and ends.

    Point i lies on way `way[i]`, and that ends in `ends[way[i]]`.
    """

    states: Tensor
    timesteps: Tensor
    way: Tensor
    tokens: Tensor
    guidance: Tensor
    ends: Tensor

    def save(self, file: Path) -> None:
        """Write all points to a file, in one rename."""
        torch.save(self.__dict__, file.with_suffix(".tmp"))
        file.with_suffix(".tmp").rename(file)


def solve(
    teacher: Pipeline, noisy: Tensor, times: Tensor, tokens: Tensor, guidance: Tensor
) -> tuple[Tensor, Tensor]:
    """Solve the guided ODE by DDIM steps.

    Args:
        teacher: The pipeline.
        noisy: Latents at the first times, [n, 8, 16, 16].
        times: Decreasing timesteps of each way, [steps, n].
        tokens: Token ids of the captions, [n, 16].
        guidance: Guidance scales, [n].

    Returns:
        The latents at all times, [steps, n, 8, 16, 16], and at the end, [n, 8, 16, 16].
    """
    alphas = recipe.scheduler().alphas_cumprod
    empty = torch.as_tensor(_tokens(teacher, [""])).expand(len(tokens), -1)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        text = teacher.text_encoder(torch.cat([empty, tokens]))[0]
        states = []
        for i, now in enumerate(times):
            states.append(noisy)
            twice = torch.cat([noisy, noisy]).contiguous(memory_format=torch.channels_last)
            without, given = teacher.unet(twice, torch.cat([now, now]), text)[0].float().chunk(2)
            velocity = without + _wide(guidance) * (given - without)
            alpha, sigma = _wide(alphas[now].sqrt()), _wide((1 - alphas[now]).sqrt())
            clean, noise = alpha * noisy - sigma * velocity, alpha * velocity + sigma * noisy
            after = alphas[times[i + 1]] if i + 1 < len(times) else alphas[0].expand(len(now))
            noisy = _wide(after.sqrt()) * clean + _wide((1 - after).sqrt()) * noise
    return torch.stack(states), noisy


def draw_ways(teacher: Pipeline, seed: int, shard: int) -> Ways:
    """Solve SHARD ways from noise, and as many from their ends with noise added at a random timestep.

    The second ways have another caption of the same scene, more general or less, as a member's own steps have after
    those of its group.
    """
    generator, random = rng(seed, "ways", shard), numpy_rng(seed, "scenes", shard)
    writer, triples = recipe.CaptionWriter(), combinations(include_held_out=False)
    scenes = [
        Scene(
            *triples[int(random.integers(len(triples)))],
            TRAINED_STYLES[int(random.integers(len(TRAINED_STYLES)))],
        )
        for _ in range(SHARD)
    ]
    low, high = GUIDANCE
    guidance = low + (high - low) * torch.rand(SHARD, generator=generator)
    first, second = (_tokens(teacher, [writer.write(scene, random) for scene in scenes]) for _ in range(2))

    noise = torch.randn((SHARD, recipe.LATENT_CHANNELS, 16, 16), generator=generator)
    gap = 1000 / FIRST_STEPS
    offsets = gap * (torch.rand((FIRST_STEPS, SHARD), generator=generator) - 0.5) * 0.6
    offsets[0] = 0
    times = (999 - gap * torch.arange(FIRST_STEPS)[:, None] + offsets).long()
    states, ends = solve(teacher, noise, times, first, guidance)

    start = 150 + 750 * torch.rand(SHARD, generator=generator)
    again = (start * (1 - torch.arange(SECOND_STEPS)[:, None] / SECOND_STEPS)).long()
    alpha = recipe.scheduler().alphas_cumprod[again[0]]
    fresh = torch.randn(ends.shape, generator=generator)
    noisy = _wide(alpha.sqrt()) * ends + _wide((1 - alpha).sqrt()) * fresh
    more, more_ends = solve(teacher, noisy, again, second, guidance)
    return Ways(
        states=torch.cat([states.flatten(0, 1), more.flatten(0, 1)]).half(),
        timesteps=torch.cat([times.flatten(), again.flatten()]),
        way=torch.cat(
            [torch.arange(SHARD).repeat(FIRST_STEPS), SHARD + torch.arange(SHARD).repeat(SECOND_STEPS)]
        ),
        tokens=torch.cat([first, second]),
        guidance=guidance.repeat(2),
        ends=torch.cat([ends, more_ends]).half(),
    )


def collect(teacher: Pipeline, work: Path, *, shards: int, seed: int) -> Ways:
    """Return all ways; those that `work` has already are read from there."""
    found: list[Ways] = []
    for shard in track(range(shards), description="the teacher's ways"):
        file = work / f"ways{shard:03}.pt"
        if not file.exists():
            draw_ways(teacher, seed, shard).save(file)
        found.append(Ways(**torch.load(file, weights_only=True)))
    base = [2 * SHARD * shard for shard in range(shards)]
    return Ways(
        states=torch.cat([each.states for each in found]),
        timesteps=torch.cat([each.timesteps for each in found]),
        way=torch.cat([each.way + begin for each, begin in zip(found, base, strict=True)]),
        tokens=torch.cat([each.tokens for each in found]),
        guidance=torch.cat([each.guidance for each in found]),
        ends=torch.cat([each.ends for each in found]),
    )


def twin_of(teacher: Pipeline) -> recipe.Model:
    """Return the teacher's denoiser with an input for the guidance scale, which has no effect yet."""
    twin: recipe.Model = UNet2DConditionModel.from_config(
        {**teacher.unet.config, "time_cond_proj_dim": GUIDANCE_WIDTH}
    )
    twin.load_state_dict(teacher.unet.state_dict(), strict=False)
    torch.nn.init.zeros_(twin.time_embedding.cond_proj.weight)
    return twin.to(memory_format=torch.channels_last)


def scheduler() -> LCMScheduler:
    """Return the scheduler of the twin: the teacher's noise levels."""
    return LCMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        set_alpha_to_one=False,
        original_inference_steps=50,
    )


def train(teacher: Pipeline, work: Path, ways: Ways, *, steps: int, seed: int) -> Pipeline:
    """Train the twin on the ways' ends, with a pseudo-Huber loss, and return its pipeline."""
    twin = twin_of(teacher)
    alphas = recipe.scheduler().alphas_cumprod
    noise_rows = (ways.timesteps == len(alphas) - 1).nonzero().flatten()
    share = round(FROM_NOISE * BATCH)
    # as the stock pipeline embeds it
    embedded = teacher.get_guidance_scale_embedding(ways.guidance - 1, embedding_dim=GUIDANCE_WIDTH)
    nearly_zero = 0.00054 * ways.ends[0].numel() ** 0.5  # Song & Dhariwal, 2023

    def loss_of_step(step: int) -> Tensor:
        generator = rng(seed, "distil", step)
        rows = torch.cat(
            [
                noise_rows[torch.randint(len(noise_rows), (share,), generator=generator)],
                torch.randint(len(ways.states), (BATCH - share,), generator=generator),
            ]
        )
        way, times = ways.way[rows], ways.timesteps[rows]
        noisy = ways.states[rows].float().contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            with torch.no_grad():
                text = teacher.text_encoder(ways.tokens[way])[0]
            velocity = twin(noisy, times, text, timestep_cond=embedded[way], return_dict=False)[0].float()
        alpha, sigma = _wide(alphas[times].sqrt()), _wide((1 - alphas[times]).sqrt())
        error = (alpha * noisy - sigma * velocity - ways.ends[way].float()).square().sum((1, 2, 3))
        return ((error + nearly_zero**2).sqrt() - nearly_zero).mean()

    loop.train("twin", work, {"unet": twin}, loss_of_step, steps=steps, peak=5e-4, ema_decay=0.995)
    parts = {**teacher.components, "unet": twin.eval(), "scheduler": scheduler()}
    return StableDiffusionPipeline(**parts, requires_safety_checker=False)


def _tokens(teacher: Pipeline, captions: list[str]) -> Tensor:
    found: Tensor = teacher.tokenizer(
        captions, padding="max_length", max_length=recipe.TOKENS, truncation=True, return_tensors="pt"
    ).input_ids
    return found


def _wide(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--shards", type=int, default=8, help=f"each of {SHARD} ways from noise, and as many more"
    )
    parser.add_argument("--steps", type=int, default=1400)
    parser.add_argument("--install", action="store_true", help="copy the result into the package")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    recipe.seed_everything(options.seed, 1)
    teacher: Pipeline = load_pipeline()
    teacher.unet.to(memory_format=torch.channels_last)
    ways = collect(teacher, options.work, shards=options.shards, seed=options.seed)
    denoiser.save(
        train(teacher, options.work, ways, steps=options.steps, seed=options.seed), options.work / "model"
    )
    # the teacher's own files, without what the tokenizer has kept of its last call
    shutil.copytree(
        assets.path("model") / "tokenizer", options.work / "model" / "tokenizer", dirs_exist_ok=True
    )
    if options.install:
        target = Path(assets.__file__).parent / "model_lcm"
        shutil.copytree(options.work / "model", target, dirs_exist_ok=True)


if __name__ == "__main__":
    main()
