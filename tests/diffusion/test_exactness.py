"""What `check` measures: exact pipelines, those that keep values from step to step, and kept results."""

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers.hooks.first_block_cache import FirstBlockCacheConfig
from torch._subclasses.fake_tensor import FakeTensor

from fedaigc.diffusion.adapters.stages import SharedState, install, new_adapter
from fedaigc.diffusion.exactness import check, prove_divisible, prove_plan
from fedaigc.diffusion.sampling.pipeline_call import batch_size
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import UserError
from tests.diffusion.families.further_families import hunyuan_image
from tests.diffusion.families.registered import small_family
from tests.diffusion.schedulers import scheduler_of
from tests.diffusion.tiny_pipelines import SIZE, tiny_pipeline

SIZES = [(SIZE, SIZE), (SIZE, 2 * SIZE)]


def test_an_exact_pipeline_at_two_sizes(tiny: Any) -> None:
    pipe = tiny("sd1")
    pipe.scheduler = scheduler_of("sd1", "EulerAncestral")
    found = check(pipe, sizes=SIZES)
    assert found.exact
    assert [(each.height, each.width, each.step) for each in found.splits] == [
        (*size, step) for size in SIZES for step in (1, 2, 3)
    ]
    assert (
        str(found) == "StableDiffusionPipeline, EulerAncestralDiscreteScheduler, float32: exact at 6 splits"
    )


def test_a_network_with_a_memory_is_not_exact() -> None:
    """It adds a part of its output of the step before, which another machine does not have."""
    pipe = with_memory(tiny_pipeline("sd1"))
    found = check(pipe, sizes=SIZES[:1])
    assert not found.exact
    assert all(each.difference > 1e-6 for each in found.splits)
    assert "not exact: off by" in str(found)


def with_memory(pipe: Any) -> Any:
    memory: list[tuple[float, torch.Tensor]] = []

    def remember(_: Any, arguments: Any, output: Any) -> Any:
        timestep = float(arguments[1])
        earlier = memory.pop() if memory else None
        memory.append((timestep, output[0]))
        if earlier is None or earlier[0] <= timestep:
            return output
        return (output[0] + 0.1 * earlier[1], *output[1:])

    pipe.unet.register_forward_hook(remember)
    return pipe


class PipelineOfTheirs(diffusers.StableDiffusionPipeline):
    """A pipeline that no test of ours has divided."""


def test_pipelines_that_are_not_known_are_measured_before_a_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    settings: dict[str, Any] = {"guidance_scale": 4.0, "height": SIZE, "width": SIZE}
    stock = tiny_pipeline("sd1")
    prove_divisible(with_memory(stock), **settings)  # known, so it is not measured
    assert not list(tmp_path.rglob("*.json"))
    parts = tiny_pipeline("sd1").components
    prove_divisible(PipelineOfTheirs(**parts, requires_safety_checker=False), **settings)
    (kept,) = tmp_path.rglob("*.json")
    kept.unlink()
    theirs = with_memory(PipelineOfTheirs(**parts, requires_safety_checker=False))
    with pytest.raises(UserError, match="PipelineOfTheirs, DDIMScheduler, float32: not exact: off by"):
        prove_divisible(theirs, **settings)


