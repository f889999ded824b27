"""Rows of data sets: broken ones are named or left out, captions are read as they are meant."""

from typing import Any

import datasets
import pytest

from fedaigc.data.pictures.reading import Reading, Tally
from fedaigc.data.pictures.rows import read_rows
from fedaigc.errors import UserError
from tests.data.pictures.made import cut, photo, saved

WHOLE = saved(photo(64, 64))
SKIP = Reading(skip_broken=True)


def data_set(images: list[Any], captions: list[Any], feature: Any = None) -> datasets.Dataset:
    rows = datasets.Dataset.from_dict({"image": [{"bytes": data, "path": None} for data in images]})
    rows = rows.cast_column("image", datasets.Image())
    return rows.add_column("caption", captions, feature=feature)


@pytest.mark.parametrize("broken", [cut(), b"", b"nothing"], ids=["cut", "empty", "other"])
def test_a_row_with_a_broken_picture_is_named_or_left_out(broken: bytes) -> None:
    rows = data_set([WHOLE, broken, WHOLE], ["a", "b", "c"])
    with pytest.raises(UserError, match=r"the picture of row 1 is .*--skip-broken"):
        list(read_rows(rows))
    tally = Tally()
    assert [each.caption for each in read_rows(rows, reading=SKIP, tally=tally)] == ["a", "c"]
    assert len(tally.skipped) == 1
    assert "row 1" in tally.skipped[0]
    with pytest.raises(
        UserError, match="no row of the data set can be used; the first: the picture of row 0"
    ):
        list(read_rows(data_set([broken], ["a"]), reading=SKIP))


def test_captions_of_rows_are_texts_lists_and_names_of_classes() -> None:
    (found,) = read_rows(data_set([WHOLE], [["a cat", "a grey cat", "a cat"]]))
    assert found.captions == ("a cat", "a grey cat")
    (found,) = read_rows(data_set([WHOLE], [1], datasets.ClassLabel(names=["cat", "dog"])))
    assert found.caption == "dog"
    for captions, told in (([{"en": "a"}], "a dict with the keys en"), ([None], "row 0 has no caption")):
        with pytest.raises(UserError, match=told):
            list(read_rows(data_set([WHOLE], captions)))
    with pytest.raises(UserError, match="row 1 has no caption"):
        list(read_rows([{"image": photo(8, 8), "caption": text} for text in ("a", float("nan"))]))
    with pytest.raises(UserError, match="the picture of row 0 is missing"):
        list(read_rows([{"image": None, "caption": "a"}]))
