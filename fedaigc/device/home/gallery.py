"""The gallery of a device: finished images and how they were made. Nothing in it leaves the device."""

import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from fedaigc.device.home.home import Home
from fedaigc.errors import DamagedFile


@dataclass(frozen=True)
class Begun:
    """An image that is being drawn, or was when its process ended; see `Finished` for the attributes."""

    task_id: str
    received_step: int
    num_steps: int
    boundary: int
    strip_steps: tuple[int, ...]


@dataclass(frozen=True)
class Finished:
    """What the gallery stores with an image.

    Attributes:
        task_id: Task of the image.
        prompt: Private prompt of the task.
        received_step: Hand-off step of the packet; 0 if the device ran all steps.
        num_steps: Number of steps of the plan.
        boundary: First step on the personal side of t*.
        plan_fingerprint: Fingerprint of the plan.
        report: Counts and scores that were reported.
        strip_steps: Steps before which the strip shows the latents.
    """

    task_id: str
    prompt: str
    received_step: int
    num_steps: int
    boundary: int
    plan_fingerprint: str
    report: Mapping[str, Any]
    strip_steps: tuple[int, ...] = field(default=())


class Gallery:
    """The finished images of one home."""

    def __init__(self, home: Home) -> None:
        self._home = home

    def begin(self, begun: Begun) -> None:
        """Record that an image is being drawn; the parts of its strip follow one by one."""
        for old in self._home.gallery.glob(f"{begun.task_id}.strip*.png"):
            old.unlink(missing_ok=True)
        self._home.write_json(self._begun_path(begun.task_id), asdict(begun))

    def save_part(self, task_id: str, number: int, part: Image.Image) -> None:
        """Store one image of a strip."""
        self._write_png(self.path(task_id, number).name, part)

    def save(self, entry: Finished, image: Image.Image) -> None:
        """Store an image; a later one for the same task replaces it. The metadata is written last."""
        self._write_png(self.path(entry.task_id).name, image)
        self._home.write_json(self._home.gallery / f"{entry.task_id}.json", asdict(entry))
        self._begun_path(entry.task_id).unlink(missing_ok=True)

    def all(self) -> list[Finished]:
        """Return every entry, by task id."""
        return [Finished(**self._fields(path)) for path in sorted(self._home.gallery.glob("*.json"))]

    def readable(self) -> tuple[list[Finished], list[Path]]:
        """Return every entry that can be read, by task id, and the files of those that cannot."""
        entries, damaged = [], []
        for path in sorted(self._home.gallery.glob("*.json")):
            try:
                entry = Finished(**self._fields(path))
                _check(entry, path)
            except (OSError, LookupError, TypeError, ValueError, DamagedFile):
                damaged.append(path)
            else:
                entries.append(entry)
        return entries, damaged

    def begun(self, task_id: str) -> Begun | None:
        """Return the record of an image that is being drawn; None if it is missing or cannot be read."""
        path = self._begun_path(task_id)
        try:
            begun = Begun(**self._fields(path))
            _check(begun, path)
        except (OSError, LookupError, TypeError, ValueError, DamagedFile):
            return None
        return begun

    def path(self, task_id: str, part: int | None = None) -> Path:
        """Return the file of a finished image, or of one part of its strip."""
        name = f"{task_id}.png" if part is None else f"{task_id}.strip{part:02d}.png"
        return self._home.gallery / name

    def image(self, task_id: str) -> Image.Image:
        """Return the finished image of a task.

        Raises:
            FileNotFoundError: If there is none.
        """
        return self._read_png(f"{task_id}.png")

    def strip(self, entry: Finished) -> list[Image.Image]:
        """Return the decoded latents of each of `entry.strip_steps`."""
        return [self._read_png(self.path(entry.task_id, i).name) for i in range(len(entry.strip_steps))]

    def _begun_path(self, task_id: str) -> Path:
        return self._home.gallery / f"{task_id}.begun"

    def _fields(self, path: Path) -> dict[str, Any]:
        fields = self._home.read_json(path)
        return {**fields, "strip_steps": tuple(fields["strip_steps"])}

    def _write_png(self, name: str, image: Image.Image) -> None:
        encoded = io.BytesIO()
        image.save(encoded, format="PNG")
        self._home.write(self._home.gallery / name, encoded.getvalue())

    def _read_png(self, name: str) -> Image.Image:
        with Image.open(self._home.gallery / name) as image:
            return image.convert("RGB")


def _check(entry: Finished | Begun, path: Path) -> None:
    """Raise DamagedFile if the entry does not belong to its file, or its steps are inconsistent."""
    counts = (entry.received_step, entry.num_steps, entry.boundary, *entry.strip_steps)
    sound = all(type(count) is int and count >= 0 for count in counts)
    sound = sound and isinstance(getattr(entry, "prompt", ""), str)
    if not sound or entry.task_id != path.stem or max(entry.received_step, *entry.strip_steps, 0) > counts[1]:
        raise DamagedFile(f"{path} is damaged: restore it from a copy, or remove it")