def test_a_device_measures_its_pipeline_once_and_without_adapters(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    parts = tiny_pipeline("sd1").components
    theirs: Any = PipelineOfTheirs(**parts, requires_safety_checker=False)
    plan = plan_of(theirs)
    adapter = new_adapter(theirs, generator=torch.Generator(), rank=2)
    install(theirs, SharedState("base", adapter.lora, 2, 2.0))
    prove_plan(theirs, plan)
    (kept,) = tmp_path.rglob("*.json")
    kept.unlink()
    install(theirs, SharedState("base", adapter.lora, 2, 2.0))
    prove_plan(theirs, plan)
    assert not list(tmp_path.rglob("*.json"))
    broken: Any = with_memory(
        PipelineOfTheirs(**tiny_pipeline("sd1").components, requires_safety_checker=False)
    )
    install(broken, SharedState("base", adapter.lora, 2, 2.0))
    for _ in range(2):
        with pytest.raises(UserError, match="PipelineOfTheirs, DDIMScheduler, float32: not exact: off by"):
            prove_plan(broken, plan)


def test_a_guidance_with_a_momentum_is_refused_before_any_step(monkeypatch: pytest.MonkeyPatch) -> None:
    guider = diffusers.AdaptiveProjectedMixGuidance()
    family = hunyuan_image(guider=guider, ocr_guider=None)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a step was computed")

    monkeypatch.setattr(type(family.pipe.transformer), "forward", never)
    found = check(family.pipe, sizes=[(64, 64)], conditioning=family.prompt)
    assert "its guider (AdaptiveProjectedMixGuidance) has a momentum" in str(found.reason)


def test_a_network_in_training_mode_is_refused() -> None:
    """A network in training mode draws from torch's global generator."""
    pipe = tiny_pipeline("sd1")
    pipe.unet.mid_block.attentions[0].transformer_blocks[0].attn1.to_out[1].p = 0.5
    pipe.unet.train()
    found = check(pipe, sizes=SIZES[:1])
    assert not found.exact
    assert "draws from torch's global generator" in str(found.reason) or "another result" in str(found.reason)


def plan_of(pipe: Any, **options: Any) -> DenoisingPlan:
    settings: dict[str, Any] = {
        "num_inference_steps": 4,
        "guidance_scale": 4.0,
        "height": SIZE,
        "width": SIZE,
    }
    return build_plan(pipe, **(settings | {"base_hash": "base"} | options))


def test_a_cache_across_steps_is_refused_by_name_and_before_any_step() -> None:
    pipe = tiny_pipeline("flux")
    plan = plan_of(pipe)
    start = initial_state(pipe, plan, 1)
    pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.2))
    with pytest.raises(UserError, match=r"FluxTransformer2DModel reuses values of earlier steps \(fbc_"):
        run_segment(pipe, start, {"prompt": "a cat"}, plan, 2)
    run_segment(pipe, start, {"prompt": "a cat"}, plan, plan.num_steps)  # undivided
    pipe.transformer.disable_cache()
    run_segment(pipe, start, {"prompt": "a cat"}, plan, 2)


def test_a_stock_call_that_fails_is_told_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipe = tiny_pipeline("sd1")
    stock = pipe.unet.conv_in.forward

    def fails(sample: Any) -> Any:
        if isinstance(sample, FakeTensor):  # where shapes alone are computed
            return stock(sample)
        raise RuntimeError("mat1 and mat2 must have the same dtype")

    with monkeypatch.context() as patch:
        patch.setattr(pipe.unet.conv_in, "forward", fails)
        found = check(pipe, sizes=SIZES[:1], cache=tmp_path)
    assert "the stock call of StableDiffusionPipeline fails: RuntimeError: mat1" in str(found)
    assert not list(tmp_path.iterdir())
    assert check(pipe, sizes=SIZES[:1], cache=tmp_path).exact


