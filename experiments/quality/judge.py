"""Measure the embedded judge on held-out scenes, on their reconstructions by the autoencoder, and on negatives.

    python -m experiments.quality.judge

Prints JSON: the accuracy of object, place and style on 2,000 fresh scenes of held-out combinations, and the
share of 250 pictures of each kind of negative (`experiments.pretrain.negatives`) that it rejects.
"""

import argparse
import json

import torch

import fedaigc
from experiments.pretrain import judge
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.metrics.judge import Judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipe: Pipeline = load_pipeline()
    report = judge.measure(Judge.load().net, pipe.vae, seed=options.seed)
    print(json.dumps({"fedaigc": fedaigc.__version__, "base": base_fingerprint(pipe)} | report, indent=1))


if __name__ == "__main__":
    main()
