"""A pipeline runs on the conditioning of a prompt as on the prompt itself."""

from typing import Any

import pytest
import torch

from fedaigc.diffusion.conditioning import check_conditioning, placed, prompt_conditioning
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.errors import UserError
from tests.diffusion.families.small_families import small_family
from tests.diffusion.tiny_pipelines import FAMILIES, SIZE, Tiny


# FLUX refuses a negative prompt without a true guidance scale
@pytest.mark.parametrize(
    ("family", "negative"),
    [(family, text) for family in FAMILIES for text in ("", "blurry") if not (family == "flux" and text)],
)
def test_prompt_and_conditioning_are_the_same_run(family: str, negative: str, tiny: Tiny) -> None:
    pipe: Any = tiny(family)
    plan = build_plan(
        pipe,
        num_inference_steps=3,
        guidance_scale=4.0,
        height=SIZE,
        width=SIZE,
        base_hash="b",
        negative_prompt=negative,
    )
    check_conditioning(pipe, plan, "a red dog")
    state = initial_state(pipe, plan, 3)
    by_prompt = run_segment(pipe, state, {"prompt": "a red dog"}, plan, 2)
    conditioning = prompt_conditioning(pipe, "a red dog")
    by_tensors = run_segment(pipe, state, placed(pipe, conditioning), plan, 2)
    assert torch.equal(by_prompt.latents, by_tensors.latents)
    other = run_segment(pipe, state, placed(pipe, prompt_conditioning(pipe, "two cats")), plan, 2)
    assert not torch.equal(by_prompt.latents, other.latents)


def test_conditionings_that_do_not_fit_are_refused(tiny: Tiny) -> None:
    pipe: Any = tiny("sd1")
    good = prompt_conditioning(pipe, "a dog")
    with pytest.raises(UserError, match=r"of the form .*: StableDiffusionPipeline takes"):
        placed(pipe, {"prompt_embeds": good["prompt_embeds"][:, 1:]})
    with pytest.raises(UserError, match="takes"):
        placed(pipe, {**good, "more": good["prompt_embeds"]})
    with pytest.raises(UserError, match="not finite"):
        placed(pipe, {"prompt_embeds": good["prompt_embeds"] / 0})


def test_a_pipeline_with_masks_has_no_mean() -> None:
    with pytest.raises(UserError, match="takes more of a prompt than embeddings of one size"):
        prompt_conditioning(small_family("pixart_binned").pipe, "a dog")
