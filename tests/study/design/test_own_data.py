"""The clients of a study on own pictures: what each one trains on, and what makes a run another one."""

import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from fedaigc.data.partition import PartitionSettings
from fedaigc.errors import UserError
from fedaigc.study.command import _warn_of_pictures
from fedaigc.study.design.clients import DataSpec, StudyClient, gallery_counts, participants, split_clients
from fedaigc.study.design.config import StudyClients, StudyConfig, read_study
from fedaigc.study.design.own_data import StudyOwnData
from fedaigc.study.design.planned_runs import make_plan, prepare
from fedaigc.study.design.runs import RunSpec
from fedaigc.study.execute.measures import Measure
from tests.own_pictures import LABELS, write_pictures
from tests.study.conftest import MakeStudy, WriteStudy

DIRICHLET = PartitionSettings(kind="dirichlet", alpha=1.0)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "pictures")


def spec(pictures: Path, settings: PartitionSettings = DIRICHLET, number: int = 4, **data: Any) -> DataSpec:
    own = StudyOwnData(source=str(pictures), **data)
    return DataSpec.of(StudyClients(number=number, data=own, new=(1,)), settings)


def pixels(rows: Any) -> list[bytes]:
    return [row["image"].tobytes() for row in rows]


def test_every_picture_is_in_one_split_of_one_client(pictures: Path) -> None:
    data = spec(pictures)
    assert data.partition.column == "label"
    assert data.partition.min_size == 3
    clients = split_clients(data)
    assert clients == split_clients(DataSpec.model_validate_json(data.model_dump_json()))
    rows = [row for client in clients if client.own for row in _splits(client)]
    assert sorted(row for part in rows for row in part) == list(range(60))
    for client in clients:
        training, validation, test = _splits(client)
        size = len(training) + len(validation) + len(test)
        assert len(test) == max(1, round(0.2 * size))
        assert len(validation) == max(1, round(0.1 * size))
        assert client.num_images == len(training) > 0
        assert pixels(client.pictures(0)) == pixels(client.pictures(1))
        assert len(pixels(client.fresh_pictures(100, 0, "test"))) == len(test)
        assert not set(pixels(client.pictures(0))) & set(pixels(client.fresh_pictures(100, 0, "test")))
        # captions name the label: the composition is that of the home
        told = Counter(row["caption"].split()[1] for row in client.pictures(0))
        assert told == {label: count for label, count in client.composition().items() if count}
    assert any(len(client.composition()) < len(LABELS) or client.num_images != 15 for client in clients)


def _splits(client: StudyClient) -> tuple[tuple[int, ...], ...]:
    assert client.own is not None
    return client.own.training, client.own.validation, client.own.test


def test_a_gallery_takes_as_many_of_each_client_as_there_are(pictures: Path) -> None:
    clients = participants(split_clients(spec(pictures)))
    most = {client: len(_splits(client)[2]) for client in clients}
    counts = gallery_counts(clients, sum(most.values()))
    assert counts == most
    least = min(most.values())
    assert set(gallery_counts(clients, least * len(clients)).values()) == {least}
    with pytest.raises(UserError, match="test pictures together"):
        gallery_counts(clients, sum(most.values()) + 1)


def own_run(make_study: MakeStudy, pictures: Path, **changes: Any) -> RunSpec:
    data = {"source": str(pictures), **changes.pop("data", {})}
    kinds = changes.pop("partitions", {"iid": None, "own": {"kind": "dirichlet", "alpha": 1.0}})
    clients = {"images": None, "data": data, "partitions": kinds} | changes
    study: StudyConfig = make_study(clients=clients)
    return next(run for run in make_plan(prepare(study), {}).runs if run.label == "fedit")


def test_pictures_captions_labels_and_splits_make_the_run_and_their_place_does_not(
    make_study: MakeStudy, pictures: Path, tmp_path: Path
) -> None:
    before = own_run(make_study, pictures)
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(pictures, moved)
    assert own_run(make_study, moved).hash == before.hash
    assert own_run(make_study, moved, data={"label_column": "label"}).hash == before.hash
    assert own_run(make_study, pictures, data={"test_share": 0.3}).hash != before.hash
    assert own_run(make_study, pictures, data={"validation_share": 0.2}).hash != before.hash
    assert own_run(make_study, pictures, seed=5).hash != before.hash
    assert RunSpec.model_validate_json(before.model_dump_json()).hash == before.hash
    captions = moved / "captions.jsonl"
    lines = captions.read_text()
    found = {before.hash}
    for old, new in (("colour 3", "colour 9"), ('"label": "bar"', '"label": "line"')):
        captions.write_text(lines.replace(old, new, 1))
        found.add(own_run(make_study, moved).hash)
        captions.write_text(lines)
    shutil.copy(moved / "003.png", moved / "004.png")
    found.add(own_run(make_study, moved).hash)
    assert len(found) == 4


def test_a_path_counts_from_the_study_s_folder_and_without_partitions_it_is_random(
    write_study: WriteStudy, pictures: Path
) -> None:
    clients = {"images": None, "partitions": None, "data": {"source": "../pictures"}}
    study = read_study(write_study(clients=clients))
    assert study.clients.data is not None
    assert Path(study.clients.data.source).resolve() == pictures
    assert study.clients.partitions == {"iid": PartitionSettings(kind="iid")}
    assert {run.partition for run in make_plan(prepare(study), {}).runs} == {"iid"}


def test_pictures_that_change_while_a_study_runs_are_refused(pictures: Path) -> None:
    data = spec(pictures)
    split_clients(data)
    shutil.copy(pictures / "003.png", pictures / "004.png")
    with pytest.raises(UserError, match="have changed since the study began"):
        split_clients(data)


def test_clients_with_too_few_pictures_and_unreadable_ones_are_refused(
    make_study: MakeStudy, pictures: Path
) -> None:
    few = write_pictures(pictures.parent / "few", 8)
    with pytest.raises(UserError, match=r"has 2 pictures: expected at least 3"):
        split_clients(spec(few, PartitionSettings(kind="iid")))
    with pytest.raises(UserError, match=r"min_size 3 for 4 clients needs 12"):
        split_clients(spec(few))
    (pictures / "007.png").write_bytes(b"no picture")
    with pytest.raises(UserError, match=r"007\.png is not a picture"):
        own_run(make_study, pictures)


def test_what_is_left_out_and_what_is_cut_is_told(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "pictures [1]", 6)
    (folder / "001.png").write_bytes(b"nothing")
    data = StudyOwnData(source=str(folder), skip_broken=True)
    cut = Measure(
        ("CLIP score",), "code", lambda images, captions, real: {}, lambda captions: [len(captions) - 1]
    )
    console = Console(file=io.StringIO(), width=1000)
    _warn_of_pictures(console, data, [cut])
    told: Any = console.file
    first, second = told.getvalue().splitlines()
    assert first.startswith(f"warning: left out: 1 picture, e.g.: {folder / '001.png'} is not a picture")
    assert (
        "longer than the CLIP score reads, and compared by their beginning: 1 of 5 captions, e.g. 'a bar in colour 0'"
        in second
    )
