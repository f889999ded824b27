"""Tensors from files have the memory alignment of torch, and a damaged file raises a readable error."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file

from fedaigc.errors import DamagedFile, UserError
from fedaigc.storage.tensor_file import (
    CACHE_LINE_BYTES,
    align,
    aligned,
    read_header,
    read_parts,
    read_tensors,
    write_parts,
)


def test_tensors_of_a_file_start_on_cache_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    wanted = {name: torch.randn(5, 7) for name in "abc"}
    save_file(wanted, path, metadata={"round": "3"})
    # the same read by the library alone, to know that the file is such a case
    with safe_open(path, framework="pt") as file:
        assert any(file.get_tensor(name).data_ptr() % CACHE_LINE_BYTES for name in wanted)
    metadata, found = read_tensors(path)
    assert metadata == {"round": "3"}
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert all(tensor.data_ptr() % CACHE_LINE_BYTES == 0 for tensor in found.values())


def test_a_module_of_mapped_weights_computes_what_its_copy_computes() -> None:
    module = torch.nn.Linear(64, 48)
    inputs = torch.randn(1, 16, 64)
    expected = module(inputs)
    memory = torch.zeros(48 * 64 + 16)
    shifted = memory[1 : 1 + 48 * 64].view(48, 64)
    shifted.copy_(module.weight.data)
    module.weight.data = shifted
    assert module.weight.data_ptr() % CACHE_LINE_BYTES
    align(module)
    assert module.weight.data_ptr() % CACHE_LINE_BYTES == 0
    assert torch.equal(module(inputs), expected)


def test_an_aligned_tensor_is_not_copied() -> None:
    tensor = torch.zeros(8)
    assert aligned(tensor) is tensor


def test_a_file_that_is_not_there_or_cut_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no tensor file"):
        read_tensors(tmp_path / "none.safetensors")
    path = tmp_path / "cut.safetensors"
    save_file({"a": torch.zeros(100)}, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(UserError, match="is damaged"):
        read_tensors(path)
    path.write_bytes(b"\0\1")
    with pytest.raises(UserError, match="is damaged"):
        read_tensors(path)


@given(
    header=st.dictionaries(
        st.text(max_size=5), st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
    ),
    shapes=st.dictionaries(st.text("abc.", min_size=1, max_size=5), st.integers(0, 4), max_size=3),
)
def test_parts_come_back_with_their_header(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, object], shapes: dict[str, int]
) -> None:
    path = tmp_path_factory.mktemp("parts") / "a.safetensors"
    tensors = {name: torch.arange(float(size)) for name, size in shapes.items()}
    write_parts(path, header, {"one": tensors, "two": {"x": torch.ones(2)}})
    found, parts = read_parts(path)
    assert found == header == read_header(path)
    assert parts.get("one", {}).keys() == tensors.keys()
    assert all(torch.equal(parts["one"][name], tensor) for name, tensor in tensors.items())


def test_a_changed_header_or_value_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_parts(path, {"rank": 2}, {"one": {"x": torch.ones(4)}})
    whole = path.read_bytes()
    write_parts(path, {"rank": 2}, {"one": {"x": torch.ones(4)}})
    assert path.read_bytes() == whole
    for changed in (whole.replace(b"rank", b"bank"), whole[:-1] + bytes([whole[-1] ^ 1])):
        path.write_bytes(changed)
        with pytest.raises(DamagedFile, match="differ from those that were written"):
            read_parts(path)
    save_file({"one/x": torch.ones(4)}, path)
    with pytest.raises(DamagedFile, match="not a weight file of this version"):
        read_parts(path)
    assert read_header(path) is None
