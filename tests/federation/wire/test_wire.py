"""Number formats on the wire: what is preserved, the size of errors, and what is refused."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.federation.wire.codec import BYTES_PER_VALUE, WireFormat, decode, differences, encode, sums
from fedaigc.federation.wire.flat_arrays import manifest_of
from fedaigc.rng import numpy_rng, rng

FORMATS = tuple(BYTES_PER_VALUE)


def tensors(seed: int, scale: float = 1.0) -> dict[str, torch.Tensor]:
    noise = rng(seed, "wire test")
    return {
        "a.lora_A": scale * torch.randn((2, 3), generator=noise),
        "a.lora_B": torch.zeros(4, 2),
        "b.residual": 100 * scale * torch.randn((3, 2, 2), generator=noise),
    }


def through(values: Mapping[str, torch.Tensor], format: WireFormat, seed: int = 0) -> dict[str, torch.Tensor]:
    array, scales = encode(values, format, numpy_rng(seed, "int8"))
    return decode(array, manifest_of(values), format, scales)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from(FORMATS), st.floats(1e-6, 100))
def test_a_format_is_off_by_no_more_than_its_resolution(seed: int, format: WireFormat, scale: float) -> None:
    """float32: nothing. float16 and bfloat16: 11 and 8 bits, half a unit. int8: one step of max / 127."""
    values = tensors(seed, scale)
    for name, found in through(values, format, seed).items():
        x = values[name]
        allowed = {
            "float32": torch.zeros_like(x),
            "float16": x.abs() * 2**-11 + 2**-25,
            "bfloat16": x.abs() * 2**-8,
            "int8": torch.full_like(x, float(x.abs().max()) / 127 * 1.0001),
        }[format]
        assert found.dtype == torch.float32
        assert bool(((found - x).abs() <= allowed).all())


def test_int8_is_unbiased() -> None:
    """The mean over 4,000 draws lies within 4.5 standard errors; a step's variance is at most step^2 / 4."""
    x = {"x": torch.tensor([1.27, 0.005, -0.3333])}
    step, n = 0.01, 4000
    mean = torch.stack([through(x, "int8", seed)["x"] for seed in range(n)]).mean(0)
    assert bool(((mean - x["x"]).abs() < 4.5 * step / 2 / n**0.5).all())


def test_int8_by_hand() -> None:
    """Steps of 2 / 127: 2 is 127 steps; 1 is 63.5 steps, so 63 or 64; zero stays zero."""
    values = {"x": torch.tensor([2.0, 1.0, 0.0])}
    array, scales = encode(values, "int8", numpy_rng(0, "x"))
    assert array[0] == 127
    assert array[1] in (63, 64)
    assert array[2] == 0
    assert np.frombuffer(scales, "<f4").tolist() == [np.float32(2 / 127)]


def test_the_same_seed_rounds_alike() -> None:
    first, second = through(tensors(1), "int8", 3), through(tensors(1), "int8", 3)
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("format", FORMATS)
def test_the_buffer_has_the_bytes_that_the_format_promises(format: WireFormat) -> None:
    array, _ = encode(tensors(0), format, numpy_rng(0, "x"))
    assert array.nbytes == BYTES_PER_VALUE[format] * (6 + 8 + 12)


def test_a_small_step_on_a_large_weight_survives_as_a_difference() -> None:
    """1000 + 0.01 is 1000 in float16 (its spacing there is 0.5); the difference 0.01 arrives."""
    before, after = {"w": torch.full((4,), 1000.0)}, {"w": torch.full((4,), 1000.01)}
    direct = through(after, "float16")["w"]
    assert torch.equal(direct, before["w"])
    found = sums(through(differences(after, before), "float16"), before)["w"]
    torch.testing.assert_close(found, after["w"], rtol=0, atol=1e-4)


def test_a_tensor_without_a_reference_of_its_shape_is_sent_whole() -> None:
    values, reference = {"a": torch.ones(2), "b": torch.ones(3)}, {"a": torch.ones(4)}
    assert all(torch.equal(differences(values, reference)[name], values[name]) for name in values)


@pytest.mark.parametrize("format", ["float16", "bfloat16", "int8"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_lossy_formats_refuse_what_is_not_finite(format: WireFormat, value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        encode({"x": torch.tensor([1.0, value])}, format, numpy_rng(0, "x"))


def test_float16_refuses_to_overflow() -> None:
    with pytest.raises(ValueError, match="65504"):
        encode({"x": torch.tensor([1e6])}, "float16", numpy_rng(0, "x"))


def test_a_damaged_message_is_refused() -> None:
    values = tensors(0)
    array, scales = encode(values, "int8", numpy_rng(0, "x"))
    manifest = manifest_of(values)
    nan = np.array([np.nan, 1, 1], "<f4").tobytes()
    for broken, its_scales, reason in (
        (array[:-1], scales, "expected"),
        (array.astype(np.float32), scales, "expected"),
        (array, scales[:-4], "bytes of scales"),
        (array, nan, "finite number"),
        (array, np.array([-1, 1, 1], "<f4").tobytes(), "finite number"),
    ):
        with pytest.raises(ValueError, match=reason):
            decode(broken, manifest, "int8", its_scales)
