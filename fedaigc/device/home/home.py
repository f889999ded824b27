"""The home of a device: one folder that any process can reopen, readable by its owner only.

Layout::

    device.json             format and the seed of this device's own random streams
    images/                 captions.jsonl and NNNNNN.png or .jpg: the private images
    prompts/                NNNNNN-<task id>.json: the queue, one file per task
    adapters/rounds/        <run>/<round>.safetensors: the personal adapter after each round
    adapters/current.json   which of them is in use
    adapters/shared/        <hash>.safetensors: the shared states that the federation sent
    gallery/                <task id>.png and <task id>.json: finished images; .stripNN.png: their strips
    shared_work/            the shared steps that this device ran for its groups
    sums/                   the sums of conditionings that this device was asked into
    disclosures.jsonl       what was disclosed of each prompt
    ledger.jsonl            how much that was, in bits and epsilon, over all prompts
    budget.json             how much it may be within a day, for this home
    agent_budget.json       the same, by the options of the latest agent
    task_names.json         the latest names of prompts of which nothing was disclosed
    cache/                  latents and text embeddings of the private images
    peers/                  keys of this device for other devices, and the devices that it is paired with
    training.json           how much servers had this device train: rounds, and images with repetition
    errors.log              full error messages; only the kind of an error leaves the device
"""

import contextlib
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from filelock import lock_descriptor
from pydantic import ValidationError

from fedaigc.bounds import MAX_NOTE_CHARACTERS
from fedaigc.errors import DamagedFile, UserError
from fedaigc.storage.atomic_file import json_bytes, sync_folder, write_file, write_new_file
from fedaigc.storage.file_lock import locked
from fedaigc.storage.private_files import PRIVATE_FILE, PRIVATE_FOLDER
from fedaigc.validation import typed_json

FORMAT = 2
OWNER_FILE = PRIVATE_FILE
OWNER_FOLDER = PRIVATE_FOLDER
ERROR_LOG = "errors.log"
# in a home: held by its agent; in a folder of homes: held by a run of a simulation
AGENT_LOCK = "agent.lock"
RUN_LOCK = ".run.lock"
MAX_LOG_BYTES = 1_000_000
Value = TypeVar("Value")


@dataclass(frozen=True)
class _Marker:
    format: int
    seed: int
    seeded: bool = True


def home_of(homes: Path, client: int) -> Path:
    """Return the home of a client's device in a simulation: homes/00, homes/01, and so on."""
    return homes / f"{client:02d}"


