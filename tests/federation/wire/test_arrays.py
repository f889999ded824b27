"""Tensors to one flat buffer and back."""

from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from fedaigc.bounds import TENSOR_NAME
from fedaigc.federation.wire.codec import decode
from fedaigc.federation.wire.flat_arrays import Manifest, array_of, flatten, manifest_of
from fedaigc.storage.tensor_file import CACHE_LINE_BYTES

NAMES = st.from_regex(TENSOR_NAME, fullmatch=True)


@given(
    st.dictionaries(NAMES, array_shapes(min_dims=0, max_dims=4, max_side=3), max_size=5), st.integers(0, 99)
)
def test_every_state_survives_bit_for_bit(shapes: dict[str, tuple[int, ...]], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    tensors = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    manifest = Manifest.from_json(manifest_of(tensors).to_json())
    assert manifest == manifest_of(tensors)
    found = decode(flatten(tensors), manifest, "float32", b"")
    assert list(found) == list(tensors)
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())


def test_the_buffer_is_the_tensors_one_after_the_other() -> None:
    tensors = {"b": torch.tensor([[1.0, 2.0], [3.0, 4.0]]).T, "a": torch.tensor(5.0)}
    assert flatten(tensors).tolist() == [1.0, 3.0, 2.0, 4.0, 5.0]
    assert manifest_of(tensors).to_json() == '[["b", [2, 2]], ["a", []]]'
    assert manifest_of(tensors).num_values == 5


def test_nothing_is_rounded_or_cut_silently() -> None:
    with pytest.raises(TypeError, match=r"half: expected float32, got torch\.bfloat16"):
        flatten({"half": torch.zeros(2, dtype=torch.bfloat16)})
    with pytest.raises(ValueError, match=r"an array \(3,\) of float32, expected \(4,\)"):
        decode(np.zeros(3, np.float32), Manifest((("a", (4,)),)), "float32", b"")


@given(offset=st.integers(0, 63), sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6))
def test_where_a_message_lies_in_memory_does_not_show(offset: int, sizes: list[int]) -> None:
    """Tensors are copies in memory that starts on a cache line, wherever the bytes of the message were."""
    total = sum(sizes)
    raw = bytearray(4 * total + 64)
    buffer = np.frombuffer(raw, np.float32, count=total, offset=offset)
    buffer[:] = np.arange(total)
    manifest = Manifest(tuple((str(i), (size,)) for i, size in enumerate(sizes)))
    found = decode(buffer, manifest, "float32", b"")
    assert torch.cat(list(found.values())).tolist() == list(range(total))
    whole = found["0"].untyped_storage()
    assert not total or whole.data_ptr() % CACHE_LINE_BYTES == 0
    for tensor in found.values():
        assert tensor.untyped_storage().data_ptr() == whole.data_ptr()
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
def test_what_is_no_manifest_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="manifest"):
        Manifest.from_json(text)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint16, np.int8])
@pytest.mark.parametrize("size", [0, 1, 7, 100_000])
def test_an_array_is_read_from_flower_s_bytes_without_a_copy(dtype: Any, size: int) -> None:
    wanted = np.arange(size).astype(dtype)
    data = Array(wanted).data
    found = array_of(data)
    assert found.dtype == wanted.dtype
    assert np.array_equal(found, wanted)
    if size:
        assert not found.flags.owndata
        assert not found.flags.writeable


def test_bytes_that_are_no_array_are_refused() -> None:
    data = Array(np.arange(9, dtype=np.float32)).data
    for wrong in (b"", data[:5], data[:40], data[:-1], b"x" + data[1:], data[:6] + b"\3" + data[7:]):
        with pytest.raises(ValueError):  # noqa: PT011 (numpy's own texts)
            array_of(wrong)
