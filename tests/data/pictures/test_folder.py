"""Folders as other people write them: their lists, names, captions and sub-folders."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from fedaigc.data.pictures.folder import list_folder, read_folder
from fedaigc.data.pictures.reading import SEVERAL, Reading, Tally
from fedaigc.errors import UserError
from tests.data.pictures.made import photo, saved


def folder_of(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(saved(photo(8, 8)))
    return folder


def captions(folder: Path, **options: Any) -> dict[str, tuple[str, ...]]:
    listed = list_folder(folder, Reading(**options))
    return {str(each.path.relative_to(folder)): each.captions for each in listed}


def jsonl(folder: Path, *lines: Any, name: str = "captions.jsonl") -> None:
    (folder / name).write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_marks_of_encodings_are_no_part_of_captions(tmp_path: Path, encoding: str) -> None:
    folder_of(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_text("ein Apfel, süß", encoding=encoding)
    (tmp_path / "captions.jsonl").write_text(
        '{"file": "b.png", "caption": "a cat\u0085on a sofa\u2028here"}\r\n', encoding=encoding
    )
    assert captions(tmp_path) == {"a.png": ("ein Apfel, süß",), "b.png": ("a cat on a sofa here",)}


def test_several_captions_are_kept_and_counted(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png", "b.png")
    (tmp_path / "a.txt").write_text("a cat\r\n\r\na grey cat\n a cat \n")
    jsonl(tmp_path, {"file": "b.png", "caption": ["a dog", "a big dog"]})
    assert captions(tmp_path) == {"a.png": ("a cat", "a grey cat"), "b.png": ("a dog", "a big dog")}
    tally = Tally()
    (first, second) = read_folder(tmp_path, Reading(), tally)
    assert first.captions == ("a cat", "a grey cat")
    assert second.others == ("a big dog",)
    assert tally.counts == {SEVERAL: 2}


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"en": "a cat"}, "a dict with the keys en"),
        (None, "has no caption"),
        (float("nan"), "has no caption"),
        ([], "list of captions is empty"),
        (["a cat", None], "number 2 has no caption"),
        (True, "of the type bool"),
        ("  ", "the text is empty"),
    ],
)
def test_captions_that_are_no_texts_are_refused_by_line(tmp_path: Path, value: Any, told: str) -> None:
    folder_of(tmp_path, "a.png", "b.png")
    jsonl(tmp_path, {"file": "a.png", "caption": "a cat"}, {"file": "b.png", "caption": value})
    with pytest.raises(UserError, match=rf"b\.png \(.*line 2\).*{told}|line 2.*{told}"):
        list_folder(tmp_path)
    tally = Tally()
    assert len(list_folder(tmp_path, Reading(skip_broken=True), tally)) == 1
    # the line, and the picture that is without a caption because of it
    assert len(tally.skipped) == 2
    assert "left out:" in tally.lines(Reading())[0]


def test_names_are_found_in_any_form_and_the_nearest_is_told(tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD", "café.png")
    folder_of(tmp_path, name, "B.PNG", "c.png", "ü.png")
    jsonl(
        tmp_path,
        {"file": unicodedata.normalize("NFC", "café.png"), "caption": "one"},
        {"file": "b.png", "caption": "two"},
        {"file": ".\\c.png", "caption": "three"},
    )
    (tmp_path / (unicodedata.normalize("NFD", "ü") + ".TXT")).write_text("four")
    assert captions(tmp_path) == {name: ("one",), "B.PNG": ("two",), "c.png": ("three",), "ü.png": ("four",)}
    jsonl(tmp_path, {"file": "kafé.png", "caption": "one"})
    with pytest.raises(UserError, match=r"has a caption but no picture: .*; did you mean 'café\.png'"):
        list_folder(tmp_path)
    folder_of(tmp_path / "case", "A.png", "a.png")
    jsonl(tmp_path / "case", {"file": "a.png", "caption": "one"}, {"file": "A.png", "caption": "two"})
    assert captions(tmp_path / "case") == {"A.png": ("two",), "a.png": ("one",)}


def test_nothing_overwrites_a_caption(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png")
    jsonl(tmp_path, {"file": "a.png", "caption": "a cat"}, {"file": "./a.png", "caption": "a dog"})
    with pytest.raises(UserError, match=r"line 2 names .*a\.png again, after .*line 1"):
        list_folder(tmp_path)
    jsonl(tmp_path, {"file": "a.png", "caption": "a cat"})
    (tmp_path / "a.txt").write_text("a dog")
    with pytest.raises(UserError, match=r"one caption in .*line 1 and another in a\.txt"):
        list_folder(tmp_path)
    (tmp_path / "a.txt").unlink()
    (tmp_path / "captions.jsonl").write_text('{"file": "a.png", "caption": "a cat", "caption": "a dog"}')
    with pytest.raises(UserError, match="the key 'caption' stands there twice"):
        list_folder(tmp_path)


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_layouts_of_imagefolder_are_read(tmp_path: Path, kind: str) -> None:
    folder_of(tmp_path, "train/a.png", "train/b.png", "Thumbs.db")
    rows = pd.DataFrame(
        {"file_name": ["train/a.png", "train/b.png"], "text": ["a cat, grey", "a dog"], "breed": ["x", "y"]}
    )
    path = tmp_path / f"metadata.{kind}"
    match kind:
        case "jsonl":
            rows.to_json(path, orient="records", lines=True)
        case "csv":
            rows.to_csv(path, index=False, encoding="utf-8-sig")
        case _:
            rows.to_parquet(path)
    with pytest.raises(UserError, match=r"train is a folder: .*--sub-folders read"):
        list_folder(tmp_path)
    found = list_folder(tmp_path, Reading(sub_folders="read"))
    assert [each.captions for each in found] == [("a cat, grey",), ("a dog",)]
    assert [each.columns for each in found] == [{"breed": "x"}, {"breed": "y"}]
    named = list_folder(tmp_path, Reading(sub_folders="read", caption_column="breed"))
    assert [each.captions for each in named] == [("x",), ("y",)]
    with pytest.raises(UserError, match=r"has no 'prompt': .*one of breed, text"):
        list_folder(tmp_path, Reading(sub_folders="read", caption_column="prompt"))


def test_sub_folders_are_classes_by_option(tmp_path: Path) -> None:
    folder_of(tmp_path, "golden_retriever/1.png", "cat/2.png", "cat/young/3.png")
    (tmp_path / "cat" / "2.txt").write_text("a cat on a sofa")
    found = list_folder(tmp_path, Reading(sub_folders="classes"))
    assert [(each.captions[0], each.columns["label"]) for each in found] == [
        ("a cat on a sofa", "cat"),
        ("cat", "cat"),
        ("golden retriever", "golden_retriever"),
    ]
    with pytest.raises(UserError, match=r"3\.png has no caption"):
        list_folder(tmp_path, Reading(sub_folders="read"))


def test_broken_pictures_are_left_out_and_counted(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png", "b.png", "c.png", "d.png")
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text("a cat")
    (tmp_path / "b.png").write_bytes(b"nothing")
    (tmp_path / "c.png").unlink()
    (tmp_path / "c.png").symlink_to("gone.png")
    tally = Tally()
    reading = Reading(skip_broken=True)
    assert [each.file for each in read_folder(tmp_path, reading, tally)] == ["a.png"]
    assert len(tally.skipped) == 3
    assert "3 left out:" in tally.lines(reading)[-1]
    (tmp_path / "a.png").unlink()
    (tmp_path / "a.txt").unlink()
    (tmp_path / "b.txt").unlink()
    with pytest.raises(UserError, match=r"none of the pictures in .* can be used; the first: "):
        list_folder(tmp_path, reading)


def test_tables_and_wrong_lists_are_named(tmp_path: Path) -> None:
    folder_of(tmp_path, "a.png")
    (tmp_path / "metadata.csv").write_text("name;text\na.png;a cat\n")
    with pytest.raises(UserError, match=r"metadata\.csv has the columns name;text: expected file_name"):
        list_folder(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a cat, grey\n")
    with pytest.raises(UserError, match=r"line 2 has more fields"):
        list_folder(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    (tmp_path / "metadata.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"metadata\.parquet is not a Parquet file"):
        list_folder(tmp_path)
    (tmp_path / "metadata.parquet").rename(tmp_path / "train-00000.parquet")
    (tmp_path / "a.txt").write_text("a cat")
    with pytest.raises(UserError, match=r"train-00000\.parquet is a table .*add-data-set"):
        list_folder(tmp_path)
