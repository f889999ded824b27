"""The gallery of a device: finished images and how they came about. Nothing of it leaves the device."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image

from fedaigc.device.home import Home


@dataclass(frozen=True)
class Finished:
    """What the gallery keeps beside a picture.

    received_step: the step at which the packet came; 0 when the device ran all steps. report: the counts and
    scores that were told. strip_steps: the steps before which the strip shows the latents.
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

    def save(self, entry: Finished, image: Image.Image, strip: Sequence[Image.Image] = ()) -> None:
        """Keep a picture; a later one for the same task replaces it. The metadata is written last."""
        self._write_png(f"{entry.task_id}.png", image)
        for number, part in enumerate(strip):
            self._write_png(f"{entry.task_id}.strip{number:02d}.png", part)
        self._home.write_json(self._home.gallery / f"{entry.task_id}.json", asdict(entry))

    def all(self) -> list[Finished]:
        """Every entry, by task id."""
        found = [self._home.read_json(path) for path in sorted(self._home.gallery.glob("*.json"))]
        return [Finished(**{**entry, "strip_steps": tuple(entry["strip_steps"])}) for entry in found]

    def image(self, task_id: str) -> Image.Image:
        """The finished picture of a task; FileNotFoundError when there is none."""
        return self._read_png(f"{task_id}.png")

    def strip(self, entry: Finished) -> list[Image.Image]:
        """The decoded latents after each of `entry.strip_steps`."""
        return [self._read_png(f"{entry.task_id}.strip{i:02d}.png") for i in range(len(entry.strip_steps))]

    def _write_png(self, name: str, image: Image.Image) -> None:
        encoded = io.BytesIO()
        image.save(encoded, format="PNG")
        self._home.write(self._home.gallery / name, encoded.getvalue())

    def _read_png(self, name: str) -> Image.Image:
        with Image.open(self._home.gallery / name) as image:
            return image.convert("RGB")
