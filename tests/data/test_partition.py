from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from fedaigc.data.partition import PartitionSettings, partition
from fedaigc.data.scenes import scenes_dataset
from fedaigc.device.home.home import Home, home_of
from fedaigc.device.home.images import ImageStore
from fedaigc.device.provision import provision_pool
from fedaigc.errors import UserError

KINDS: list[dict[str, Any]] = [
    {"kind": "style"},
    {"kind": "style", "size_skew": "linear"},
    {"kind": "object"},
    {"kind": "natural", "column": "style", "size_skew": "linear"},
    {"kind": "iid"},
    {"kind": "iid", "size_skew": "square"},
    {"kind": "dirichlet", "alpha": 0.3},
    {"kind": "dirichlet", "column": "style", "alpha": 5.0, "min_size": 2},
    {"kind": "pathological", "column": "style", "classes_per_client": 1},
    {"kind": "pathological"},
]


def pool(styles: list[str], objects: list[str] | None = None) -> datasets.Dataset:
    """Rows with their number."""
    things = objects or [f"thing {len(style)}" for style in styles]
    return datasets.Dataset.from_dict({"style": styles, "object": things, "number": list(range(len(styles)))})


def numbers(parts: list[datasets.Dataset]) -> list[list[int]]:
    return [list(part["number"]) for part in parts]


LETTERS = st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from("uvwxyz")), min_size=1, max_size=80)


@settings(max_examples=40, deadline=None)
@given(LETTERS, st.sampled_from(KINDS), st.integers(1, 7), st.integers(0, 2**40))
def test_every_row_goes_to_one_client_and_no_client_is_empty(
    rows: list[tuple[str, str]], chosen: dict[str, Any], num_clients: int, seed: int
) -> None:
    """Otherwise the split is refused, with advice."""
    whole = pool([style for style, _ in rows], [thing for _, thing in rows])
    split = PartitionSettings(**chosen)
    np.random.seed(1)  # noqa: NPY002 the state that no split may read
    try:
        parts = numbers(partition(whole, split, num_clients, seed))
    except UserError as error:
        assert any(word in str(error) for word in ("more", "fewer", "raise", "only"))  # noqa: PT017
        return
    assert len(parts) == num_clients
    assert all(parts)
    assert sorted(chain(*parts)) == list(range(len(rows)))
    assert all(part == sorted(part) for part in parts), "the order of the pool is kept"
    np.random.seed(2)  # noqa: NPY002
    assert numbers(partition(whole, split, num_clients, seed)) == parts


