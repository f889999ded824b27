"""Measure object and place accuracy of solo runs of held-out combinations, by the judge; prints JSON.

python -m experiments.quality.solo
"""

import argparse
import json

import fedaigc
from experiments.quality.sampling import draw, one_thread
from fedaigc.data.scene_words import OBJECTS, PLACES
from fedaigc.data.scenes import Scene, held_out_combinations
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.metrics.intervals import proportion
from fedaigc.metrics.judge import Judge
from fedaigc.rng import numpy_rng


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=11)
    parser.add_argument("--guidance", type=float, default=5.0)
    parser.add_argument("--model", default="embedded")
    options = parser.parse_args()
    one_thread()
    triples = held_out_combinations()
    chosen = numpy_rng(options.seed, "prompts").integers(len(triples), size=options.prompts)
    scenes = [Scene(*triples[int(i)], style="noto") for i in chosen]
    images = draw(
        load_pipeline(options.model),
        [scene.caption for scene in scenes],
        seeds=range(options.prompts),
        num_inference_steps=options.steps,
        guidance_scale=options.guidance,
    )
    verdicts = Judge.load().score(images)
    object_right = [v.object == s.object for v, s in zip(verdicts, scenes, strict=True)]
    place_right = [v.place == s.place for v, s in zip(verdicts, scenes, strict=True)]
    report = {
        "what": "solo pictures of held-out object-place combinations, scored by the judge",
        "fedaigc": fedaigc.__version__,
        "prompts": options.prompts,
        "seed": options.seed,
        "steps": options.steps,
        "guidance_scale": options.guidance,
        "object accuracy": proportion(object_right).as_dict(),
        "place accuracy": proportion(place_right).as_dict(),
        "by object": {
            word: [
                sum(r for r, s in zip(object_right, scenes, strict=True) if s.object == word),
                sum(s.object == word for s in scenes),
            ]
            for word in OBJECTS
        },
        "by place": {
            word: [
                sum(r for r, s in zip(place_right, scenes, strict=True) if s.place == word),
                sum(s.place == word for s in scenes),
            ]
            for word in PLACES
        },
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
