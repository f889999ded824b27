"""Measure a client's art style before and after personal training, against the shared steps; prints JSON.

    python -m experiments.quality.style

For each held-out style, the personal adapter is trained on pictures in that style, on the clean side of a
boundary t* at step K of 11, and used from that step on. Steps before K run on the group prompt and the base
weights, as an edge server would run them. The more steps are shared, the less of the style can appear.
"""

import argparse
import json

import torch
from PIL import Image
from rich.progress import Progress

import fedaigc
from experiments.quality.sampling import BATCH, PROGRESS_CONSOLE
from experiments.quality.setting import kind_of, open_setting
from fedaigc.data.scene_words import OBJECT_NOUNS, OBJECTS, PLACE_NOUNS, PLACES
from fedaigc.data.scenes import Scene, combinations, draw_scenes
from fedaigc.data.sprites import HELD_OUT_STYLES
from fedaigc.diffusion.adapters.stages import Stage, activate, install_personal, new_adapter, remove
from fedaigc.diffusion.encoding import encode_images
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.sampling.segment import finish_segment, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, log_snr
from fedaigc.diffusion.training import TrainingSettings, train_stage
from fedaigc.metrics.intervals import proportion
from fedaigc.rng import derived_seed, numpy_rng, rng
from fedaigc.semantics.concepts.taxonomy import Taxonomy

# noisier than every timestep: with K = 0 the personal stage is the whole range
ALL_PERSONAL = -100.0


def draw(pipe: Pipeline, plan: DenoisingPlan, scenes: list[Scene], k: int, seed: int) -> list[Image.Image]:
    """Draw pictures of `scenes`: steps before K on base and group prompt, the others with the personal adapter."""
    taxonomy = Taxonomy.load()
    images: list[Image.Image] = []
    for start in range(0, len(scenes), BATCH):
        chunk = scenes[start : start + BATCH]
        public = [
            f"{kind_of(OBJECT_NOUNS[OBJECTS.index(s.object)], taxonomy).phrase} {s.relation} "
            f"{PLACE_NOUNS[PLACES.index(s.place)].phrase}"
            for s in chunk
        ]
        state = initial_state(pipe, plan, derived_seed(seed, "noise", start), batch=len(chunk))
        activate(pipe, Stage.BASE)
        state = run_segment(pipe, state, {"prompt": public}, plan, k)
        activate(pipe, Stage.PERSONAL)
        own = {"prompt": [scene.caption for scene in chunk]}
        images += finish_segment(pipe, state, own, plan)
    return images


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--styles", nargs="+", default=list(HELD_OUT_STYLES))
    parser.add_argument("--hand-offs", nargs="+", type=int, default=[0, 3, 5, 7, 9])
    parser.add_argument("--images", type=int, default=480, help="number of private pictures of the client")
    parser.add_argument("--train-steps", type=int, default=300)
    parser.add_argument("--pictures", type=int, default=64, help="number of scored pictures per row")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    setting = open_setting()
    pipe, plan, judge = setting.pipe, setting.plan, setting.judge
    triples = combinations(include_held_out=False)
    chosen = numpy_rng(options.seed, "prompts").integers(len(triples), size=options.pictures)
    settings = TrainingSettings(personal_steps=options.train_steps)
    rows: list[dict[str, object]] = []
    with Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("styles and hand-offs", total=len(options.styles) * len(options.hand_offs))
        for style in options.styles:
            scenes = [Scene(*triples[int(i)], style=style) for i in chosen]
            private = list(
                draw_scenes(options.images, derived_seed(options.seed, "private", style), styles=(style,))
            )
            data = encode_images(
                pipe,
                [image for _, image in private],
                [scene.caption for scene, _ in private],
                height=64,
                width=64,
            )
            for k in options.hand_offs:
                remove(pipe, Stage.PERSONAL)
                before = judge.score(draw(pipe, plan, scenes, k, options.seed))
                install_personal(pipe, new_adapter(pipe, generator=rng(options.seed, "personal", style)))
                train_stage(
                    pipe,
                    Stage.PERSONAL,
                    data,
                    steps=options.train_steps,
                    settings=settings,
                    boundary_log_snr=log_snr(plan)[k] if k else ALL_PERSONAL,
                    generator=rng(options.seed, "train", style, k),
                )
                after = judge.score(draw(pipe, plan, scenes, k, options.seed))
                rows.append(
                    {
                        "style": style,
                        "K": k,
                        "style accuracy before": proportion([v.style == style for v in before]).as_dict(),
                        "style accuracy after": proportion([v.style == style for v in after]).as_dict(),
                        "object accuracy before": proportion(
                            [v.object == s.object for v, s in zip(before, scenes, strict=True)]
                        ).as_dict(),
                        "object accuracy after": proportion(
                            [v.object == s.object for v, s in zip(after, scenes, strict=True)]
                        ).as_dict(),
                    }
                )
                progress.advance(task)
    report = {
        "what": "share of pictures that the judge gives to the client's style; Wilson 95 % intervals",
        "fedaigc": fedaigc.__version__,
        "torch": torch.__version__,
        "base": plan.base_hash,
        "seed": options.seed,
        "private pictures": options.images,
        "training steps": options.train_steps,
        "pictures a row": options.pictures,
        "rows": rows,
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
