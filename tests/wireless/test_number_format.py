"""From values to bits and back: the loss of each format, and the effects of bit errors and erasures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from fedaigc.errors import UserError
from fedaigc.rng import numpy_rng, rng
from fedaigc.wireless.number_format import FORMAT_NAMES, LOADING, FormatName, NumberFormat

FIXED = ("fixed8", "fixed8-gray")


def gaussian(count: int = 4096) -> torch.Tensor:
    return torch.randn(count, generator=rng(0, "values"))


@pytest.mark.parametrize("name", FIXED)
def test_a_hand_derived_code(name: FormatName) -> None:
    """Range 4: cells of 1/32. 0.5 is cell 144 = 10010000, in Gray 11011000; its middle is 0.5 + 1/64."""
    number_format = NumberFormat(name, 4.0)
    bits = number_format.to_bits(torch.tensor([0.5]))
    assert "".join(map(str, bits[0])) == {"fixed8": "10010000", "fixed8-gray": "11011000"}[name]
    assert number_format.from_bits(bits).item() == 0.5 + 1 / 64


def test_the_significance_of_float_bits() -> None:
    """-1.5 in half precision: sign 1, exponent 01111, fraction 1000000000."""
    bits = NumberFormat("float16", 4.0).to_bits(torch.tensor([-1.5]))
    assert "".join(map(str, bits[0])) == "1011111000000000"


@given(
    arrays.arrays(np.float32, st.integers(1, 40), elements=st.floats(-100, 100, width=32)),
    st.sampled_from(FORMAT_NAMES),
)
def test_without_errors_only_rounding_is_lost(values: np.ndarray, name: FormatName) -> None:
    number_format = NumberFormat(name, 4.0)
    sent = torch.from_numpy(values)
    received = number_format.from_bits(number_format.to_bits(sent))
    if name == "float32":
        assert torch.equal(received, sent)
    elif name == "float16":
        assert torch.equal(received, sent.half().float())
    else:
        # half a cell inside of the range, and the outermost middle beyond it
        assert bool(((received - sent.clamp(-4, 4)).abs() <= 1 / 64 + 1e-6).all())
        assert torch.equal(number_format.from_bits(number_format.to_bits(received)), received)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from(FIXED), st.floats(0.01, 1e6))
def test_fixed_point_is_finite_at_any_bit_error_rate(
    seed: int, rate: float, name: FormatName, limit: float
) -> None:
    number_format = NumberFormat(name, limit)
    random = np.random.default_rng(seed)
    bits = number_format.to_bits(gaussian(64) * limit)
    received = number_format.from_bits(bits ^ (random.random(bits.shape) < rate).astype(np.uint8))
    assert bool((received.abs() <= limit).all())


def bit_flip_error(number_format: NumberFormat, values: Tensor, rates: np.ndarray) -> float:
    """Return the expected squared error of flips: sum over r of T(q, r) (x'_r - x)^2, where q is the cell of x."""
    codes = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    middles = number_format.from_bits(codes).double()
    cells = np.packbits(number_format.to_bits(values).astype(np.uint8), axis=1)[:, 0].astype(np.int64)
    flips = torch.from_numpy(rates)
    differ = torch.from_numpy(codes[:, None, :] ^ codes[None, :, :]).bool()
    chances = torch.where(differ, flips, 1 - flips).prod(dim=2)
    # by cell, the moments of what arrives: E (x' - x)^2 = E x'^2 - 2 x E x' + x^2
    means, squares = (chances @ middles)[cells], (chances @ middles.square())[cells]
    sent = values.double()
    return float((squares - 2 * sent * means + sent.square()).mean())


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("rate", [0.0, 0.005, 0.02, 0.1, 0.5])
def test_the_error_of_bit_flips_equals_theory(name: FormatName, rate: float) -> None:
    """The mean of 200 transmissions lies within 4 standard errors of the transition matrix's expectation."""
    number_format, values = NumberFormat(name, LOADING), gaussian(2048)
    bits = number_format.to_bits(values)
    # the bits of a symbol differ in their rates: so must a theory that is to be of use
    rates = rate * np.linspace(0.5, 1.5, 8)
    random = numpy_rng(1, name, str(rate))
    measured = [
        float((number_format.from_bits(bits ^ (random.random(bits.shape) < rates)) - values).square().mean())
        for _ in range(200)
    ]
    expected = bit_flip_error(number_format, values, rates)
    spread = np.std(measured, ddof=1) / np.sqrt(len(measured))
    assert abs(np.mean(measured) - expected) <= 4 * spread + 1e-9


def test_transition_matrix_by_hand() -> None:
    """A flip of the top bit in plain binary moves a value by half the range: cell 0 to cell 128."""
    rates = np.zeros(8)
    rates[0] = 0.25
    matrix = NumberFormat("fixed8", 1.0).transition_matrix(rates)
    assert matrix[0, 128] == 0.25
    assert matrix[0, 0] == 0.75
    assert np.allclose(matrix.sum(axis=1), 1)
    # in Gray code the neighbours 127 and 128 differ in the top bit alone
    assert NumberFormat("fixed8-gray", 1.0).transition_matrix(rates)[127, 128] == 0.25


def test_the_range_that_serves_a_gaussian_best_is_near_the_one_used() -> None:
    values = torch.randn(200_000, generator=rng(3, "loading"))

    def error(limit: float) -> float:
        return bit_flip_error(NumberFormat("fixed8", limit), values, np.zeros(8))

    best = min(np.arange(3.0, 5.01, 0.1), key=error)
    assert abs(best - LOADING) <= 0.3
    assert error(LOADING) < 1.1 * error(best)


@pytest.mark.parametrize("name", FIXED)
def test_an_erased_tail_leaves_the_middle_of_its_interval(name: FormatName) -> None:
    """Bits 2 on erased of a value in [2, 4): the middle of the upper quarter is 3, one cell above by half."""
    number_format = NumberFormat(name, 4.0)
    bits = number_format.to_bits(torch.tensor([2.1, -0.3]))
    erased = np.zeros((2, 8), bool)
    erased[0, 2] = erased[1, 0] = True
    filled = number_format.fill_erased(bits, erased)
    assert number_format.from_bits(filled).tolist() == [3 + 1 / 64, 1 / 64]


@pytest.mark.parametrize("name", FORMAT_NAMES)
def test_filling_changes_nothing_that_arrived(name: FormatName) -> None:
    number_format = NumberFormat(name, 4.0)
    bits = number_format.to_bits(gaussian(64))
    assert np.array_equal(number_format.fill_erased(bits, np.zeros(bits.shape, bool)), bits)
    filled = number_format.fill_erased(bits, np.ones(bits.shape, bool))
    assert bool(number_format.from_bits(filled).abs().max() <= 1 / 64)


def test_what_is_refused() -> None:
    with pytest.raises(UserError, match="limit"):
        NumberFormat("fixed8", float("inf"))
    with pytest.raises(UserError, match="2 of 3 values are not finite"):
        NumberFormat("float32", 1.0).to_bits(torch.tensor([1.0, float("nan"), float("inf")]))
    with pytest.raises(UserError, match="no expected error"):
        NumberFormat("float16", 1.0).linear_error(1.0, np.zeros(8))


@pytest.mark.parametrize("rate", [0.01, 0.1])
def test_the_kurtosis_of_flips_is_that_of_the_note(rate: float) -> None:
    """3 + S4 / S2^2 (1 / p - 3): 61.2 at 1 %, where a Gaussian has 3, and 7.2 at 10 %.

    2^21 values evenly spread; at 1 % some 21,000 of them have the most significant bit flipped, so the fourth
    moment is known to about 1 %.
    """
    number_format = NumberFormat("fixed8", 1.0)
    random = numpy_rng(0, "flips")
    sent = torch.from_numpy(random.uniform(-1, 1, 2**21)).float()
    bits = number_format.to_bits(sent)
    flips = (random.random(bits.shape) < rate).astype(np.uint8)
    errors = (number_format.from_bits(bits ^ flips) - number_format.from_bits(bits)).double().numpy()
    second, fourth = 4.0 ** np.arange(8), 16.0 ** np.arange(8)
    expected = 3 + fourth.sum() / second.sum() ** 2 * (1 / rate - 3)
    assert expected == pytest.approx({0.01: 61.2, 0.1: 7.2}[rate], abs=0.05)
    assert np.mean(errors**4) / np.mean(errors**2) ** 2 == pytest.approx(expected, rel=0.04)
