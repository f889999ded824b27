"""Images from the call that runs the last steps equal those of `decode(run_segment(...))` byte for byte."""

from typing import Any

import pytest
import torch

from fedaigc.diffusion.adapters.stages import (
    SharedState,
    Stage,
    activate,
    finish_stages,
    install,
    install_personal,
    new_adapter,
    remove,
    run_stages,
)
from fedaigc.diffusion.handoff.packing import pack, unpack
from fedaigc.diffusion.sampling.segment import (
    DenoiserCount,
    decode,
    finish_segment,
    initial_state,
    run_segment,
)
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import UserError
from fedaigc.rng import rng
from tests.diffusion.schedulers import scheduler_of
from tests.diffusion.tiny_pipelines import FAMILIES, SIZE, tiny_pipeline
from tests.plans import with_boundary

PROMPT = {"prompt": "an apple on a table"}
CASES = [(family, "FlowMatchEuler" if family in ("sd3", "flux") else "DDIM") for family in FAMILIES] + [
    ("sd1", name) for name in ("PNDM", "Heun", "EulerAncestral", "UniPC")
]


def plan_of(pipe: Any, guidance_scale: float = 4.0) -> DenoisingPlan:
    return build_plan(
        pipe,
        num_inference_steps=4,
        guidance_scale=guidance_scale,
        height=SIZE,
        width=SIZE,
        base_hash="base",
    )


def pixels(images: Any) -> list[bytes]:
    return [image.tobytes() for image in images]


@pytest.mark.parametrize(("family", "scheduler"), CASES)
def test_the_images_are_those_of_a_second_call(tiny: Any, family: str, scheduler: str) -> None:
    """From every step, including the last, where no step remains; and equal to the stock pipeline's."""
    pipe = tiny(family)
    pipe.scheduler = scheduler_of(family, scheduler)
    plan = plan_of(pipe)
    state = initial_state(pipe, plan, 5)
    end = run_segment(pipe, state, PROMPT, plan, plan.num_steps)
    expected = pixels(decode(pipe, end, plan))
    stock = pipe(
        **PROMPT,
        num_inference_steps=plan.num_inference_steps,
        guidance_scale=plan.guidance_scale,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(5),
    ).images
    assert pixels(stock) == expected
    assert pixels(decode(pipe, initial_state(pipe, plan, 5), plan)) != expected
    for k in range(plan.num_steps + 1):
        state = run_segment(pipe, state, PROMPT, plan, k)
        packet = pack(state, plan, noise_stream=True)
        assert pixels(finish_segment(pipe, unpack(packet, plan), PROMPT, plan)) == expected, k


@pytest.mark.parametrize("family", ["sd1", "flux"])
def test_a_batch_gives_an_image_for_each_latent(tiny: Any, family: str) -> None:
    pipe = tiny(family)
    pipe.scheduler = scheduler_of(family, "FlowMatchEuler" if family == "flux" else "PNDM")
    plan = plan_of(pipe)
    both = {"prompt": [PROMPT["prompt"], "a lemon near a bed"]}
    state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 2).repeated(2)
    expected = pixels(decode(pipe, run_segment(pipe, state, both, plan, plan.num_steps), plan))
    assert len(expected) == 2
    assert pixels(finish_segment(pipe, state, both, plan)) == expected


def test_bfloat16_gives_the_same_images_too() -> None:
    pipe = tiny_pipeline("sd1").to(torch.bfloat16)
    plan = plan_of(pipe)
    state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 2)
    expected = pixels(decode(pipe, run_segment(pipe, state, PROMPT, plan, plan.num_steps), plan))
    assert pixels(finish_segment(pipe, state, PROMPT, plan)) == expected


def test_the_text_is_encoded_once(tiny: Any) -> None:
    """This includes the cost of the second call. Steps are counted and reported as by `run_segment`."""
    pipe = tiny("sd1")
    pipe.scheduler = scheduler_of("sd1", "PNDM")
    plan = plan_of(pipe, guidance_scale=1.0)
    state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, 2)
    encoded: list[int] = []
    hook = pipe.text_encoder.register_forward_hook(lambda *_: encoded.append(1))
    told: list[int] = []
    with DenoiserCount(pipe) as count:
        finish_segment(pipe, state, PROMPT, plan, told.append)
    hook.remove()
    assert len(encoded) == 1
    assert count.calls == plan.num_steps - 2
    assert told == list(range(3, plan.num_steps + 1))


def test_what_run_segment_refuses_is_refused_at_every_step(tiny: Any) -> None:
    pipe = tiny("sd1")
    pipe.scheduler = scheduler_of("sd1", "DDIM")
    plan, other = plan_of(pipe), plan_of(pipe, guidance_scale=2.0)
    for k in (2, plan.num_steps):
        state = run_segment(pipe, initial_state(pipe, plan, 5), PROMPT, plan, k)
        with pytest.raises(UserError, match=f"{plan.fingerprint()}.*{other.fingerprint()}"):
            finish_segment(pipe, state, PROMPT, other)
        with pytest.raises(UserError, match="2 images, but latents of 1"):
            finish_segment(pipe, state, {"prompt": ["a", "b"]}, plan)


@pytest.mark.parametrize(("family", "boundary"), [("flux", 0), ("sd1", 2), ("flux", 4)])
def test_stages_finish_with_the_weights_that_they_run_with(family: str, boundary: int) -> None:
    """The boundary at the start, in the middle, and at the end, where the personal stage has no step."""
    pipe = tiny_pipeline(family)
    plan = with_boundary(plan_of(pipe), boundary)
    install(pipe, SharedState("base", **moved(pipe, "shared")))
    install_personal(pipe, new_adapter(pipe, generator=rng(0, "personal")))
    start = initial_state(pipe, plan, 5)
    ends: dict[int, list[bytes]] = {}
    for k in range(plan.num_steps + 1):
        state = run_stages(pipe, start, PROMPT, plan, k)
        by_two_calls = run_stages(pipe, state, PROMPT, plan, plan.num_steps)
        ends[k] = pixels(finish_stages(pipe, state, PROMPT, plan))
        assert ends[k] == pixels(decode(pipe, by_two_calls, plan)), k
    activate(pipe, Stage.SHARED)
    all_shared = pixels(finish_segment(pipe, start, PROMPT, plan))
    assert all((end == all_shared) == (boundary == plan.num_steps) for end in ends.values())
    remove(pipe, Stage.SHARED)
    remove(pipe, Stage.PERSONAL)


def moved(pipe: Any, name: str) -> dict[str, Any]:
    """Factors with a nonzero B, so that the shared stage differs from the base."""
    fresh = new_adapter(pipe, generator=rng(0, name))
    noise = rng(1, name)
    adapter = fresh.with_tensors(
        {
            key: value + 0.3 * torch.randn(value.shape, generator=noise)
            for key, value in fresh.tensors().items()
        }
    )
    return {"lora": adapter.lora, "rank": adapter.rank, "alpha": adapter.alpha}
