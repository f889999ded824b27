"""A study on a researcher's own pictures, and their division over homes."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from PIL import Image

import fedaigc as fa
from fedaigc.data.partition import PartitionSettings
from fedaigc.device.home.home import Home
from fedaigc.device.home.images import ImageStore
from fedaigc.study.design.own_data import StudyOwnData, own_parts
from tests.own_pictures import LABELS, draw, write_pictures

DIRICHLET = {"kind": "dirichlet", "alpha": 0.5}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("own") / "pictures")


def as_data_set(labels: bool = True) -> datasets.Dataset:
    rows: dict[str, Any] = {
        "picture": [draw(number) for number in range(60)],
        "text": [f"a {LABELS[number % 3]} in colour {number % 5}" for number in range(60)],
    }
    features: dict[str, Any] = {"picture": datasets.Image(), "text": datasets.Value("string")}
    if labels:
        rows["shape"] = [number % 3 for number in range(60)]
        features["shape"] = datasets.ClassLabel(names=list(LABELS))
    return datasets.Dataset.from_dict(rows, features=datasets.Features(features))


def tiny(small_model: Path, output: Path, **changes: Any) -> dict[str, Any]:
    return {
        "output": output,
        "seeds": 1,
        "rounds": 1,
        "workers": 1,
        "model": {"name": str(small_model), "height": 32, "width": 32},
        "adapter": {"rank": 2},
        "training": {"batch_size": 2, "local_steps": 1, "learning_rate": 1e-2},
        "clients": {"number": 3},
        "evaluation": {"triples": 4, "gallery": 6, "gallery_steps": 2},
        **changes,
    }


def brightness(images: list[Image.Image], prompts: list[str]) -> list[float]:
    assert len(images) == len(prompts) == 6
    assert all(prompt.startswith("a ") for prompt in prompts)
    return [float(np.asarray(image).mean()) for image in images]


def spread(images: list[Image.Image], prompts: list[str]) -> float:
    return float(np.std([np.asarray(image).mean() for image in images]))


def colours(images: list[Image.Image]) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=float).mean((0, 1)) for image in images])


@pytest.mark.slow
def test_strategies_are_compared_on_own_pictures_with_own_measures(
    tmp_path: Path, small_model: Path, pictures: Path
) -> None:
    settings = tiny(small_model, tmp_path / "study", data=pictures, partition=DIRICHLET)
    study = fa.compare(
        ["fedit", "ffa_lora"], metrics={"brightness": brightness}, features=colours, **settings
    )
    assert study.config.clients.partitions.keys() == {"dirichlet"}
    table = pd.read_csv(tmp_path / "study" / "tables" / "dirichlet-collaborative.csv").set_index("row")
    assert {"base", "pooled", "local only", "fedit", "ffa_lora"} == set(table.index)
    far = "own features colours"
    for column in ("loss", "validation loss", "brightness", f"Frechet distance in {far}", f"KID in {far}"):
        assert table.loc[["fedit", "ffa_lora"], column].astype(float).notna().all()
    trained = table.loc[["fedit", "ffa_lora"]]
    assert (trained["brightness low"].astype(float) < trained["brightness"].astype(float)).all()

    # the captions and the pictures are those of the test split, and stand beside the values
    records = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "study" / "records").iterdir()}
    kept = tmp_path / "study" / "work" / "pictures"
    for name, record in records.items():
        assert str(pictures) not in json.dumps(record)
        assert record["run"]["data"]["own"]["source"] == "pictures"
        for mode, measured in record["measures"].items():
            folder = kept / name / mode
            if folder.is_dir():  # device runs what the edge runs otherwise
                lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
                images = [Image.open(folder / line["file"]).convert("RGB") for line in lines]
                values = brightness(images, [line["caption"] for line in lines])
                assert measured["brightness"]["mean"] == pytest.approx(np.mean(values))
                assert measured["brightness"]["n"] == 6
        assert sum(client["images"] for client in record["clients"]) <= 60 - 3 * 2
        assert all(set(client["composition"]) <= set(LABELS) for client in record["clients"])
    base = next(record for name, record in records.items() if name.startswith("base"))
    losses = base["evaluations"][0]
    assert losses["validation"]["collaborative"] != losses["collaborative"]

    # another measure is computed from the kept pictures, and no run is repeated
    times = {path: path.stat().st_mtime_ns for path in kept.rglob("*.png")}
    again = fa.compare(
        ["fedit", "ffa_lora"], metrics={"brightness": brightness, "spread": spread}, **settings
    )
    assert {"brightness", "spread"} <= set(again.table().columns)
    assert {path: path.stat().st_mtime_ns for path in kept.rglob("*.png")} == times
    (gone, *_) = kept.iterdir()
    (gone / "collaborative" if (gone / "collaborative").is_dir() else gone / "device").rename(
        tmp_path / "away"
    )
    with pytest.raises(fa.Error, match=f"no pictures of {gone.name}"):
        fa.compare(["fedit", "ffa_lora"], metrics={"third": lambda images, prompts: 1.0}, **settings)


@pytest.mark.parametrize(
    ("value", "told"),
    [([1.0, 2.0], "for 6 pictures"), (float("nan"), "finite"), ("good", "'good'"), (None, "None")],
)
def test_a_measure_that_returns_no_numbers_is_refused(value: Any, told: str) -> None:
    from fedaigc.study.execute.measures import summarized

    with pytest.raises(fa.Error, match=told):
        summarized("mine", value, ["a cat"] * 6)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"clients": {"number": 3, "images": 20}}, "images belongs to Scenes"),
        ({"clients": {"number": 3, "styles": ["noto"]}}, "styles belongs to Scenes"),
        ({"clients": {"number": 61}, "evaluation": {}}, "60 pictures for 61 clients"),
        ({"clients": {"number": 25}, "evaluation": {}}, "expected at least 3"),
        ({"partition": {"kind": "dirichlet", "column": "size"}}, r"no column 'size'.*\(label\)"),
        ({"evaluation": {"gallery": 20}}, "evaluation.gallery is 20.*12 test pictures"),
        ({"evaluation": {"features": "judge", "gallery": 6}}, "the judge knows Scenes alone"),
        ({"evaluation": {"scorer": "clip"}}, "evaluation.gallery is 0"),
        ({"evaluation": {"scorer": "clip", "gallery": 6, "clip_model": "none/such"}}, "hf download"),
        (
            {"evaluation": {"features": "inception", "gallery": 6, "inception_weights": "none.pth"}},
            "none.pth: download it",
        ),
        ({"metrics": {"CLIP": spread}, "evaluation": {}}, "evaluation.gallery is 0"),
    ],
)
def test_studies_that_cannot_be_are_refused_before_they_begin(
    tmp_path: Path, small_model: Path, pictures: Path, changes: dict[str, Any], told: str
) -> None:
    settings = tiny(small_model, tmp_path / "study", data=pictures, partition="iid") | changes
    with pytest.raises(fa.Error, match=told):
        fa.compare(["fedit"], **settings)
    assert not list((tmp_path / "study").rglob("*.json"))


@pytest.mark.slow
def test_homes_are_the_clients_of_a_study_as_they_are(
    tmp_path: Path, small_model: Path, pictures: Path
) -> None:
    table = fa.partition(tmp_path / "homes", pictures, clients=3, partition=DIRICHLET, seed=3)
    settings = tiny(small_model, tmp_path / "study", data=tmp_path / "homes")
    study = fa.compare(["fedit"], **(settings | {"clients": {}}))
    assert study.config.clients.number == 3
    record = json.loads(next((tmp_path / "study" / "records").glob("fedit-homes-*.json")).read_text())
    assert [client["composition"] for client in record["clients"]] == [
        {f"{number:02d}": client["images"]} for number, client in enumerate(record["clients"])
    ]
    assert [client["images"] for client in record["clients"]] == [
        size - max(1, round(0.2 * size)) - max(1, round(0.1 * size)) for size in table["pictures"]
    ]
    with pytest.raises(fa.Error, match="leave the partitions out"):
        fa.compare(["fedit"], partition="iid", **(settings | {"clients": {}}))
    with pytest.raises(fa.Error, match="holds 3 homes"):
        fa.compare(["fedit"], **(settings | {"clients": {"number": 4}}))


def test_a_folder_and_a_data_set_are_divided_over_homes_alike(tmp_path: Path, pictures: Path) -> None:
    table = fa.partition(tmp_path / "a", pictures, clients=4, partition=DIRICHLET, seed=1)
    assert list(table.columns) == ["pictures", *sorted(LABELS)]
    assert [int(table[label].sum()) for label in LABELS] == [20, 20, 20]
    as_data_set().save_to_disk(str(tmp_path / "saved"))
    section = {"image_column": "picture", "caption_column": "text", "label_column": "shape"}
    for name, data in (("b", as_data_set()), ("c", str(tmp_path / "saved"))):
        given = data if name == "c" else as_data_set()
        source: Any = {"source": given, **section} if name == "c" else None
        if source is None:
            renamed = as_data_set().rename_columns({"picture": "image", "text": "caption", "shape": "label"})
            source = renamed
        other = fa.partition(tmp_path / name, source, clients=4, partition=DIRICHLET, seed=1)
        assert other.equals(table), name
    for client, row in table.iterrows():
        homes = [ImageStore(Home.open(tmp_path / name / f"{client:02d}")) for name in "abc"]
        assert len(homes[0]) == row["pictures"]
        assert homes[0].digest() == homes[1].digest() == homes[2].digest()
    # the same call again keeps the homes, another one is refused
    assert fa.partition(
        tmp_path / "a", pictures, clients=4, partition=DIRICHLET, seed=1, exist_ok=True
    ).equals(table)
    with pytest.raises(fa.Error, match="other arguments"):
        fa.partition(tmp_path / "a", pictures, clients=4, partition="iid", seed=1, exist_ok=True)
    with pytest.raises(fa.Error, match="already exists"):
        fa.partition(tmp_path / "a", pictures, clients=4, partition=DIRICHLET, seed=1)


def test_broken_pictures_are_left_out_of_homes_and_of_studies(tmp_path: Path, small_model: Path) -> None:
    folder = write_pictures(tmp_path / "pictures", 12)
    (folder / "004.png").write_bytes((folder / "004.png").read_bytes()[:60])
    clear = draw(5).convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize((32, 32)))
    clear.save(folder / "005.png")
    with pytest.raises(
        fa.Error, match=r"004\.png is damaged .*skip_broken|004\.png is cut short.*skip_broken"
    ):
        fa.partition(tmp_path / "homes", folder, clients=3)
    assert not (tmp_path / "homes").exists()
    data = {"source": str(folder), "skip_broken": True, "background": "black"}
    table = fa.partition(tmp_path / "homes", data, clients=3)
    assert table["pictures"].sum() == 11
    lines = table.attrs["reading"]
    assert any(line == "1 with transparency, put on black" for line in lines)
    assert any("1 left out:" in line and "004.png" in line for line in lines)
    assert sorted(path.name for path in (tmp_path / "homes").iterdir()) == [
        "00",
        "01",
        "02",
        "partition.json",
    ]

    parts = own_parts(StudyOwnData(source=str(folder), skip_broken=True), PartitionSettings(kind="iid"), 3, 0)
    assert (
        sum(len({*each.pictures.training, *each.pictures.test, *each.pictures.validation}) for each in parts)
        == 11
    )


def test_several_captions_are_kept_in_homes(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict(
        {"image": [draw(0), draw(1)], "caption": [["a cat", "a grey cat"], ["a dog"]]},
        features=datasets.Features(
            {"image": datasets.Image(), "caption": datasets.List(datasets.Value("string"))}
        ),
    )
    table = fa.partition(tmp_path / "homes", rows, clients=1)
    assert "1 with several captions, of which training draws one at each use" in table.attrs["reading"]
    store = ImageStore(Home.open(tmp_path / "homes" / "00"))
    assert store.captions() == [("a cat", "a grey cat"), ("a dog",)]


def test_what_is_missing_is_named(tmp_path: Path, pictures: Path) -> None:
    homes = tmp_path / "homes"

    def refused(data: Any, told: str, **arguments: Any) -> None:
        with pytest.raises(fa.Error, match=told):
            fa.partition(homes, data, **({"clients": 4} | arguments))
        assert not homes.exists()

    bare = write_pictures(tmp_path / "bare", 6, label=None)
    refused(bare, "needs labels", partition=DIRICHLET)
    (bare / "captions.jsonl").unlink()
    refused(bare, r"000\.png has no caption")
    one = write_pictures(tmp_path / "one", 12)
    lines = (one / "captions.jsonl").read_text()
    for shape in LABELS:
        lines = lines.replace(f'"label": "{shape}"', '"label": "shape"')
    (one / "captions.jsonl").write_text(lines)
    refused(one, "every picture has the label 'shape'", partition=DIRICHLET)
    (one / "captions.jsonl").write_text(lines.replace('"label": "shape"', '"note": "x"', 1))
    refused(one, r"000\.png has no 'label'", partition=DIRICHLET)
    refused(pictures, "60 pictures for 61 clients", clients=61)
    damaged = write_pictures(tmp_path / "damaged", 6)
    (damaged / "004.png").write_bytes((damaged / "004.png").read_bytes()[:60])
    refused(damaged, r"004\.png is (cut short|damaged)")
    refused(tmp_path / "nowhere", "nowhere is not a folder")
    as_data_set(labels=False).save_to_disk(str(tmp_path / "saved"))
    saved = {"source": str(tmp_path / "saved"), "image_column": "picture"}
    refused(saved, "no column 'caption'.*picture, text")
    refused({**saved, "caption_column": "text", "label_column": "shape"}, "no column 'shape'.*none")
    refused({**saved, "image_column": "text", "caption_column": "picture"}, "holds no pictures")
    refused({**saved, "image_column": "text", "caption_column": "text"}, "both images and captions")
    refused({**saved, "captions": "text"}, "nearest known one is 'caption_column'")
    refused(7, "data is int")
