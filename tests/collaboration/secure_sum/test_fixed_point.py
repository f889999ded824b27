"""Fixed-point encoding: exact sums, stated clipping and resolution, and what has no mean."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedaigc.collaboration.secure_sum import fixed_point
from fedaigc.collaboration.secure_sum.fixed_point import LIMIT, RESOLUTION, decode_mean, encode, flat, unflat
from fedaigc.errors import NotFinite, UserError

VECTORS = st.integers(1, 6).flatmap(
    lambda size: st.lists(
        arrays(np.float64, size, elements=st.floats(-LIMIT, LIMIT, allow_nan=False)), min_size=1, max_size=9
    )
)


@given(VECTORS, st.randoms())
def test_the_mean_is_within_the_resolution_in_any_order(vectors: list[np.ndarray], random: object) -> None:
    encoded = [encode(vector) for vector in vectors]
    total = np.stack(encoded).sum(axis=0, dtype=np.uint64)
    random.shuffle(encoded)  # type: ignore[attr-defined]
    again = np.zeros_like(total)
    for each in encoded:
        again += each
    assert np.array_equal(total, again)
    mean = decode_mean(total, len(vectors))
    assert np.abs(mean - np.mean(vectors, axis=0)).max() <= RESOLUTION / 2 + 1e-9


def test_values_beyond_the_limit_are_clipped_and_others_refused() -> None:
    assert decode_mean(encode(np.array([1e9, -1e9, 1.5])), 1).tolist() == [LIMIT, -LIMIT, 1.5]
    for wrong in (np.nan, np.inf):
        with pytest.raises(NotFinite, match="not finite"):
            encode(np.array([0.0, wrong]))


def test_a_sum_with_a_part_missing_is_seen() -> None:
    """A mask that did not cancel leaves values that no members can add up to."""
    random = np.random.default_rng(0)
    with pytest.raises(ValueError, match="a part of it is missing"):
        decode_mean(random.integers(0, 2**64, 100, np.uint64), 3)
    for count in (0, fixed_point.MAX_SUMMED + 1):
        with pytest.raises(ValueError, match="expected 1 to"):
            decode_mean(np.zeros(3, np.uint64), count)


def test_tensors_of_all_encoders_are_one_vector_and_come_back() -> None:
    one = {"b": torch.randn(1, 3, 2), "a": torch.randn(1, 4).half(), "mask": torch.tensor([[1, 0]])}
    back = unflat(flat(one), one)
    assert torch.equal(back["b"], one["b"])
    assert torch.equal(back["a"].half(), one["a"])
    assert torch.equal(back["mask"], one["mask"])
    assert fixed_point.num_values(one) == 10
    with pytest.raises(ValueError, match="9 values: expected 10"):
        unflat(flat(one)[1:], one)
    assert fixed_point.layout(one) != fixed_point.layout({**one, "b": one["b"].reshape(1, 2, 3)})


def test_masks_must_agree_and_forms_too() -> None:
    one = {"e": torch.zeros(1, 2), "mask": torch.tensor([[1, 0]])}
    fixed_point.check_alike(one, {**one, "e": torch.ones(1, 2)})
    with pytest.raises(UserError, match=r"mask of two conditionings differs .* no mean"):
        fixed_point.check_alike(one, {**one, "mask": torch.tensor([[1, 1]])})
    for other in ({**one, "e": torch.zeros(1, 3)}, {"e": one["e"]}, {**one, "mask": torch.zeros(1, 2)}):
        with pytest.raises(UserError, match="expected the same names and shapes"):
            fixed_point.check_alike(one, other)
