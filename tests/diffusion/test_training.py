"""Training: the correct side of t*, the correct target, reproducible weights, and no other changes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fedaigc.diffusion.adapters.lora_folder import export_lora, import_lora
from fedaigc.diffusion.adapters.stages import (
    Adapter,
    SharedState,
    Stage,
    install,
    install_personal,
    new_adapter,
    read_adapter,
    remove,
)
from fedaigc.diffusion.encoding import EncodedImages, encode_images, encode_text, predict
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.pipeline_call import denoiser
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.diffusion.training import TimestepSampler, TrainingSettings, denoising_loss, train_stage
from fedaigc.errors import UserError
from fedaigc.rng import rng
from tests.diffusion.tiny_pipelines import FAMILIES, SIZE, tiny_pipeline

SETTINGS = TrainingSettings(batch_size=2, learning_rate=2e-3)


@pytest.fixture(scope="module")
def pipe() -> Any:
    return load_pipeline()


@pytest.fixture(scope="module")
def data(pipe: Any) -> EncodedImages:
    random = np.random.default_rng(0)
    colours = random.integers(0, 255, (4, 1, 1, 3), dtype=np.uint8)
    images = [Image.fromarray(np.broadcast_to(colour, (80, 72, 3)).copy()) for colour in colours]
    return encode_images(pipe, images, ["a cat", "a dog", "a bus", "a cup"], height=64, width=64)


def fresh(pipe: Any) -> Adapter:
    for stage in (Stage.SHARED, Stage.PERSONAL):
        remove(pipe, stage)
    adapter = new_adapter(pipe, generator=rng(0, "a"))
    install(pipe, SharedState("base", adapter.lora, adapter.rank, adapter.alpha))
    install_personal(pipe, adapter)
    return adapter


def run(
    pipe: Any, data: EncodedImages, stage: Stage = Stage.SHARED, steps: int = 2, **hooks: Any
) -> list[float]:
    return train_stage(
        pipe,
        stage,
        data,
        steps=steps,
        settings=SETTINGS,
        boundary_log_snr=0.0,
        generator=rng(0, "train"),
        **hooks,
    )


def same(first: Adapter, second: Adapter) -> bool:
    return all(torch.equal(second.tensors()[name], value) for name, value in first.tensors().items())


def test_encoding_is_what_the_pipeline_decodes(pipe: Any, data: EncodedImages) -> None:
    assert data.latents.shape == (4, 8, 16, 16)
    assert data.text["prompt_embeds"].shape == (4, 16, 96)
    assert data.empty_text["prompt_embeds"].shape == (1, 16, 96)
    expected, _ = pipe.encode_prompt("a bus", "cpu", 1, False)
    torch.testing.assert_close(data.text["prompt_embeds"][2:3], expected)
    back = EncodedImages.from_tensors(data.tensors())
    assert torch.equal(back.latents, data.latents)
    assert back.text.keys() == data.text.keys()
    with pytest.raises(UserError, match="one caption per image"):
        encode_images(pipe, [Image.new("RGB", (8, 8))], [], height=64, width=64)


def test_timesteps_are_drawn_on_the_stage_s_own_side(pipe: Any) -> None:
    boundary = boundary_log_snr(pipe, 500)
    shared = TimestepSampler(pipe, Stage.SHARED, boundary).timesteps
    personal = TimestepSampler(pipe, Stage.PERSONAL, boundary).timesteps
    assert personal.max() < shared.min()
    assert len(personal) + len(shared) == 1000
    assert abs(len(personal) - 500) <= 1
    assert len(TimestepSampler(pipe, Stage.SHARED, None).timesteps) == 1000
    with pytest.raises(ValueError, match="no timestep belongs to the personal stage"):
        TimestepSampler(pipe, Stage.PERSONAL, None)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_targets_and_weights_are_one_objective(pipe: Any, kind: str) -> None:
    """Whatever the network predicts, the weighted loss is min(SNR, gamma) |x0 - x0'|^2 for the same x0'."""
    before = pipe.scheduler
    pipe.scheduler = type(before).from_config(before.config, prediction_type=kind)
    sampler = TimestepSampler(pipe, Stage.SHARED, None)
    pipe.scheduler = before
    clean, noise = torch.randn((2, 3, 8, 4, 4), generator=rng(0, "x"))
    drawn = torch.tensor([200, 500, 800])
    noisy = sampler.noisy(clean, noise, drawn)
    guess = clean + 0.1 * torch.randn(clean.shape, generator=rng(1, "x"))
    signal = sampler.signal[drawn].view(-1, 1, 1, 1)
    sigma = sampler.noise[drawn].view(-1, 1, 1, 1)
    guessed_noise = (noisy - signal * guess) / sigma
    answer = {
        "epsilon": guessed_noise,
        "sample": guess,
        "v_prediction": signal * guessed_noise - sigma * guess,
    }
    error = ((answer[kind] - sampler.target(clean, noise, drawn)) ** 2).flatten(1).mean(1)
    expected = ((signal / sigma) ** 2).flatten().clamp(max=5.0) * ((guess - clean) ** 2).flatten(1).mean(1)
    torch.testing.assert_close(sampler.weight(drawn, 5.0) * error, expected, rtol=1e-3, atol=1e-6)
    assert torch.equal(sampler.weight(drawn, None), torch.ones(3))


def test_an_unknown_prediction_type_is_refused(pipe: Any, data: EncodedImages) -> None:
    sampler = TimestepSampler(pipe, Stage.SHARED, None)
    sampler.prediction_type = "dreams"
    with pytest.raises(ValueError, match="'dreams'"):
        sampler.target(data.latents, data.latents, torch.tensor([1, 2, 3, 4]))


@pytest.mark.parametrize("stage", [Stage.SHARED, Stage.PERSONAL])
def test_training_moves_its_own_factors_and_nothing_else(
    pipe: Any, data: EncodedImages, stage: Stage
) -> None:
    other = Stage.PERSONAL if stage is Stage.SHARED else Stage.SHARED
    remove(pipe, Stage.SHARED)
    remove(pipe, Stage.PERSONAL)
    start = fresh(pipe)
    weights = {name: value.clone() for name, value in pipe.unet.state_dict().items() if "lora" not in name}
    losses = run(pipe, data, stage)
    assert len(losses) == 2
    assert np.isfinite(losses).all()
    assert not same(start, read_adapter(pipe, stage))
    assert same(start, read_adapter(pipe, other))
    assert all(torch.equal(pipe.unet.state_dict()[name], value) for name, value in weights.items())
    assert not any(parameter.requires_grad for parameter in pipe.unet.parameters())


def test_the_same_generator_trains_the_same_factors(pipe: Any, data: EncodedImages) -> None:
    fresh(pipe)
    first_losses, first = run(pipe, data), read_adapter(pipe, Stage.SHARED)
    fresh(pipe)
    assert run(pipe, data) == first_losses
    assert same(first, read_adapter(pipe, Stage.SHARED))


def test_training_lowers_the_loss_on_fixed_noise(pipe: Any, data: EncodedImages) -> None:
    """On fixed (image, t, noise) triples, before and after 25 steps."""
    fresh(pipe)
    sampler = TimestepSampler(pipe, Stage.SHARED, 0.0)

    def loss() -> float:
        with torch.no_grad():
            rows = torch.arange(4)
            return float(denoising_loss(pipe, sampler, data, rows, rng(9, "fixed"), SETTINGS))

    before = loss()
    run(pipe, data, steps=25)
    assert loss() < 0.95 * before


def test_a_rule_can_add_to_the_loss_and_choose_what_is_trained(pipe: Any, data: EncodedImages) -> None:
    """A strong proximal term keeps the factors near their start, and A is unchanged if only B is trained."""
    start = fresh(pipe)
    run(pipe, data, steps=3)
    free = distance(start, read_adapter(pipe, Stage.SHARED))

    def proximal(parameters: Mapping[str, nn.Parameter]) -> Tensor:
        terms = [((value - start.tensors()[name]) ** 2).sum() for name, value in parameters.items()]
        return 1e3 * torch.stack(terms).sum()

    fresh(pipe)
    run(pipe, data, steps=3, loss_term=proximal)
    assert distance(start, read_adapter(pipe, Stage.SHARED)) < 0.8 * free

    fresh(pipe)
    run(pipe, data, steps=3, trained=lambda name: name.endswith("lora_B"))
    trained = read_adapter(pipe, Stage.SHARED).tensors()
    for name, value in start.tensors().items():
        assert torch.equal(trained[name], value) == name.endswith("lora_A")


def distance(first: Adapter, second: Adapter) -> float:
    return float(
        sum(((second.tensors()[name] - value) ** 2).sum() for name, value in first.tensors().items())
    )


def test_the_base_fingerprint_is_the_same_after_training(data: EncodedImages) -> None:
    pipe: Any = load_pipeline()
    before = base_fingerprint(pipe)
    fresh(pipe)
    run(pipe, data, steps=1)
    for stage in (Stage.SHARED, Stage.PERSONAL):
        remove(pipe, stage)
    clean: Any = load_pipeline()
    for name, value in clean.unet.state_dict().items():
        found = pipe.unet.state_dict()
        assert torch.equal(found.get(name, found.get(_wrapped(name))), value)
    assert base_fingerprint(clean) == before


def _wrapped(name: str) -> str:
    """Return the name of a weight inside peft's wrapper."""
    layer, _, kind = name.rpartition(".")
    return f"{layer}.base_layer.{kind}"


