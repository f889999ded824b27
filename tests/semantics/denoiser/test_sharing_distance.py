"""The vector of a prompt is the denoiser's own first answer, on every family of pipelines."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from fedaigc.diffusion.encoding import encode_text
from fedaigc.diffusion.sampling.first_answer import first_answer
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import UserError
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, answers, distance, phi, projected
from tests.diffusion.tiny_pipelines import tiny_pipeline

PROMPTS = ["an apple on a table", "a dog near a river", ""]


def plan_of(pipe: Any, **settings: Any) -> DenoisingPlan:
    given = {"num_inference_steps": 4, "guidance_scale": 3.0, "height": 64, "width": 64, "base_hash": "b"}
    return build_plan(pipe, **{**given, **settings})


def test_it_is_the_networks_answer_to_the_public_noise(pipe: Any) -> None:
    plan = plan_of(pipe)
    space = DenoiserSpace.of(plan, dimensions=0)
    found = phi(pipe, space, PROMPTS)
    noise = initial_state(pipe, plan, 0).latents
    # the noise is public: the same for every prompt and every call
    seen: list[torch.Tensor] = []
    handle = pipe.unet.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        again = phi(pipe, space, PROMPTS)
    finally:
        handle.remove()
    assert np.array_equal(found, again)
    (noisy,) = seen
    assert noisy.shape == (3, *noise.shape[1:])
    assert torch.equal(noisy[0], noisy[2])
    with torch.no_grad():
        text = encode_text(pipe, PROMPTS)["prompt_embeds"]
        expected = pipe.unet(noisy, plan.timesteps[0], encoder_hidden_states=text).sample
    np.testing.assert_allclose(found, expected.flatten(1).numpy(), atol=1e-4)


def test_guidance_only_scales_the_distance(pipe: Any) -> None:
    """With guidance w the answers differ by w times as much: the unconditional part cancels."""
    plan = replace(plan_of(pipe), guidance_scale=3.0)
    state = initial_state(pipe, plan, 5)
    both = replace(state, latents=state.latents.repeat_interleave(2, 0))
    guided = first_answer(pipe, both, {"prompt": PROMPTS[:2]}, plan)
    alone_plan = replace(plan, guidance_scale=1.0)
    alone = first_answer(
        pipe, replace(both, plan_fingerprint=alone_plan.fingerprint()), {"prompt": PROMPTS[:2]}, alone_plan
    )
    torch.testing.assert_close(guided[0] - guided[1], 3 * (alone[0] - alone[1]), atol=1e-3, rtol=1e-3)


def test_a_prompt_has_the_same_vector_in_any_batch(pipe: Any) -> None:
    space = DenoiserSpace.of(plan_of(pipe))
    many = phi(pipe, space, PROMPTS)
    one = np.concatenate([phi(pipe, space, [text]) for text in PROMPTS])
    np.testing.assert_allclose(many, one, atol=1e-3)
    assert distance(many[0], many[0]) == 0
    assert distance(many[0], many[1]) > 1


def test_several_noises_average_the_squared_distance(pipe: Any) -> None:
    plan = plan_of(pipe)
    squares = []
    for number in range(3):
        answer = answers(pipe, DenoiserSpace.of(plan).plan, PROMPTS[:2], number).numpy()
        squares.append(float(((answer[0] - answer[1]) ** 2).sum()))
    one, two = phi(pipe, DenoiserSpace.of(plan, noises=3, dimensions=0), PROMPTS[:2])
    assert distance(one, two) ** 2 == pytest.approx(sum(squares) / 3, rel=1e-4)
    assert len(set(squares)) == 3


def test_a_projection_keeps_distances_nearly_and_spans_blocks() -> None:
    # more values than a block of columns
    values = torch.randn(2, 70_000, generator=torch.Generator().manual_seed(0))
    exact = float((values[0] - values[1]).norm())
    for number in range(3):
        one, two = projected(values, 1024, number)
        assert distance(one, two) == pytest.approx(exact, rel=0.1)
    # the part past the first block counts
    assert np.abs(projected(values[:, :65_536], 8, 0) - projected(values, 8, 0)).min() > 0
    assert np.array_equal(projected(values, 0, 0), values.numpy())


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sd3", "flux"])
def test_every_family_has_a_distance(family: str) -> None:
    pipe = tiny_pipeline(family)
    before = pipe.scheduler
    plan = plan_of(pipe, height=32, width=32)
    one, two, empty = phi(pipe, DenoiserSpace.of(plan, dimensions=16), PROMPTS)
    assert len(one) == 16
    assert min(distance(one, two), distance(one, empty)) > 0
    assert pipe.scheduler is before


def test_the_hash_covers_what_the_vector_depends_on_and_nothing_else(pipe: Any) -> None:
    plan = plan_of(pipe)
    same = DenoiserSpace.of(plan).hash
    assert DenoiserSpace.of(replace(plan, guidance_scale=7.5, negative_prompt="fog")).hash == same
    others = [
        DenoiserSpace.of(plan, noises=2),
        DenoiserSpace.of(plan, dimensions=32),
        *(
            DenoiserSpace.of(replace(plan, **changed))
            for changed in (
                {"base_hash": "c"},
                {"shared_hash": "d"},
                {"scheduler_class": "EulerDiscreteScheduler"},
                {"timesteps": (998.0, *plan.timesteps[1:])},
                {"height": 128},
                {"width": 128},
            )
        ),
    ]
    assert len({same, *(space.hash for space in others)}) == 1 + len(others)


def test_what_cannot_be_a_space_or_a_first_answer_is_refused(pipe: Any) -> None:
    plan = plan_of(pipe)
    with pytest.raises(UserError, match="0 noises"):
        DenoiserSpace(plan, noises=0)
    with pytest.raises(UserError, match="no prompts"):
        phi(pipe, DenoiserSpace.of(plan), [])
    later = run_segment(pipe, initial_state(pipe, plan, 0), {"prompt": ""}, plan, 1)
    with pytest.raises(UserError, match="at step 1"):
        first_answer(pipe, later, {"prompt": ""}, plan)
