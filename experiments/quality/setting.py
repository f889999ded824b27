"""The common setting of experiments on shared steps: model, plan, judge, and the general word of an object."""

from dataclasses import dataclass
from typing import Any

from experiments.quality.sampling import one_thread
from fedaigc.data.scene_words import GENERAL_OBJECT_NOUNS, Noun
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.metrics.judge import Judge
from fedaigc.semantics.concepts.taxonomy import Taxonomy


@dataclass(frozen=True)
class Setting:
    """The embedded pipeline, the plan of every picture (64 x 64 pixels), and the judge."""

    pipe: Any
    plan: DenoisingPlan
    judge: Judge


def open_setting() -> Setting:
    """Return the setting with N = 11 and guidance 5, in one thread."""
    one_thread()
    pipe = load_pipeline()
    plan = build_plan(
        pipe,
        num_inference_steps=11,
        guidance_scale=5.0,
        height=64,
        width=64,
        base_hash=base_fingerprint(pipe),
    )
    return Setting(pipe, plan, Judge.load())


def kind_of(noun: Noun, taxonomy: Taxonomy) -> Noun:
    """Return the nearest general word above an object."""
    above = taxonomy.ancestors(noun.concept)
    return next(general for general in GENERAL_OBJECT_NOUNS if general.concept in above)