class Home:
    """Paths of a device's folder, and the only functions that write to it.

    Every write is atomic: a process that dies leaves either the old content or the new, never a part of it.
    Files have mode 0600 and folders 0700, whatever the umask.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "images"
        self.prompts = root / "prompts"
        self.adapters = root / "adapters"
        self.gallery = root / "gallery"
        self.cache = root / "cache"

    @classmethod
    def open(cls, root: Path, seed: int | None = None) -> "Home":
        """Open the home at `root`, or create it if it does not exist.

        A home of an earlier format is upgraded.

        Args:
            root: Folder of the home.
            seed: Seed of the random streams of a new home (training, task ids), which makes a simulation
                repeatable. None draws it from the operating system; a simulation then trains with a seed that
                follows from its own, see `seeded`. An existing home keeps its seed.

        Raises:
            UserError: If `root` is a file, a folder of something else or a home of another format, or `seed`
                differs from the seed of the existing home.
        """
        home = cls(root)
        marker = root / "device.json"
        if root.exists() and not root.is_dir():
            raise UserError(f"{root} is a file; a device's home is a folder: give another path")
        if root.is_dir() and not marker.exists() and any(root.iterdir()):
            raise UserError(f"{root} is not empty and not a device's home: give a new or an empty folder")
        home.folder(root)
        for path in (home.images, home.prompts, home.adapters, home.gallery, home.cache):
            home.folder(path)
        first = {"format": FORMAT, "seed": secrets.randbits(62) if seed is None else seed}
        home.write_new_json(marker, first if seed is not None else {**first, "seeded": False})
        found = home.read(marker, _Marker)
        if found.format == 1:
            # imported here: torch takes seconds to load, and a new home has nothing to upgrade
            from fedaigc.device.home.upgrade import upgrade_from_1

            with locked(root / ".upgrade"):
                upgrade_from_1(root)
                found = replace(found, format=FORMAT)
                home.write_json(marker, asdict(found))
        if found.format != FORMAT:
            raise UserError(f"{root} has home format {found.format}, this version reads {FORMAT}")
        if seed is not None and found.seed != seed:
            raise UserError(f"{root} was made with seed {found.seed}, not {seed}: use another folder")
        return home

    @property
    def seed(self) -> int:
        """Seed of this device's own random streams; it never leaves the device."""
        return self.read(self.root / "device.json", _Marker).seed

    @property
    def seeded(self) -> bool:
        """Whether the home was made with a given seed, rather than with one from the operating system."""
        return self.read(self.root / "device.json", _Marker).seeded

    def folder(self, path: Path) -> Path:
        """Create the folder `path` and its parents inside the home, for the owner only."""
        missing = [parent for parent in (path, *path.parents) if not parent.exists()]
        for parent in reversed(missing):
            parent.mkdir(mode=OWNER_FOLDER, exist_ok=True)
        # the umask applies to the mode of mkdir, and an older folder may be open to others
        path.chmod(OWNER_FOLDER)
        return path

    def changing(self, what: str) -> AbstractContextManager[None]:
        """Hold the right to read and then write a part of the home, such as "images"; others wait."""
        return locked(self.root / f".{what}.lock")

    def write(self, path: Path, data: bytes) -> None:
        """Replace the content of `path` with `data`, atomically and durably."""
        write_file(path, data, OWNER_FILE)

    def write_new(self, path: Path, data: bytes) -> bool:
        """Create `path` with `data`; if it already exists, write nothing and return False."""
        return write_new_file(path, data, OWNER_FILE)

    def append_line(self, path: Path, line: bytes) -> int:
        """Append a line durably.

        An incomplete last line, which a process left when it died, is removed first.

        Args:
            path: File to append to.
            line: Line that ends in a line break.

        Returns:
            Size of the file before the line.
        """
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, OWNER_FILE)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            lock_descriptor(descriptor)
            size = file.seek(0, os.SEEK_END)
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                size = path.read_bytes().rfind(b"\n") + 1
                file.truncate(size)
            file.write(line)
            os.fsync(descriptor)
        if not size:
            sync_folder(path.parent)
        return size

    def write_json(self, path: Path, value: Any) -> None:
        """Write `value` as JSON with sorted keys, atomically."""
        self.write(path, json_bytes(value))

    def write_new_json(self, path: Path, value: Any) -> bool:
        """Create `path` with `value` as JSON; if it already exists, write nothing and return False."""
        return self.write_new(path, json_bytes(value))

    def read_json(self, path: Path) -> Any:
        """Return the JSON value in `path`.

        Raises:
            DamagedFile: If the content is not JSON.
        """
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise _damaged(path) from None

    def read(self, path: Path, kind: type[Value]) -> Value:
        """Return the value in `path`, a JSON file of exactly the types of `kind`.

        Raises:
            DamagedFile: If the content is anything else.
        """
        try:
            return typed_json(kind, path.read_bytes())
        except ValidationError:
            raise _damaged(path) from None


@contextlib.contextmanager
def kept_if_used(root: Path) -> Iterator[None]:
    """Remove a home that the block created if it fails with a `UserError` and nothing was put into the home."""
    new, folder_was_there = not (root / "device.json").exists(), root.exists()
    try:
        yield
    except UserError:
        if new and (root / "device.json").exists():
            _remove_empty(Home(root), folder=not folder_was_there)
        raise


def _remove_empty(home: Home, *, folder: bool) -> None:
    parts = (home.images, home.prompts, home.adapters, home.gallery, home.cache)
    removed = []
    try:
        for part in parts:
            part.rmdir()  # fails if another process has put something there meanwhile
            removed.append(part)
    except OSError:
        for part in removed:
            home.folder(part)
        return
    for file in home.root.iterdir():
        if file.name == "device.json" or (file.name.startswith(".") and file.name.endswith(".lock")):
            file.unlink()
    if folder:
        with contextlib.suppress(OSError):
            home.root.rmdir()


def _damaged(path: Path) -> DamagedFile:
    return DamagedFile(f"{path} is damaged: restore it from a copy, or remove it")


def note_error(root: Path, text: str) -> None:
    """Append the text of an error to errors.log of the home at `root`, for its owner to read.

    The text may quote a prompt, so the file is readable by the owner only. Beyond a megabyte the log starts
    anew, and one older file is kept. Nothing happens if the home does not exist or cannot be written to. A
    long text loses its middle. Characters that no terminal should receive are escaped, since another machine
    may have written the text.
    """
    path = root / ERROR_LOG
    if len(text) > MAX_NOTE_CHARACTERS:
        half = MAX_NOTE_CHARACTERS // 2
        text = f"{text[:half]}\n[{len(text) - 2 * half} characters left out]\n{text[-half:]}"
    text = "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)
    with contextlib.suppress(OSError):
        if path.exists() and path.stat().st_size > MAX_LOG_BYTES:
            os.replace(path, root / "errors.old.log")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, OWNER_FILE)
        with os.fdopen(descriptor, "a", encoding="utf-8") as file:
            file.write(text)
