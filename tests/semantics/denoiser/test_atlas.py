"""An atlas: what a node tells, how many captions tell it, and files that cannot be trusted."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.errors import DamagedFile, UserError
from fedaigc.semantics.denoiser.atlas import LEAF, Atlas, most_common
from fedaigc.semantics.denoiser.atlas_build import build_tree, caption_vectors, leaves, read_captions
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace
from fedaigc.storage.tensor_file import write_parts
from tests.semantics.denoiser.test_sharing_distance import plan_of


def atlas_of(seed: int, count: int = 60, least: int = 4) -> Atlas:
    random = np.random.default_rng(seed)
    vectors = random.normal(size=(count, 3)) + 5 * random.integers(0, 3, (count, 1))
    return build_tree("s", {"note": "drawn"}, [f"caption {i}" for i in range(count)], vectors, least)


@given(st.integers(0, 50), st.integers(1, 20), st.integers(1, 6))
def test_every_disclosed_node_is_disclosed_by_at_least_m_captions(
    seed: int, minimum: int, least: int
) -> None:
    atlas = atlas_of(seed, least=least)
    told = [atlas.disclosed(vector, minimum) for vector in atlas.vectors]
    for node in set(told):
        assert node is not None
        assert told.count(node) >= minimum


@given(st.integers(0, 50), st.integers(1, 10), st.integers(0, 10))
def test_a_larger_m_tells_a_node_above(seed: int, minimum: int, more: int) -> None:
    atlas = atlas_of(seed)
    for vector in np.random.default_rng(seed + 1).normal(size=(5, 3)) * 5:
        way = atlas.way(vector)
        deep, high = atlas.disclosed(vector, minimum), atlas.disclosed(vector, minimum + more)
        assert deep is not None
        assert high is not None
        assert way.index(high) <= way.index(deep)


def test_the_tree_divides_its_captions() -> None:
    atlas = atlas_of(0)
    assert atlas.counts[0] == 60
    for node, pair in enumerate(atlas.children):
        if pair[0] != LEAF:
            parts = [set(atlas.members[child].tolist()) for child in pair]
            assert parts[0] | parts[1] == set(atlas.members[node].tolist())
            assert not parts[0] & parts[1]
            assert all(atlas.parents[child] == node for child in pair)
    assert min(atlas.counts[leaf] for leaf in leaves(atlas)) >= 4
    assert len(leaves(atlas)) > 5


def test_two_groups_far_apart_are_divided_first() -> None:
    vectors = np.array([[0.0, 0], [1, 0], [0, 1], [10, 10], [11, 10], [10, 11]])
    atlas = build_tree("s", {}, list("abcdef"), vectors, 3)
    parts = {frozenset(atlas.captions[i] for i in atlas.members[leaf]) for leaf in leaves(atlas)}
    assert parts == {frozenset("abc"), frozenset("def")}
    assert atlas.captions[atlas.medoid(0)] in "bcdef"
    # by hand: 10.33, 10.33 is the mean of d, e, f; d is nearest
    node = next(int(n) for n in leaves(atlas) if 3 in atlas.members[n])
    assert atlas.captions[atlas.medoid(node)] == "d"
    assert atlas.radius(node) == pytest.approx(2 / 3)


def test_captions_that_are_alike_are_one_leaf() -> None:
    atlas = build_tree("s", {}, list("abcd"), np.ones((4, 2)), 1)
    assert len(atlas) == 1
    assert atlas.disclosed(np.ones(2), 4) == 0
    assert atlas.disclosed(np.ones(2), 5) is None


def test_a_file_gives_the_same_atlas_and_the_same_hash(tmp_path: Path) -> None:
    atlas = atlas_of(1)
    atlas.write(tmp_path / "one")
    atlas_of(1).write(tmp_path / "two")
    read = Atlas.read(tmp_path / "one")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert read.hash == atlas.hash
    assert read.captions == atlas.captions
    assert [read.way(v) for v in atlas.vectors] == [atlas.way(v) for v in atlas.vectors]
    assert atlas_of(2).hash != atlas.hash
    assert replace(atlas, about={"note": "other"}).hash != atlas.hash


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"children": [[1, 1], [LEAF, LEAF]]}, "has the child 1"),
        ({"children": [[0, 1], [LEAF, LEAF]]}, "has the child 0"),
        ({"children": [[1, LEAF], [LEAF, LEAF]]}, "one child"),
        ({"children": [[LEAF, LEAF], [LEAF, LEAF]]}, "no way reaches"),
        ({"thresholds": [np.nan, 0]}, "not finite"),
        ({"children": [[1, 2], [LEAF, LEAF], [LEAF, LEAF]]}, "no sound atlas"),
        ({"vectors": [[0.0]]}, "no sound atlas"),
    ],
)
def test_a_file_that_is_no_tree_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {
        "captions": ("a", "b"),
        "vectors": [[0.0], [1.0]],
        "children": [[LEAF, LEAF], [LEAF, LEAF]],
        "directions": [[1.0], [0.0]],
        "thresholds": [0.5, 0.0],
    } | change
    arrays = {
        name: np.asarray(value, np.int64 if name == "children" else np.float32)
        for name, value in given.items()
        if name != "captions"
    }
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    header = {"format": "atlas 1", "space": "s", "about": {}, "captions": list(given["captions"])}
    write_parts(tmp_path / "bad", header, {"atlas": tensors})
    with pytest.raises(DamagedFile, match=message):
        Atlas.read(tmp_path / "bad")


def test_a_caption_that_counts_twice_is_refused(tmp_path: Path) -> None:
    atlas = atlas_of(0)
    replace(atlas, captions=("caption 0", *atlas.captions[:-1])).write(tmp_path / "bad")
    with pytest.raises(DamagedFile, match="counts a caption twice"):
        Atlas.read(tmp_path / "bad")


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    atlas = atlas_of(0)
    with pytest.raises(UserError, match="expected at least 1"):
        atlas.disclosed(atlas.vectors[0], 0)
    with pytest.raises(UserError, match="shape"):
        atlas.way(np.zeros(4))
    with pytest.raises(UserError, match="expected 1 to 60"):
        atlas_of(0, least=61)
    with pytest.raises(UserError, match="no tensor file"):
        Atlas.read(tmp_path / "missing")


def test_captions_are_read_as_meant(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_bytes("\ufeffb\r\na\n\nb\n c\u2028d \n".encode())
    assert read_captions(path) == ["a", "b", "c\u2028d"]
    path.write_bytes("a\nb".encode("utf-16"))
    assert read_captions(path) == ["a", "b"]
    for data, told in (
        (b"a\nb\xff", r"not UTF-8 \(byte 3\)"),
        ("a\nb".encode("utf-16-le"), "not UTF-8: save"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=told):
            read_captions(path)
    path.write_text("a\na\n")
    with pytest.raises(UserError, match="1 different caption,"):
        read_captions(path)
    with pytest.raises(UserError, match="no captions in"):
        read_captions(tmp_path / "none.txt")


def test_an_interrupted_build_continues(pipe: Any, tmp_path: Path) -> None:
    space = DenoiserSpace.of(plan_of(pipe), dimensions=8)
    captions = [f"a {word} on a table" for word in ("dog", "cat", "cup")]
    done: list[int] = []
    first = caption_vectors(pipe, space, captions, tmp_path, done.append)
    calls: list[int] = []
    handle = pipe.unet.register_forward_pre_hook(lambda module, inputs: calls.append(1))
    try:
        again = caption_vectors(pipe, space, captions, tmp_path)
        assert not calls
        next(tmp_path.glob("*.npy")).write_bytes(b"torn")
        assert np.array_equal(caption_vectors(pipe, space, captions, tmp_path), first)
        assert calls
    finally:
        handle.remove()
    assert np.array_equal(first, again)
    assert done == [3]


def test_common_words_leave_out_articles() -> None:
    assert most_common(["a dog on a table", "a cat near a table"]) == "table"
    assert most_common(["a dog", "a cat"]) == ""
