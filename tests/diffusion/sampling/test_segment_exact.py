"""A split run equals the unsplit stock run bit for bit, for every pipeline, scheduler and step.

The tests cover every scheduler, and every family with guidance and without; the slow ones cover the rest.

The reference is the stock pipeline with the stock scheduler. If the prompt changes at K, it is the stock pipeline
whose embeddings `callback_on_step_end` swaps. The second part runs in one fresh process, from packets and saved
pipelines.
"""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fedaigc.diffusion.handoff.packing import pack
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from tests.diffusion.schedulers import MORE_DIFFUSION, Case, cases, covering, scheduler_of
from tests.diffusion.tiny_pipelines import FAMILIES, SIZE, Tiny

SHARED, OWN = "an apple on a table", "a lemon near a bed"
STEPS = 4
SEED = 11
CASES = cases()
FEW = covering(CASES)
GRID = [pytest.param(case, id=str(case), marks=[] if case in FEW else [pytest.mark.slow]) for case in CASES]
SWAPPING = [case for case in CASES if case.family != "flux"]


@dataclass
class Runs:
    """What the stock pipeline made, and what the segments made.

    stock: latents after each step on the shared prompt. other: on the own prompt. swapped: final latents with
    the prompt changed at step K. first: latents at each K, run as segments. second: final latents from each
    packet.
    """

    stock: list[torch.Tensor]
    other: list[torch.Tensor]
    image: np.ndarray
    swapped: dict[int, torch.Tensor] = field(default_factory=dict)
    first: dict[int, torch.Tensor] = field(default_factory=dict)
    second: dict[tuple[int, str], torch.Tensor] = field(default_factory=dict)
    second_image: np.ndarray | None = None


def stock_run(
    pipe: Any,
    case: Case,
    prompt: str,
    swap_at: int | None = None,
    swap_to: str | None = None,
    output_type: str = "latent",
) -> tuple[list[torch.Tensor], Any]:
    """Latents after each step of the unmodified pipeline, and its output."""
    latents = []

    def keep(_: Any, index: int, __: Any, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        latents.append(values["latents"].clone())
        return swapped_embeddings(pipe, case, swap_to) if index + 1 == swap_at else {}

    output = pipe(
        prompt,
        num_inference_steps=STEPS,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(SEED),
        callback_on_step_end=keep,
        output_type=output_type,
        **({"negative_prompt": case.negative_prompt} if case.negative_prompt else {}),
        **case.guidance,
    ).images
    return latents, output


def swapped_embeddings(pipe: Any, case: Case, prompt: str | None) -> dict[str, torch.Tensor]:
    """What the callback hands to a pipeline so that it goes on with another prompt."""
    more = {"prompt_2": None, "prompt_3": None} if case.family == "sd3" else {}
    parts = pipe.encode_prompt(
        prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=case.guided, **more
    )
    joined = [
        torch.cat([negative, positive]) if case.guided else positive
        for positive, negative in zip(parts[::2], parts[1::2], strict=True)
    ]
    names = {"sd3": ("prompt_embeds", "pooled_prompt_embeds"), "sdxl": ("prompt_embeds", "add_text_embeds")}
    return dict(zip(names.get(case.family, ("prompt_embeds",)), joined, strict=True))


def conditioning(case: Case, prompt: str) -> dict[str, Any]:
    """The call arguments that the plan does not fix."""
    extra = {key: value for key, value in case.guidance.items() if key != "guidance_scale"}
    return {"prompt": prompt} | extra


def plan_for(pipe: Any, case: Case, steps: int = STEPS) -> DenoisingPlan:
    return build_plan(
        pipe,
        num_inference_steps=steps,
        guidance_scale=case.guidance["guidance_scale"],
        negative_prompt=case.negative_prompt,
        height=SIZE,
        width=SIZE,
        base_hash="base",
    )


@pytest.fixture(scope="module")
def runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Runs]:
    """The cases of `FEW`, run once; a fixture of the module, so that one fresh process serves all tests."""
    return run_once(tiny, tmp_path_factory.mktemp("exact"), FEW)


