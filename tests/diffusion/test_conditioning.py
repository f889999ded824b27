"""A pipeline runs on the conditioning of a prompt as on the prompt itself."""

from typing import Any

import pytest
import torch

from fedaigc.diffusion.conditioning import check_conditioning, placed, prompt_conditioning, prompt_digest
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.errors import UserError
from tests.diffusion.families.registered import small_family
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


@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_of_one_digest_have_one_conditioning(family: str, tiny: Tiny) -> None:
    pipe: Any = tiny(family)
    texts = ("a red dog", "A  red dog ", "a red dog.", "two cats", "", "a red " + "dog " * 200)
    embedded = [prompt_conditioning(pipe, text) for text in texts]
    digests = [prompt_digest(pipe, text) for text in texts]
    for i, one in enumerate(embedded):
        for j, other in enumerate(embedded[:i]):
            if digests[i] == digests[j]:
                assert all(torch.equal(one[name], other[name]) for name in one), (texts[i], texts[j])
    # blanks are no words, and a full stop is one
    assert digests[0] not in digests[2:]
    assert len(set(digests)) >= 5


def test_where_no_tokens_are_known_the_words_count() -> None:
    pipe = small_family("pixart_binned").pipe
    told = {prompt_digest(pipe, text) for text in ("a dog", "a dog", "A dog", "a  dog")}
    assert len(told) == 3