@pytest.mark.parametrize("chosen", KINDS, ids=str)
def test_another_seed_splits_otherwise(chosen: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    whole = pool(list(random.choice(list("abcdefgh"), 400)), list(random.choice(list("uvwxyz"), 400)))
    splits = {str(numbers(partition(whole, PartitionSettings(**chosen), 10, seed))) for seed in range(4)}
    assert len(splits) == 4


def test_as_many_clients_as_styles_have_one_style_each() -> None:
    whole = pool(list("aabbbcabc"))
    parts = partition(whole, PartitionSettings(kind="style"), 3, 0)
    assert sorted("".join(part["style"]) for part in parts) == ["aaa", "bbbb", "cc"]


def test_fewer_clients_than_styles_share_the_styles_out_whole() -> None:
    """Five styles over two clients: three and two, so that no style is divided."""
    parts = partition(pool(list("abcde") * 3), PartitionSettings(kind="style"), 2, 0)
    found = [set(part["style"]) for part in parts]
    assert sorted(map(len, found)) == [2, 3]
    assert not found[0] & found[1]


def test_more_clients_than_styles_divide_a_style_evenly_or_by_skew() -> None:
    """Two styles of 12 rows over four clients: 6 + 6 each, or 4 + 8 with weights 1 : 2."""
    whole = pool(["a"] * 12 + ["b"] * 12)
    even = partition(whole, PartitionSettings(kind="style"), 4, 0)
    assert [len(part) for part in even] == [6, 6, 6, 6]
    assert all(len(set(part["style"])) == 1 for part in even)
    skewed = partition(whole, PartitionSettings(kind="style", size_skew="linear"), 4, 0)
    assert sorted(len(part) for part in skewed) == [4, 4, 8, 8]


@pytest.mark.parametrize(
    ("skew", "sizes"),
    # 140 rows over 4: 1:1:1:1; 1:2:3:4 in tenths; 1:4:9:16 in thirtieths, rounded down, the rest to the
    # last; e:e^2:e^3:e^4 = 0.0321 : 0.0871 : 0.2369 : 0.6439
    [
        ("equal", [35, 35, 35, 35]),
        ("linear", [14, 28, 42, 56]),
        ("square", [4, 18, 42, 76]),
        ("exponential", [4, 12, 33, 91]),
    ],
)
def test_sizes_of_an_iid_split_by_hand(skew: str, sizes: list[int]) -> None:
    chosen = PartitionSettings.model_validate({"kind": "iid", "size_skew": skew})
    parts = partition(pool(["a"] * 140), chosen, 4, 3)
    assert [len(part) for part in parts] == sizes


def test_iid_rows_are_drawn_at_random() -> None:
    """600 rows sorted by style: each of 3 clients has about 100 per style; 4 standard deviations are 27."""
    parts = partition(pool(["a"] * 300 + ["b"] * 300), PartitionSettings(kind="iid"), 3, 0)
    assert all(73 <= list(part["style"]).count("a") <= 127 for part in parts)


def test_a_smaller_alpha_gives_a_client_fewer_classes() -> None:
    whole = pool(["a"] * 600, [str(i % 6) for i in range(600)])

    def largest_share(alpha: float) -> float:
        parts = partition(whole, PartitionSettings(kind="dirichlet", alpha=alpha), 4, 0)
        shares = [max(np.unique(part["object"], return_counts=True)[1]) / len(part) for part in parts]
        return float(np.mean(shares))

    assert largest_share(0.1) > 0.45
    assert largest_share(1000.0) < 0.25  # 1/6 when all are equal


def test_pathological_clients_have_exactly_so_many_classes() -> None:
    whole = pool(["a"] * 120, [str(i % 6) for i in range(120)])
    parts = partition(whole, PartitionSettings(kind="pathological", classes_per_client=2), 9, 0)
    assert all(len(set(part["object"])) == 2 for part in parts)


def test_refusals_say_what_to_change() -> None:
    whole = pool(["a"] * 20 + ["b"], [str(i % 7) for i in range(21)])
    for chosen, clients, words in (
        ({"kind": "style"}, 0, "at least one"),
        ({"kind": "style"}, 22, "21 rows for 22 clients"),
        ({"kind": "style"}, 5, "style 'b' has 1 row for [23] clients"),
        ({"kind": "iid", "size_skew": "exponential"}, 8, "milder skew"),
        ({"kind": "dirichlet", "column": "hand"}, 2, "no column 'hand'.*style, object, number"),
        ({"kind": "dirichlet", "min_size": 11}, 2, "needs 22 rows, and there are 21"),
        ({"kind": "dirichlet", "alpha": 0.01, "min_size": 5}, 4, "raise alpha"),
        ({"kind": "pathological", "classes_per_client": 8}, 2, "only 7 classes"),
        ({"kind": "pathological"}, 2, "raise classes_per_client"),
    ):
        with pytest.raises(UserError, match=words):
            partition(whole, PartitionSettings.model_validate(chosen), clients, 0)
    with pytest.raises(UserError, match="row 1 has no 'style'"):
        partition(datasets.Dataset.from_dict({"style": ["a", None]}), PartitionSettings(), 2, 0)


def test_settings_without_effect_and_unknown_ones_are_errors() -> None:
    with pytest.raises(ValidationError, match=r"alpha = 3\.0 has no effect on kind 'iid'"):
        PartitionSettings(kind="iid", alpha=3.0)
    with pytest.raises(ValidationError, match="size_skew"):
        PartitionSettings(kind="dirichlet", size_skew="linear")
    with pytest.raises(ValidationError, match="Extra inputs"):
        PartitionSettings.model_validate({"alhpa": 1})
    chosen = PartitionSettings(kind="dirichlet", alpha=0.1)
    assert PartitionSettings.model_validate_json(chosen.model_dump_json()) == chosen


def test_class_labels_are_read_by_name() -> None:
    labels = datasets.Features({"style": datasets.ClassLabel(names=["noto", "flat"])})
    whole = datasets.Dataset.from_dict({"style": [0, 1, 1, 1]}, features=labels)
    with pytest.raises(UserError, match="style 'noto' has 1 row for 2 clients"):
        partition(whole, PartitionSettings(), 4, 0)


def test_scenes_are_split_with_their_pictures() -> None:
    whole = scenes_dataset(12, 0, styles=("flat", "noto"))
    parts = partition(whole, PartitionSettings(), 2, 0)
    drawn = {row["image"].tobytes() for row in whole}
    assert {row["image"].tobytes() for part in parts for row in part} == drawn
    assert all(len(set(part["style"])) == 1 for part in parts)


def test_homes_share_out_one_pool_which_another_split_shares_out_otherwise(tmp_path: Path) -> None:
    def held(name: str, chosen: PartitionSettings) -> list[list[bytes]]:
        sizes = provision_pool(tmp_path / name, 20, chosen, 3, seed=5, styles=("flat", "noto", "twemoji"))
        stores = [ImageStore(Home(home_of(tmp_path / name, i))) for i in range(3)]
        assert [len(store) for store in stores] == sizes
        return [[picture.image.tobytes() for picture in store.all()] for store in stores]

    by_style, at_random = held("style", PartitionSettings()), held("iid", PartitionSettings(kind="iid"))
    assert held("again", PartitionSettings()) == by_style
    assert by_style != at_random
    assert sorted(chain(*by_style)) == sorted(chain(*at_random))
    with pytest.raises(UserError, match="already exists"):
        provision_pool(tmp_path / "style", 20, PartitionSettings(), 3, seed=5)
