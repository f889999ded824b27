"""Train the model and the judge that ship with fedaigc:

    python -m experiments.pretrain --work runs/pretrain --seed 0

Resumes from the checkpoints in --work. With --install the results replace fedaigc/assets/model and the judge.
"""

import argparse
import shutil
from pathlib import Path

import torch

from experiments.pretrain import decoder, denoiser, judge, recipe, vae
from experiments.pretrain.scenes import draw
from fedaigc import assets
from fedaigc.data.scenes import SIZE

STAGES = ("vae", "judge", "denoiser", "decoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints and results")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--vae-steps", type=int, default=4000)
    parser.add_argument("--judge-steps", type=int, default=6000)
    parser.add_argument("--denoiser-steps", type=int, default=10000)
    parser.add_argument("--decoder-steps", type=int, default=5000)
    parser.add_argument(
        "--scenes",
        type=int,
        default=60000,
        help=f"number of rendered training scenes of {SIZE}x{SIZE} pixels",
    )
    parser.add_argument("--only", choices=STAGES, help="run only this stage (the autoencoder must exist)")
    parser.add_argument("--install", action="store_true", help="copy the results into the package")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    recipe.seed_everything(options.seed, options.threads)

    if options.only in (None, "vae"):
        vae.train(
            options.work, draw(20000, options.seed), steps=options.vae_steps, seed=options.seed
        ).save_pretrained(options.work / "vae")
    autoencoder = vae.load(options.work / "vae")
    if options.only in (None, "judge"):
        net = judge.train(
            options.work, autoencoder, scenes=30000, steps=options.judge_steps, seed=options.seed
        )
        report = judge.measure(net, autoencoder, seed=options.seed + 1)
        judge.save(net, report, options.work)
        print(*(f"{key}: {value}" for key, value in report.items()), sep="\n")
    if options.only in (None, "denoiser"):
        torch.manual_seed(options.seed)
        pictures = draw(options.scenes, options.seed)
        pipe = denoiser.train(
            options.work, autoencoder, pictures, steps=options.denoiser_steps, seed=options.seed
        )
        denoiser.save(pipe, options.work / "model")
    if options.only in (None, "decoder"):
        sharper = decoder.train(
            options.work,
            autoencoder,
            draw(20000, options.seed),
            steps=options.decoder_steps,
            seed=options.seed,
        )
        sharper.half().save_pretrained(options.work / "model" / "vae")
    if options.install:
        target = assets.path("model")
        shutil.copytree(options.work / "model", target, dirs_exist_ok=True)
        for name in ("judge.safetensors", "judge.json"):
            shutil.copy(options.work / name, target.parent / name)


if __name__ == "__main__":
    main()
