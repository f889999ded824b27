"""What the tests of the device's page ask of it, and pictures to show."""

from typing import Any

import httpx
from PIL import Image

from fedaigc.device.home.gallery import Finished, Gallery
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue


def idle() -> dict[str, int | bool]:
    return {"client": 0, "busy": False}


def parts(url: str) -> tuple[int, str]:
    """Return the port and the token in an address."""
    found = httpx.URL(url)
    assert found.port is not None
    return found.port, found.path.strip("/")


def state(url: str) -> dict[str, Any]:
    reply = httpx.get(f"{url}state.json")
    assert reply.status_code == 200
    found: dict[str, Any] = reply.json()
    return found


def finished(home: Home, prompt: str, received_step: int = 3, strip: tuple[int, ...] = (3, 7)) -> str:
    """Put a picture of 11 steps for a new prompt into a home."""
    queue, gallery = PromptQueue(home), Gallery(home)
    task_id = queue.add(prompt)
    for number in range(len(strip)):
        gallery.save_part(task_id, number, Image.new("RGB", (16, 16), (number, 0, 0)))
    entry = Finished(task_id, prompt, received_step, 11, 8, "plan", {}, strip)
    gallery.save(entry, Image.new("RGB", (16, 16), (0, 200, 0)))
    queue.finish(task_id)
    return task_id
