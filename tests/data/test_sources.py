from pathlib import Path

import datasets
import pytest

from fedaigc.data.scenes import scenes_dataset
from fedaigc.data.sources import load_data_set
from fedaigc.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set in the form that `datasets` reads from disk, with other column names."""
    rows = scenes_dataset(3, seed=0).rename_columns({"image": "picture", "caption": "text"})
    target = tmp_path / "set"
    target.mkdir()
    rows.to_parquet(target / "train.parquet")
    return target


def test_columns_are_renamed_and_the_others_kept(folder: Path) -> None:
    rows = load_data_set(str(folder), image_column="picture", caption_column="text")
    assert isinstance(rows, datasets.Dataset)
    assert {"image", "caption", "style"} <= set(rows.column_names)
    assert rows[0]["image"].size == (64, 64)


def test_a_missing_column_names_those_that_are_there(folder: Path) -> None:
    with pytest.raises(UserError, match=r"'image'.*picture"):
        load_data_set(str(folder))


def test_a_missing_data_set_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="no/such-data-set"):
        load_data_set("no/such-data-set")
