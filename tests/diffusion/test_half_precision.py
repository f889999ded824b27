"""Training in half precision: float32 factors that follow those of float32, small gradients, and the autoencoder."""

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from fedaigc.diffusion.adapters.stages import (
    Adapter,
    SharedState,
    Stage,
    install,
    install_personal,
    new_adapter,
    read_adapter,
    read_shared,
    stage_parameters,
    zero_residual,
)
from fedaigc.diffusion.encoding import EncodedImages, encode_images
from fedaigc.diffusion.half_precision import LossScale
from fedaigc.diffusion.sampling.pipeline_call import denoiser
from fedaigc.diffusion.training import TrainingSettings, stage_gradients, train_stage
from fedaigc.errors import NotFinite, UserError
from fedaigc.rng import rng
from tests.diffusion.tiny_pipelines import SIZE, tiny_pipeline

SETTINGS = TrainingSettings(batch_size=2, learning_rate=2e-3)
PICTURES = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]


def encoded(pipe: Any) -> EncodedImages:
    return encode_images(pipe, PICTURES, ["a cat", "a dog"], height=SIZE, width=SIZE)


def trained(family: str, dtype: torch.dtype, stage: Stage = Stage.SHARED, steps: int = 6) -> Adapter:
    pipe = tiny_pipeline(family).to(dtype)
    adapter = new_adapter(pipe, generator=rng(0, "a"))
    install(pipe, SharedState("base", adapter.lora, adapter.rank, adapter.alpha))
    install_personal(pipe, adapter)
    losses = train_stage(
        pipe,
        stage,
        encoded(pipe),
        steps=steps,
        settings=SETTINGS,
        boundary_log_snr=0.0,
        generator=rng(0, "train"),
    )
    assert np.isfinite(losses).all()
    assert next(denoiser(pipe).parameters()).dtype == dtype
    assert {parameter.dtype for parameter in stage_parameters(pipe, stage).values()} == {torch.float32}
    return read_adapter(pipe, stage)


def flat(adapter: Adapter) -> Tensor:
    return torch.cat([value.flatten() for value in adapter.tensors().values()])


@pytest.mark.parametrize(
    ("family", "dtype"),
    [
        ("sd1", torch.float16),
        ("sdxl", torch.bfloat16),
        ("sd3", torch.float16),
        ("flux", torch.bfloat16),
        *(
            pytest.param(family, dtype, marks=pytest.mark.slow)
            for family, dtype in [("sd1", torch.bfloat16), ("sdxl", torch.float16)]
        ),
    ],
)
def test_factors_in_half_precision_follow_those_in_float32(family: str, dtype: torch.dtype) -> None:
    start = flat(new_adapter(tiny_pipeline(family), generator=rng(0, "a")))
    exact, half = flat(trained(family, torch.float32)) - start, flat(trained(family, dtype)) - start
    assert float(torch.nn.functional.cosine_similarity(exact, half, dim=0)) > 0.95


def test_the_personal_stage_trains_in_float16() -> None:
    assert bool(flat(trained("sd1", torch.float16, Stage.PERSONAL)).isfinite().all())


def test_full_weights_train_in_float32_beside_a_base_in_float16() -> None:
    """Steps of 1e-5 are lost if they are added to weights of float16 one by one."""
    moved = []
    for dtype in (torch.float32, torch.float16):
        pipe = tiny_pipeline("sd1").to(dtype)
        state = SharedState("base", {}, 1, 1.0, zero_residual(pipe))
        install(pipe, state)
        before = {name: value.clone() for name, value in pipe.unet.state_dict().items()}
        train_stage(
            pipe,
            Stage.SHARED,
            encoded(pipe),
            steps=4,
            settings=TrainingSettings(batch_size=2, learning_rate=1e-5),
            boundary_log_snr=0.0,
            generator=rng(0, "train"),
            trained=lambda name: True,
        )
        after = pipe.unet.state_dict()
        assert all(
            torch.equal(after[name], value) for name, value in before.items() if "residual" not in name
        )
        residual = read_shared(pipe, state).residual
        moved.append(torch.cat([value.flatten() for value in residual.values() if isinstance(value, Tensor)]))
    exact, half = moved
    assert float(exact.abs().max()) > 3e-5
    assert float(torch.nn.functional.cosine_similarity(exact, half, dim=0)) > 0.9


