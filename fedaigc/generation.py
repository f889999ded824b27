"""`fedaigc generate`: collaborative generation for a few prompts, one device each, without training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedaigc.storage.output_folder import fresh_folder

if TYPE_CHECKING:
    from fedaigc.federation.config.run_config import FederationConfig
    from fedaigc.federation.output.records import RunRecord
    from fedaigc.federation.progress import OnProgress

MARKER = ".fedaigc-generate"


def default_shared_steps(steps: int) -> int:
    """Return the number of shared steps of a plan of `steps` steps, where none is asked for.

    Below 9 steps this is a third of them, and at least one where two or more are taken: with few steps, sharing
    half of them already changes pictures. At least one step is left to each prompt.
    """
    return min(3, max(steps // 3, 1), steps - 1) if steps < 9 else 3


@dataclass(frozen=True)
class GenerateSettings:
    """Settings of `fedaigc generate`.

    Attributes:
        output: Folder for the images.
        seed: Seed of the run.
        model: Values of the configuration's section `model`; None: its defaults.
        generation: Values of the configuration's section `generation`; None: its defaults.
    """

    output: Path
    seed: int = 0
    model: dict[str, Any] | None = None
    generation: dict[str, Any] | None = None

    def config(self, clients: int) -> "FederationConfig":
        """Return the configuration of a run with this number of prompts, one a client.

        Raises:
            UserError: If a setting is wrong.
        """
        from fedaigc.federation.config.run_config import parse_config

        return parse_config(
            {
                "homes": self.output / "homes",
                "output": self.output / "federation",
                "seed": self.seed,
                "num_clients": clients,
                "rounds": {"count": 0},
                "model": self.model or {},
                "generation": self.generation or {},
            }
        )


def run_generate(
    prompts: Sequence[str],
    settings: GenerateSettings,
    progress: "OnProgress | None" = None,
    on_log: "Callable[[str], None] | None" = None,
) -> "RunRecord":
    """Generate one image per prompt, each on its own device.

    Writes 00.png, 01.png, ... into the output folder. Images of an earlier call are replaced once all new
    ones are finished.

    Args:
        prompts: One prompt per device.
        settings: Output folder, seed, model and generation.
        progress: Called with each reply of a device.
        on_log: Called with each line of Flower's log.

    Returns:
        The record of the run.

    Raises:
        UserError: If a prompt is empty or too long, the model is missing, the output folder holds anything else, or a
            prompt could not be drawn; the pictures of an earlier call then stay.
    """
    from fedaigc.device.home.gallery import Gallery
    from fedaigc.device.home.home import Home
    from fedaigc.device.home.prompts import PromptQueue
    from fedaigc.federation.runtime.launcher import simulate
    from fedaigc.rng import derived_seed
    from fedaigc.validation import checked_prompt

    texts = [checked_prompt(prompt) for prompt in prompts]
    output = settings.output
    config = settings.config(len(texts))
    with fresh_folder(output, MARKER):
        homes = [
            Home.open(config.home(client), derived_seed(settings.seed, "device", client))
            for client in range(len(texts))
        ]
        tasks = [PromptQueue(home).add(text) for home, text in zip(homes, texts, strict=True)]
        record = simulate(config, progress, on_log)
        _check_drawn(record, config)
        for client, (home, task) in enumerate(zip(homes, tasks, strict=True)):
            Gallery(home).image(task).save(output / f"{client:02d}.png")
    return record


def _check_drawn(record: "RunRecord", config: "FederationConfig") -> None:
    """Refuse a generation in which a prompt was not drawn, with the reason that its device gives."""
    from fedaigc.errors import UserError
    from fedaigc.federation.server.client_logs import explained

    failed = [(task.client, task.failure) for task in record.tasks if task.failure is not None]
    if failed:
        reason, _ = explained(*failed[0], config)
        raise UserError(f"{len(failed)} of {len(record.tasks)} prompts were not drawn. {reason}")
