"""Options of the commands by which devices share without a server, and the settings that they make."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedaigc.cli.options import check_nodes
from fedaigc.federation.config.choices import Dtype
from fedaigc.semantics.policy import Policy

if TYPE_CHECKING:
    from fedaigc.deployment.agent.agent import AgentSettings

ListenAt = Annotated[str, typer.Option(help="host:port of this machine; 0.0.0.0 for all its addresses.")]
Announce = Annotated[
    bool,
    typer.Option(
        "--announce", help="Let paired devices find this one on the local network, by multicast DNS."
    ),
]
Steps = Annotated[int, typer.Option(min=2, help="Number N of denoising steps.")]
SharedSteps = Annotated[int, typer.Option(min=1, help="Number K of steps that a group shares.")]
Cost = Annotated[
    int | None,
    typer.Option(
        min=0,
        max=100,
        help="What computing costs this device; the one with the lower cost runs the shared steps. Default: what its "
        "battery lacks, in percent; 0 on mains.",
    ),
]


def agent_settings(
    *,
    model: str,
    device: str,
    dtype: Dtype,
    variant: str | None,
    size: int | None = None,
    policy: Policy,
    min_public_prompts: int,
    nodes: bool,
    atlas: Path | None,
    calibration: Path | None,
    min_captions: int,
    tolerance: float,
    risk: float,
    threads: int,
) -> "AgentSettings":
    """Return the settings of a device's agent from the options of a command.

    Raises:
        UserError: For a model that no section of a run can name, or files of nodes without nodes.
    """
    from fedaigc.deployment.agent.agent import AgentSettings
    from fedaigc.federation.config.run_config import ModelSection
    from fedaigc.semantics.denoiser.shipped import sharing_files
    from fedaigc.validation import validated

    check_nodes(nodes, atlas, calibration)
    if nodes:
        atlas, calibration = sharing_files(atlas, calibration, model)
    sides = {} if size is None else {"height": size, "width": size}
    values = {"name": model, "device": device, "dtype": dtype, "variant": variant} | sides
    return AgentSettings(
        0,
        validated(ModelSection, values, "the model"),
        policy,
        min_public_prompts,
        threads=threads,
        atlas=atlas,
        calibration=calibration,
        min_captions=min_captions,
        tolerance=tolerance,
        risk=risk,
    )
