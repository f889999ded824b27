"""`fedaigc demo`: eight devices train and generate together, and a page shows the results."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fedaigc.demo.settings import DemoSettings, run_config
from fedaigc.federation.stopwatch import Stopwatch
from fedaigc.storage.output_folder import fresh_folder

if TYPE_CHECKING:
    from fedaigc.federation.progress import OnProgress

MARKER = ".fedaigc-demo"


def run_demo(
    settings: DemoSettings,
    progress: "OnProgress | None" = None,
    on_log: "Callable[[str], None] | None" = None,
) -> Path:
    """Run the demo, and replace an earlier demo in the same folder once this one is complete.

    Args:
        settings: Size and place of the demo.
        progress: Called with each step of the run and of the report.
        on_log: Called with each line of Flower's log.

    Returns:
        The path of report.html; record.json next to it holds every figure, and overview.png all images.

    Raises:
        UserError: The folder holds something that is not a demo, or a package is missing.
    """
    # imported here: these import torch, diffusers and Flower
    from fedaigc.demo.pictures import contact_sheet
    from fedaigc.demo.report import draw_report
    from fedaigc.device.provision import SceneClient, provision_scenes
    from fedaigc.federation.config.needs import require_extras
    from fedaigc.federation.runtime.launcher import simulate

    watch = Stopwatch(digits=2)
    start = time.perf_counter()
    output = settings.output
    config = run_config(settings)
    require_extras(config)
    clients = [SceneClient(style, settings.num_images, (prompt,)) for style, prompt in settings.cast]
    with fresh_folder(output, MARKER):
        with watch.timing("pictures"):
            provision_scenes(config.homes, clients, settings.seed)
        with watch.timing("federation"):
            run = simulate(config, progress, on_log)
        with watch.timing("report"):
            report = draw_report(settings, config, run, progress)
        record = report.record | {"seconds": watch.seconds | {"total": round(time.perf_counter() - start, 2)}}
        (output / "record.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        contact_sheet(report.images, report.prompts).save(output / "overview.png", optimize=True)
        report.page.render(record, output / "report.html")
        return output / "report.html"
