"""Files on disks that are full, and on file systems without hard links."""

import errno
import multiprocessing
import os
from pathlib import Path
from typing import Any

import pytest

from fedaigc.storage.atomic_file import write_file, write_new_file

MESSAGES = (errno.EPERM, errno.ENOTSUP)


@pytest.fixture(params=MESSAGES)
def no_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(source: Any, target: Any, **_: Any) -> None:
        raise OSError(request.param, os.strerror(request.param), source, None, target)

    monkeypatch.setattr(os, "link", refused)


@pytest.mark.usefixtures("no_links")
def test_a_new_file_needs_no_hard_links(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert write_new_file(path, b"first")
    assert not write_new_file(path, b"second")
    assert path.read_bytes() == b"first"
    assert {each.name for each in tmp_path.iterdir()} == {"file", ".new.lock"}


def _create(folder: Path, text: bytes, counts: Any) -> None:
    counts.put(sum(write_new_file(folder / str(number), text) for number in range(100)))


@pytest.mark.usefixtures("no_links")
def test_without_hard_links_one_of_several_processes_creates_a_file(tmp_path: Path) -> None:
    context: Any = multiprocessing.get_context("fork")
    counts = context.Queue()
    works = [context.Process(target=_create, args=(tmp_path, text, counts)) for text in (b"a", b"b", b"c")]
    for work in works:
        work.start()
    assert sum(counts.get(timeout=60) for _ in works) == 100
    for work in works:
        work.join()


def test_a_disk_that_is_full_is_told_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_file(path, b"before")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as told:
        write_file(path, b"after")
    assert told.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]
