"""Tensors through one flat buffer and back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from fedaigc.federation.arrays import Manifest, flatten, manifest_of, unflatten
from fedaigc.tensor_file import CACHE_LINE_BYTES

NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_categories=["Cs"]), max_size=9)


@given(
    st.dictionaries(NAMES, array_shapes(min_dims=0, max_dims=4, max_side=3), max_size=5), st.integers(0, 99)
)
def test_every_state_survives_bit_for_bit(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    manifest = Manifest.from_json(manifest_of(tensors).to_json())
    assert manifest == manifest_of(tensors)
    found = unflatten(flatten(tensors), manifest)
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_the_buffer_is_the_tensors_one_after_the_other():
    tensors = {"b": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T, "a": torch.tensor(5.0)}
    assert flatten(tensors).tolist() == [1.0, 3.0, 2.0, 4.0, 5.0]
    assert manifest_of(tensors).to_json() == '[["b", [2, 2]], ["a", []]]'
    assert manifest_of(tensors).num_values == 5


def test_nothing_is_rounded_or_cut_silently():
    with pytest.raises(TypeError, match=r"half: expected float32, got torch\.bfloat16"):
        flatten({"half": torch.zeros(2, dtype=torch.bfloat16)})
    with pytest.raises(ValueError, match="a buffer of 3 values, the manifest has 4"):
        unflatten(np.zeros(3, np.float32), Manifest((("a", (4,)),)))


@given(offset=st.integers(0, 63), sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_where_a_message_lies_in_memory_does_not_show(offset, sizes):
    """Every tensor is a copy that starts on a cache line, wherever the bytes of the message were."""
    total = sum(sizes)
    raw = bytearray(4 * total + 64)
    buffer = np.frombuffer(raw, np.float32, count=total, offset=offset)
    buffer[:] = np.arange(total)
    manifest = Manifest(tuple((str(i), (size,)) for i, size in enumerate(sizes)))
    found = unflatten(buffer, manifest)
    assert torch.cat(list(found.values())).tolist() == list(range(total))
    for tensor in found.values():
        assert tensor.data_ptr() % CACHE_LINE_BYTES == 0
        tensor += 1
    assert buffer.tolist() == list(range(total))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        "[" * 100_000,
        "[1]",
        '[["a"]]',
        '[["a", [2]], ["a", [2]]]',
        '[["a", [-1]]]',
        '[["a", [1.5]]]',
        '[["a", [true]]]',
        '[["a", "22"]]',
        '[["a", [65536, 65536]]]',
        "[[1, [2]]]",
    ],
)
def test_what_is_no_manifest_is_refused(text):
    with pytest.raises(ValueError, match="manifest"):
        Manifest.from_json(text)
