"""Take screenshots of the device's page for the documentation.

    python -m tools.deployment.page_screenshots FOLDER

Three devices draw prompts in groups with the embedded model, and one of them shows its page with one waiting prompt.
"""

import sys
import tempfile
from pathlib import Path

from PIL import Image

from fedaigc.deployment.page.serving import serving_page
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.federation.config.run_config import parse_config
from fedaigc.federation.runtime.launcher import run_in_process

from .browser import browser

PROMPTS = (
    ("a cactus under a bridge", "a small dog near a river", "a shiny apple on a table"),
    ("a lemon on a table", "a white cat near a river"),
    ("a pear on a table",),
)
WAITING = "a red bird above a mountain"


def drawn_home(folder: Path) -> Home:
    """Return a home with pictures that were drawn in groups and one that was drawn alone."""
    config = parse_config(
        {
            "homes": folder / "homes",
            "output": folder / "out",
            "num_clients": len(PROMPTS),
            "rounds": {"count": 0},
            "generation": {"strip_steps": (0, 3, 5, 7, 9), "executor": "edge"},
        }
    )
    for client, prompts in enumerate(PROMPTS):
        queue = PromptQueue(Home.open(config.home(client), client))
        for prompt in prompts:
            queue.add(prompt)
    run_in_process(config)
    return Home.open(config.home(0))


def main(target: Path) -> None:
    """Write desktop.png and phone.png."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        home = drawn_home(Path(folder))
        PromptQueue(home).add(WAITING)
        with serving_page(home, lambda: {"client": 0, "busy": False}) as url, browser() as page:
            for name, width, phone in (("desktop", 1280, False), ("phone", 390, True)):
                page.resize(width, 900, phone=phone)
                page.open(url)
                page.wait("document.querySelectorAll('#gallery > li').length === 3")
                # images outside the window are otherwise loaded only when they come close to it
                page.value(
                    "document.querySelectorAll('img').forEach((image) => { image.loading = 'eager'; })"
                )
                page.wait("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
                shot = target / f"{name}.png"
                # of the long page on a phone, only the part above the second picture
                end = "document.querySelector('#gallery > li').getBoundingClientRect().bottom + 14"
                page.screenshot(shot, height=page.value(end) if phone else None)
                # a palette reduces the size of the file
                with Image.open(shot) as image:
                    image.convert("RGB").quantize(256).save(shot, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
