"""`fedaigc generate`: collaborative generation for a few prompts, one device each, without training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedaigc.counting import counted, were
from fedaigc.storage.output_folder import fresh_folder

if TYPE_CHECKING:
    from fedaigc.federation.config.run_config import FederationConfig
    from fedaigc.federation.output.records import RunRecord
    from fedaigc.federation.progress import OnProgress

MARKER = ".fedaigc-generate"


def chosen_steps(steps: int | None, shared_steps: int | None) -> dict[str, Any]:
    """Return the values of the section `generation` for numbers of steps, of which None leaves the default."""
    chosen = {"num_inference_steps": steps, "num_shared_steps": shared_steps}
    return {name: value for name, value in chosen.items() if value is not None}


def node_settings(
    model: str, atlas: Path | None, calibration: Path | None, shared_steps: int | None, **limits: float
) -> dict[str, Any]:
    """Return the values of the section `generation` with which prompts are compared by nodes of an atlas.

    With a calibration, each device takes the last of its hand-offs that the limits allow, from `shared_steps` on.

    Args:
        model: Name of the model.
        atlas: File of the atlas; None: the one that ships with the embedded model, with its calibration.
        calibration: File of the calibration; None with an atlas: all share `shared_steps`.
        shared_steps: The first hand-off; None: the first one that was measured.
        **limits: `tolerance` and `risk`.

    Raises:
        UserError: If a file is missing or damaged, or the calibration has no hand-off from `shared_steps` on.
    """
    from fedaigc.bounds import MAX_LADDER
    from fedaigc.errors import UserError
    from fedaigc.semantics.denoiser.calibration import Calibration
    from fedaigc.semantics.denoiser.shipped import sharing_files

    _, curve = sharing_files(atlas, calibration, model)
    section = {"atlas": atlas, "calibration": calibration, **limits}
    if curve is None:
        return {"denoiser": section} | ({} if shared_steps is None else {"num_shared_steps": shared_steps})
    measured = Calibration.read(curve).handoffs
    offered = [step for step in measured if step >= (shared_steps or 0)]
    if not offered:
        raise UserError(f"{shared_steps} shared steps: the calibration has hand-offs {measured}; share fewer")
    last = len(offered) - 1
    spread = [offered[round(place * last / (MAX_LADDER - 1))] for place in range(MAX_LADDER)]
    first, *ladder = sorted(set(spread))
    return {"num_shared_steps": first, "denoiser": section | {"ladder": ladder}}


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

        generation = self.generation or {}
        return parse_config(
            {
                "homes": self.output / "homes",
                "output": self.output / "federation",
                "seed": self.seed,
                "num_clients": clients,
                "rounds": {"count": 0},
                "model": self.model or {},
                # no adapter is trained here, so no steps are those of a personal one
                "adapter": {"boundary_timestep": None},
                "generation": generation,
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
        count = len(failed)
        raise UserError(
            f"{count} of {counted(len(record.tasks), 'prompt')} {were(count)} not drawn. {reason}"
        )
