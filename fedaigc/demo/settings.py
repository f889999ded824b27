"""The size of a demo, who takes part in it, and the configuration of its run."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedaigc.federation.config.choices import Backend

if TYPE_CHECKING:
    from fedaigc.federation.config.run_config import FederationConfig

SNR_DB = 12.0
# (style, prompt): the two held-out styles twice. No word list has "doggo": only the model can say what it is like
CAST = (
    ("blob", "a lemon on a table"),
    ("openmoji", "a shiny pear on a table"),
    ("noto", "a pineapple on a table"),
    ("fluent", "a car on a road"),
    ("flat", "a bus on a road"),
    ("emojione", "a horse near a river"),
    ("twemoji", "a doggo near a river"),
    ("blob", "a cactus on a beach"),
)


@dataclass(frozen=True)
class DemoSettings:
    """The size of a demo. The defaults take about four minutes on two cores."""

    output: Path
    seed: int = 0
    rounds: int = 3
    num_images: int = 96
    local_steps: int = 6
    personal_steps: int = 20
    num_inference_steps: int = 11
    ladder: tuple[int, ...] = (1, 2, 3, 4, 5)
    backend: Backend = "ray"
    workers: int = 2
    cast: tuple[tuple[str, str], ...] = CAST


def run_config(settings: DemoSettings) -> "FederationConfig":
    """Return the configuration of the demo's run."""
    # imported here: the command line reads the settings before it needs any of these
    from fedaigc.federation.config.run_config import parse_config
    from fedaigc.semantics.denoiser.shipped import SCENES

    return parse_config(
        {
            "homes": settings.output / "homes",
            "output": settings.output / "federation",
            "seed": settings.seed,
            "num_clients": len(settings.cast),
            "backend": settings.backend,
            "workers": settings.workers,
            "rounds": {"count": settings.rounds},
            "training": {
                "local_steps": settings.local_steps,
                "personal_steps": settings.personal_steps,
            },
            "generation": {
                "num_inference_steps": settings.num_inference_steps,
                "num_shared_steps": settings.ladder[0],
                "delivery": "tolerant",
                "link": {"snr_db": SNR_DB, "max_transmissions": 3},
                "denoiser": {"calibration": str(SCENES), "ladder": list(settings.ladder[1:])},
            },
        }
    )
