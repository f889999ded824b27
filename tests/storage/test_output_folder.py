"""An output folder that is filled again: no earlier content is lost until the new content is complete."""

import os
from pathlib import Path

import pytest

from fedaigc.errors import UserError
from fedaigc.storage.output_folder import fresh_folder

MARKER = ".made-by-a-test"


def fill(output: Path, text: str) -> None:
    with fresh_folder(output, MARKER):
        assert [entry.name for entry in output.iterdir()] == [MARKER]
        (output / "picture").write_text(text)


def test_the_new_content_replaces_the_old_when_it_is_whole(tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out"
    fill(output, "first")
    fill(output, "second")
    assert (output / "picture").read_text() == "second"
    assert {entry.name for entry in output.parent.iterdir()} == {"out"}


def test_one_process_at_a_time_fills_a_folder(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with fresh_folder(output, MARKER):
        (output / "picture").write_text("first")
        with pytest.raises(UserError, match="another process fills"):
            fill(output, "second")
    assert (output / "picture").read_text() == "first"


@pytest.mark.parametrize("error", [UserError("no"), KeyboardInterrupt()])
def test_the_old_content_comes_back_when_the_new_fails(tmp_path: Path, error: BaseException) -> None:
    output = tmp_path / "out"
    fill(output, "first")

    def fail() -> None:
        with fresh_folder(output, MARKER):
            (output / "half").touch()
            raise error

    with pytest.raises(type(error)):
        fail()
    assert (output / "picture").read_text() == "first"
    assert not (output / "half").exists()
    assert {entry.name for entry in tmp_path.iterdir()} == {"out"}


def test_what_a_killed_process_set_aside_is_found_by_the_next(tmp_path: Path) -> None:
    output = tmp_path / "out"
    fill(output, "first")
    if not (killed := os.fork()):
        cut = fresh_folder(output, MARKER)
        cut.__enter__()  # and never left, as by SIGKILL
        (output / "half").touch()
        os._exit(0)
    os.waitpid(killed, 0)
    assert (output / "half").exists()
    with pytest.raises(UserError), fresh_folder(output, MARKER):
        raise UserError("no")
    assert (output / "picture").read_text() == "first"
    assert not (output / "half").exists()


def test_another_s_folder_or_file_is_never_touched(tmp_path: Path) -> None:
    output, file = tmp_path / "mine", tmp_path / "file"
    output.mkdir()
    (output / "picture").write_text("mine")
    file.write_text("mine")
    for path, told in ((output, "other files"), (file, "is a file"), (file / "in", "cannot be written")):
        with pytest.raises(UserError, match=told), fresh_folder(path, MARKER):
            pass
    assert (output / "picture").read_text() == file.read_text() == "mine"