@pytest.mark.parametrize("family", FAMILIES)
def test_the_denoiser_is_called_as_its_pipeline_calls_it(family: str) -> None:
    """The output for the same latents, timestep and prompt, compared with the pipeline's own first step."""
    pipe = tiny_pipeline(family)
    answers: list[Tensor] = []
    timesteps: list[Tensor] = []

    def record(module: nn.Module, inputs: Any, options: Any, output: Any) -> None:
        answers.append(output[0])
        timesteps.append(options["timestep"] if "timestep" in options else inputs[1])

    hook = denoiser(pipe).register_forward_hook(record, with_kwargs=True)
    start = pipe(
        "a cat",
        num_inference_steps=1,
        guidance_scale=1.0,
        height=SIZE,
        width=SIZE,
        generator=torch.Generator().manual_seed(0),
        output_type="latent",
    )
    hook.remove()
    assert len(answers) == 1
    assert start.images is not None
    channels = pipe.vae.config.latent_channels
    side = SIZE // pipe.vae_scale_factor
    latents = torch.randn((1, channels, side, side), generator=torch.Generator().manual_seed(0))
    scale = 1000 if family == "flux" else 1
    timestep = timesteps[0].reshape(1).float() * scale
    with torch.no_grad():
        found = predict(pipe, latents, timestep, encode_text(pipe, ["a cat"]))
    expected = answers[0]
    if family == "flux":
        expected = pipe._unpack_latents(expected, SIZE, SIZE, pipe.vae_scale_factor)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_on_both_sides_of_the_boundary(family: str) -> None:
    pipe = tiny_pipeline(family)
    fresh(pipe)
    images = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    data = encode_images(pipe, images, ["a cat", "a dog"], height=SIZE, width=SIZE)
    boundary = boundary_log_snr(pipe, 500)
    for stage in (Stage.SHARED, Stage.PERSONAL):
        before = read_adapter(pipe, stage)
        losses = train_stage(
            pipe,
            stage,
            data,
            steps=2,
            settings=SETTINGS,
            boundary_log_snr=boundary,
            generator=rng(0, "train"),
        )
        assert np.isfinite(losses).all()
        assert not same(before, read_adapter(pipe, stage))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_on_aspect_buckets(family: str) -> None:
    pipe = tiny_pipeline(family)
    fresh(pipe)
    images = [Image.new("RGB", size, "red") for size in ((80, 80), (120, 70), (70, 120))]
    data = encode_images(pipe, images, ["a cat"] * 3, height=SIZE, width=SIZE, aspect_buckets=True)
    assert data.sizes is not None
    assert len(data.sizes.unique(dim=0)) == 3
    assert int(data.sizes.prod(1).max()) == (SIZE // pipe.vae_scale_factor) ** 2
    shapes = set()
    network = denoiser(pipe)
    hook = network.register_forward_pre_hook(
        lambda _, inputs, options: shapes.add(
            tuple((inputs[0] if inputs else options["hidden_states"]).shape[1:])
        ),
        with_kwargs=True,
    )
    losses = train_stage(
        pipe,
        Stage.SHARED,
        data,
        steps=16,
        settings=SETTINGS,
        boundary_log_snr=boundary_log_snr(pipe, 500),
        generator=rng(0, "train"),
    )
    hook.remove()
    assert np.isfinite(losses).all()
    # FLUX packs both oblong shapes into as many tokens
    assert len(shapes) >= 2


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_exports_lora_folders_that_it_loads(family: str, tmp_path: Any) -> None:
    pipe = tiny_pipeline(family)
    start = fresh(pipe)
    noise = rng(0, "b")
    moved = start.with_tensors(
        {name: value + torch.randn(value.shape, generator=noise) for name, value in start.tensors().items()}
    )
    export_lora(pipe, moved, tmp_path)
    assert same(import_lora(pipe, tmp_path), moved)
    stranger = tiny_pipeline(family)
    stranger.load_lora_weights(str(tmp_path))
    loaded = {name: value for name, value in denoiser(stranger).state_dict().items() if "lora_" in name}
    assert len(loaded) == len(moved.tensors())
    for name, value in moved.tensors().items():
        layer, _, kind = name.rpartition(".")
        assert torch.equal(loaded[f"{layer}.{kind}.default_0.weight"], value)