@pytest.fixture(scope="module")
def further_runs(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> dict[Case, Runs]:
    """All other cases, likewise."""
    return run_once(tiny, tmp_path_factory.mktemp("further"), [case for case in CASES if case not in FEW])


@pytest.fixture
def result(request: pytest.FixtureRequest, case: Case) -> Runs:
    """What was made of a case."""
    found: dict[Case, Runs] = request.getfixturevalue("runs" if case in FEW else "further_runs")
    return found[case]


def run_once(tiny: Tiny, folder: Path, chosen: Sequence[Case]) -> dict[Case, Runs]:
    """Run cases as the stock pipeline and as segments, the second ones of these in one fresh process."""
    for family in FAMILIES:
        tiny(family).save_pretrained(folder / "pipelines" / family)
    jobs: list[dict[str, Any]] = []
    made: dict[Case, Runs] = {}
    for case in chosen:
        pipe = tiny(case.family)
        pipe.scheduler = scheduler_of(case.family, case.scheduler)
        stock, _ = stock_run(pipe, case, SHARED)
        other, _ = stock_run(pipe, case, OWN)
        made[case] = result = Runs(
            stock, other, np.array(stock_run(pipe, case, SHARED, output_type="pil")[1][0])
        )
        plan = plan_for(pipe, case)
        state = initial_state(pipe, plan, SEED)
        for k in range(plan.num_steps + 1):
            state = run_segment(pipe, state, conditioning(case, SHARED), plan, k)
            result.first[k] = state.latents
            packet = f"{len(jobs)}.packet"
            (folder / packet).write_bytes(pack(state, plan, "exact", noise_stream=True))
            for prompt in (SHARED, OWN):
                jobs.append(
                    {
                        "name": f"{case}/{k}/{prompt}",
                        "pipeline": case.family,
                        "plan": plan.to_json(),
                        "packet": packet,
                        "conditioning": conditioning(case, prompt),
                        "image": k == 2 and prompt == SHARED,
                    }
                )
            if case in SWAPPING and 0 < k < plan.num_steps:
                result.swapped[k] = stock_run(pipe, case, SHARED, swap_at=k, swap_to=OWN)[0][-1]
    (folder / "jobs.json").write_text(json.dumps(jobs))
    worker = Path(__file__).with_name("resume_worker.py")
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-W", "ignore", worker, folder], env=environment, check=True)
    results = load_file(folder / "results.safetensors")
    for case, result in made.items():
        for k in result.first:
            for prompt in (SHARED, OWN):
                result.second[k, prompt] = results[f"{case}/{k}/{prompt}"]
        result.second_image = results[f"{case}/2/{SHARED}/image"].numpy()
    return made


@pytest.mark.parametrize("case", GRID)
def test_the_comparison_has_power(result: Runs) -> None:
    """Latents change at every step by a thousand units in the last place, with the prompt by far more."""
    changes = [
        ((b - a).norm() / a.norm()).item() for a, b in zip(result.stock, result.stock[1:], strict=False)
    ]
    assert min(changes) > 1e-4, changes
    assert (result.stock[-1] - result.other[-1]).norm() > 1e-2 * result.stock[-1].norm()


@pytest.mark.parametrize("case", GRID)
def test_first_part_is_that_of_the_stock_pipeline(result: Runs) -> None:
    assert sorted(result.first) == list(range(len(result.stock) + 1))
    wrong = [k for k, stock in enumerate(result.stock, start=1) if not torch.equal(result.first[k], stock)]
    assert not wrong


@pytest.mark.parametrize("case", GRID)
def test_second_part_in_a_fresh_process_ends_as_the_stock_pipeline(result: Runs) -> None:
    wrong = [k for k in result.first if not torch.equal(result.second[k, SHARED], result.stock[-1])]
    assert not wrong


@pytest.mark.parametrize("case", [each for each in GRID if each.values[0] in SWAPPING])
def test_prompt_changed_at_k_ends_as_the_stock_pipeline_with_swapped_embeddings(result: Runs) -> None:
    assert torch.equal(result.second[0, OWN], result.other[-1])
    wrong = [k for k, stock in result.swapped.items() if not torch.equal(result.second[k, OWN], stock)]
    assert not wrong
    # the last swap still shows, so that no run was compared with itself
    assert not torch.equal(result.swapped[len(result.stock) - 1], result.stock[-1])


@pytest.mark.parametrize("case", GRID)
def test_images_are_those_of_the_stock_pipeline(result: Runs) -> None:
    assert result.second_image is not None
    assert np.array_equal(result.second_image, result.image)
    assert result.image.std() > 1


@pytest.mark.parametrize("name", MORE_DIFFUSION)
def test_other_schedulers_are_exact_too(tiny: Tiny, name: str) -> None:
    case = Case("sd1", name, guided=True)
    pipe = tiny("sd1")
    pipe.scheduler = scheduler_of("sd1", name)
    stock, _ = stock_run(pipe, case, SHARED)
    plan = plan_for(pipe, case)
    state = initial_state(pipe, plan, SEED)
    for k in range(plan.num_steps + 1):
        state = run_segment(pipe, state, {"prompt": SHARED}, plan, k)
        end = run_segment(pipe, state, {"prompt": SHARED}, plan, plan.num_steps)
        assert torch.equal(end.latents, stock[-1]), f"split at {k}"