def test_results_are_kept_for_the_same_weights_and_settings(tmp_path: Path) -> None:
    pipe = tiny_pipeline("sd1")
    first = check(pipe, sizes=SIZES[:1], cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_text(file.read_text().replace("StableDiffusionPipeline", "Kept"))
    assert check(pipe, sizes=SIZES[:1], cache=tmp_path).pipeline == "Kept"
    assert check(pipe, sizes=SIZES[1:], cache=tmp_path) != first
    with torch.no_grad():
        pipe.unet.conv_out.bias += 1
    assert check(pipe, sizes=SIZES[:1], cache=tmp_path).pipeline == "StableDiffusionPipeline"


class TestFurtherArguments:
    def test_they_belong_to_the_plan_and_to_its_fingerprint(self, tiny: Any) -> None:
        pipe = tiny("flux")
        plain = plan_of(pipe)
        guided = plan_of(pipe, arguments={"true_cfg_scale": 2.0}, negative_prompt="blurry")
        assert "arguments" not in plain.to_json()
        assert DenoisingPlan.from_json(guided.to_json()) == guided
        assert guided.call["true_cfg_scale"] == 2.0
        other = plan_of(pipe, arguments={"true_cfg_scale": 3.0}, negative_prompt="blurry")
        assert guided.fingerprint() != other.fingerprint()

    def test_custom_timesteps_and_sigmas(self, tiny: Any) -> None:
        sd1, flux = tiny_pipeline("sd1"), tiny("flux")
        sd1.scheduler = diffusers.LCMScheduler.from_config(sd1.scheduler.config)
        timesteps = [999, 759, 499, 259]
        assert plan_of(sd1, arguments={"timesteps": timesteps}).timesteps == tuple(timesteps)
        flux.scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0)
        plan = plan_of(flux, arguments={"sigmas": [1.0, 0.6, 0.2]}, num_inference_steps=3)
        assert plan.num_steps == 3
        assert plan.sigmas == pytest.approx((1.0, 0.6, 0.2, 0.0))
        for pipe, arguments, steps in (
            (sd1, {"timesteps": timesteps}, 4),
            (flux, {"sigmas": [1.0, 0.6, 0.2]}, 3),
        ):
            found = check(pipe, num_inference_steps=steps, arguments=arguments, sizes=SIZES[:1])
            assert found.exact, str(found)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"height": 16}, "height, which the plan has of its own"),
            ({"colour": "red"}, "does not take colour"),
            ({"eta": float("nan")}, "must be finite"),
            ({"image": torch.zeros(1)}, "image is a Tensor"),
            ({"callback_on_step_end": "x"}, "counts steps"),
        ],
    )
    def test_refused(self, tiny: Any, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            plan_of(tiny("sd1"), arguments=arguments)

    def test_what_a_call_would_ignore_is_refused(self, tiny: Any) -> None:
        guided = {"true_cfg_scale": 2.0}
        plan = plan_of(tiny("flux"), arguments=guided, negative_prompt="blurry")
        assert (plan.call["true_cfg_scale"], plan.call["negative_prompt"]) == (2.0, "blurry")
        for family, message, values in (
            ("flux", "ignores true_cfg_scale without a negative prompt", {"arguments": guided}),
            ("sd1", "does not take true_cfg_scale", {"arguments": guided}),
            (
                "sd1",
                "ignores a negative prompt at guidance_scale 1: give",
                {"negative_prompt": "blurry", "guidance_scale": 1.0},
            ),
        ):
            with pytest.raises(UserError, match=message):
                plan_of(tiny(family), **values)
        # its scale may come with the conditioning of a run
        pipe = tiny("flux")
        late = plan_of(pipe, negative_prompt="blurry")
        state = initial_state(pipe, late, 0)
        with pytest.raises(UserError, match="ignores a negative prompt at true_cfg_scale 1: give"):
            run_segment(pipe, state, {"prompt": "a cat"}, late, 1)
        assert run_segment(pipe, state, {"prompt": "a cat", **guided}, late, 1).step == 1
        with pytest.raises(UserError, match="LatentConsistencyModelPipeline takes no negative prompt"):
            plan_of(small_family("lcm").pipe, negative_prompt="blurry")

    def test_a_conditioning_cannot_change_them(self, tiny: Any) -> None:
        pipe = tiny("sd1")
        plan = plan_of(pipe, arguments={"guidance_rescale": 0.5})
        with pytest.raises(UserError, match="guidance_rescale, which the plan fixes"):
            run_segment(pipe, initial_state(pipe, plan, 1), {"prompt": "a", "guidance_rescale": 0.1}, plan, 1)


def test_embeddings_by_layer_do_not_count_as_images() -> None:
    by_layer, plain = torch.zeros(4, 1, 6, 16), torch.zeros(1, 6, 32)
    assert batch_size({"prompt_embeds_llama3": by_layer, "prompt_embeds_t5": plain}) == 1
    assert batch_size({"prompt_embeds": [plain[0]] * 3, "num_images_per_prompt": 2}) == 6


@pytest.mark.parametrize("name", ["lcm", "inpainting", "lumina2", "flux2_klein"])
def test_families_that_a_segment_alone_would_get_wrong(name: str) -> None:
    """Their running latents, masks, counted steps or packed shapes come from the stock call itself."""
    family = small_family(name)
    found = check(
        family.pipe,
        guidance_scale=family.guidance_scale,
        sizes=[(family.side, family.side)],
        arguments=family.arguments,
        conditioning=family.prompt,
    )
    assert found.exact, str(found)


def test_skipped_layers_of_sd3_are_exact(tiny: Any) -> None:
    """The pipeline skips them in a range of its steps."""
    pipe = tiny("sd3")
    pipe.scheduler = scheduler_of("sd3", "FlowMatchEuler")
    found = check(
        pipe, sizes=SIZES[:1], arguments={"skip_guidance_layers": [0], "skip_layer_guidance_stop": 0.6}
    )
    assert found.exact, str(found)


def test_a_brownian_tree_without_a_seed_is_refused_before_any_step() -> None:
    pytest.importorskip("torchsde")
    pipe = tiny_pipeline("sd1")
    pipe.scheduler = diffusers.DPMSolverSDEScheduler.from_config(pipe.scheduler.config)
    with pytest.raises(UserError, match=r"BrownianTreeNoiseSampler.*set noise_sampler_seed"):
        plan_of(pipe)
    pipe.scheduler = diffusers.DPMSolverSDEScheduler.from_config(pipe.scheduler.config, noise_sampler_seed=3)
    found = check(pipe, sizes=SIZES[:1])
    assert found.exact, str(found)