def test_gradients_below_the_smallest_float16_are_kept() -> None:
    """With an output a million times smaller than float16 resolves, gradients still have the direction of float32."""
    found = []
    for dtype in (torch.float32, torch.float16):
        pipe = tiny_pipeline("sd1")
        with torch.no_grad():
            pipe.unet.conv_out.weight.mul_(1e-4)
        pipe.to(dtype)
        adapter = new_adapter(pipe, generator=rng(0, "a"))
        install(pipe, SharedState("base", adapter.lora, adapter.rank, adapter.alpha))
        gradients = next(
            iter(
                stage_gradients(
                    pipe,
                    Stage.SHARED,
                    encoded(pipe),
                    batches=1,
                    settings=SETTINGS,
                    boundary_log_snr=None,
                    generator=rng(0, "g"),
                )
            )
        )
        found.append(torch.cat([value.flatten() for value in gradients.values()]))
    exact, half = found
    assert float(exact.abs().max()) < 1e-4
    assert float(torch.nn.functional.cosine_similarity(exact, half, dim=0)) > 0.99


def test_a_scale_that_overflows_repeats_the_same_batch_with_a_smaller_one() -> None:
    generator, weight = torch.Generator().manual_seed(0), nn.Parameter(torch.ones(()))
    drawn: list[tuple[float, float]] = []

    def compute(scale: float) -> tuple[Tensor, list[Tensor | None]]:
        number = float(torch.rand((), generator=generator))
        drawn.append((scale, number))
        gradient = torch.tensor(number * scale)
        return weight * number, [gradient if scale < 300 else gradient * torch.inf, None]

    scale = LossScale(torch.float16)
    _, gradients = scale.apply(compute, generator)
    assert [s for s, _ in drawn] == [2.0**16, 2.0**12, 2.0**8]
    assert len({number for _, number in drawn}) == 1
    assert gradients[0] is not None
    assert float(gradients[0]) == pytest.approx(drawn[0][1])
    scale.apply(compute, generator)
    assert drawn[-1][0] == 2.0**8
    assert drawn[-1][1] != drawn[0][1]
    assert LossScale(torch.float32).value == LossScale(torch.bfloat16).value == 1.0


@pytest.mark.parametrize("upcast", [True, False])
def test_an_autoencoder_that_overflows_in_float16_encodes_in_float32(upcast: bool) -> None:
    """As the one of SDXL, with `force_upcast` in its config or without."""
    pipe = tiny_pipeline("sdxl")
    with torch.no_grad():
        # the first convolution overflows float16, and its norm brings that back
        first = pipe.vae.encoder.conv_in
        first.weight.mul_(1e5)
        first.bias.mul_(1e5)
    pipe.vae.register_to_config(force_upcast=upcast)
    exact = encoded(pipe).latents
    pipe.to(torch.float16)
    found = encoded(pipe).latents
    assert bool(found.isfinite().all())
    torch.testing.assert_close(found.float(), exact, rtol=2e-2, atol=2e-2)
    assert pipe.vae.dtype == torch.float16


@pytest.mark.parametrize("kind", ["quantized", "hooks"])
def test_a_denoiser_whose_weights_are_not_its_own_is_refused_for_training(kind: str) -> None:
    pipe = tiny_pipeline("sd1")
    adapter = new_adapter(pipe, generator=rng(0, "a"))
    install(pipe, SharedState("base", adapter.lora, adapter.rank, adapter.alpha))
    data = encoded(pipe)
    if kind == "quantized":
        pipe.unet.register_to_config(quantization_config={"quant_method": "torchao"})
    else:
        pipe.unet.enable_layerwise_casting(torch.float8_e4m3fn, torch.float32)
    with pytest.raises(UserError, match=kind):
        train_stage(
            pipe,
            Stage.SHARED,
            data,
            steps=1,
            settings=SETTINGS,
            boundary_log_snr=None,
            generator=rng(0, "train"),
        )


def test_an_encoding_that_is_not_finite_is_refused() -> None:
    pipe = tiny_pipeline("sd1")
    with torch.no_grad():
        pipe.vae.quant_conv.bias.fill_(torch.nan)
    with pytest.raises(NotFinite, match="latents of the pictures' encoding holds values that are not finite"):
        encoded(pipe)
