"""The gallery and the log of shared work: a damaged entry does not affect the others."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fedaigc.device.home.gallery import Begun, Finished, Gallery
from fedaigc.device.home.home import Home
from fedaigc.device.shared_work import SharedWork, SharedWorkLog

ENTRY = Finished("0" * 16, "an apple on a table", 3, 11, 8, "plan", {}, (3, 7))


@pytest.fixture
def gallery(tmp_path: Path) -> Gallery:
    return Gallery(Home.open(tmp_path))


@pytest.mark.parametrize(
    "wrong",
    [
        {"task_id": "another"},
        {"num_steps": "11"},
        {"num_steps": 2},
        {"received_step": -1},
        {"received_step": True},
        {"strip_steps": (3, 12)},
        {"strip_steps": None},
        {"prompt": 5},
        {"more": 1},
    ],
)
def test_an_entry_that_makes_no_sense_is_named_and_the_others_are_read(
    gallery: Gallery, wrong: dict[str, Any]
) -> None:
    gallery.save(ENTRY, Image.new("RGB", (8, 8)))
    name = "1" * 16
    path = gallery._home.gallery / f"{name}.json"
    gallery._home.write_json(path, {**asdict(replace(ENTRY, task_id=name)), **wrong})
    assert gallery.readable() == ([ENTRY], [path])


def test_a_picture_that_was_begun_is_known_until_it_is_finished(gallery: Gallery) -> None:
    begun = Begun(ENTRY.task_id, 3, 11, 8, (3, 7))
    assert gallery.begun(ENTRY.task_id) is None
    gallery.begin(begun)
    gallery.save_part(ENTRY.task_id, 0, Image.new("RGB", (8, 8)))
    assert Gallery(gallery._home).begun(ENTRY.task_id) == begun
    # begun again, the parts of the first time are gone
    gallery.begin(begun)
    assert not gallery.path(ENTRY.task_id, 0).exists()
    gallery.save(ENTRY, Image.new("RGB", (8, 8)))
    assert gallery.begun(ENTRY.task_id) is None


def test_shared_work_is_counted_order_by_order(tmp_path: Path) -> None:
    log = SharedWorkLog(Home.open(tmp_path))
    assert log.readable() == ([], [])
    for steps in (3, 3, 2):
        log.add(SharedWork("0" * 16, steps))
    damaged = tmp_path / "shared_work" / "000001.json"
    damaged.write_text('{"task_id": "0000000000000000", "steps": -3}')
    found, files = log.readable()
    assert [work.steps for work in found] == [3, 2]
    assert files == [damaged]
    log.add(SharedWork("0" * 16, 5))
    assert [work.steps for work in log.readable()[0]] == [3, 2, 5]
