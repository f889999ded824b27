"""Options and arguments that several commands have, each defined once."""

import math
from pathlib import Path
from typing import Annotated

import typer

from fedaigc.errors import UserError
from fedaigc.federation.config.choices import Dtype
from fedaigc.semantics.policy import Policy


def number(value: float | None) -> float | None:
    """Refuse NaN, which is below no limit and above none."""
    if value is not None and math.isnan(value):
        raise typer.BadParameter("nan is no number")
    return value


NewHomeFolder = Annotated[Path, typer.Argument(help="The device's home. Created if it does not exist.")]
HomeFolder = Annotated[Path, typer.Argument(help="The device's home.")]
Model = Annotated[
    str,
    typer.Option(
        help='"embedded", "embedded-lcm" (for 1 to 4 steps; it only draws), a diffusers folder or a hub name.'
    ),
]
TorchDevice = Annotated[str, typer.Option(help='"cpu", "cuda", or "auto", which selects CUDA if available.')]
DtypeOption = Annotated[Dtype, typer.Option(help="Number format of the model.")]
Size = Annotated[
    int | None,
    typer.Option(min=8, help="Height and width in pixels. Default: the size the model was made for."),
]
Variant = Annotated[
    str | None,
    typer.Option(help='Variant of the weight files, such as "fp16". Default: none, or the only one.'),
]
Steps = Annotated[int, typer.Option(min=1, help="Number N of denoising steps.")]
StepsOfModel = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Number N of denoising steps. Default: 11, or as few as the model is made for (embedded-lcm: 4).",
    ),
]
Guidance = Annotated[float, typer.Option(callback=number, min=0, help="Scale of classifier-free guidance.")]
Threads = Annotated[int, typer.Option(min=1, help="Number of torch threads.")]
Seed = Annotated[int, typer.Option(help="The same seed repeats the result.")]
PolicyOption = Annotated[
    Policy,
    typer.Option(
        help='The most that a device discloses of a prompt (see `disclose`). Under "open", the server receives the '
        "prompt, and the packets of a group reveal one of its prompts to the other members."
    ),
]
MinPublicPrompts = Annotated[
    int,
    typer.Option(
        min=1,
        help="Objects of Scenes (under `general` also places) that must share a signature. 1: no guarantee.",
    ),
]
Nodes = Annotated[
    bool,
    typer.Option(
        "--nodes",
        help="Compare prompts, of any words, by nodes of an atlas and not by concepts; the same on all devices.",
    ),
]
AtlasOfNodes = Annotated[
    Path | None, typer.Option("--atlas", help="Atlas of --nodes. Default: the one that ships with the model.")
]
CalibrationOfNodes = Annotated[
    Path | None,
    typer.Option(
        "--calibration",
        help="File of `calibrate`, by which each device keeps to --tolerance; scenes: the one that ships for captions "
        "of Scenes. Default: with the shipped atlas, the one that ships for captions of any words.",
    ),
]
MinCaptions = Annotated[int, typer.Option(min=1, help="Public captions that must disclose the same node.")]
Tolerance = Annotated[
    float,
    typer.Option(callback=number, min=0, help="Largest damage of a picture, as a share of its latents."),
]
Risk = Annotated[
    float,
    typer.Option(callback=number, min=0, max=1, help="Largest share of pictures beyond the tolerance."),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Use neither TLS nor keys. Only for tests in a closed network.")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Another value for a key of the file: rounds.count=5. Repeatable. Relative paths count from the working "
        "folder.",
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Resume a run after its last complete round, and serve the prompts that wait."
    ),
]
Csv = Annotated[bool, typer.Option("--csv", help="Print CSV with all columns instead of a table.")]
Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose",
        help="Also print settings, torch device, Flower's log, and the files with sizes and hashes.",
    ),
]


def existing_home(home: Path) -> None:
    """Raise UserError if there is no device's home in this folder."""
    if not (home / "device.json").exists():
        raise UserError(
            f"{home} is not a device's home: create one with `fedaigc device add-prompt {home} TEXT`"
        )


def check_nodes(nodes: bool, atlas: Path | None, calibration: Path | None) -> None:
    """Refuse the files of --nodes without it.

    Raises:
        UserError: If one is given.
    """
    if not nodes and not (atlas is None and calibration is None):
        raise UserError("--atlas and --calibration are for --nodes: give that too")
