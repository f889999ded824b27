"""`fedaigc device cluster`: paired devices share the first steps of their prompts in a round, without an edge."""

from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedaigc.bounds import MAX_CLUSTER_PROMPTS, MAX_ROUND
from fedaigc.cli.options import (
    AtlasOfNodes,
    CalibrationOfNodes,
    DtypeOption,
    Guidance,
    HomeFolder,
    MinCaptions,
    MinPublicPrompts,
    Model,
    Nodes,
    PolicyOption,
    Risk,
    Size,
    Threads,
    Tolerance,
    TorchDevice,
    Variant,
    existing_home,
    number,
)
from fedaigc.cli.peer.options import Announce, Cost, ListenAt, SharedSteps, Steps, agent_settings
from fedaigc.errors import UserError
from fedaigc.semantics.policy import Policy

if TYPE_CHECKING:
    from fedaigc.deployment.cluster.member import Outcome


def cluster(
    home: HomeFolder,
    at: ListenAt,
    other: Annotated[
        list[str],
        typer.Option(
            "--with",
            help="NAME=HOST:PORT of another device, by your name for it; once for each of them. NAME alone finds one "
            "that announces itself on the local network.",
        ),
    ],
    round_number: Annotated[
        int,
        typer.Option(
            "--round",
            min=1,
            max=MAX_ROUND,
            help="Number of the round: the same on all devices, and larger than that of any before.",
        ),
    ],
    announce: Announce = False,
    prompts: Annotated[
        int,
        typer.Option(
            min=1, max=MAX_CLUSTER_PROMPTS, help="How many waiting prompts take part, oldest first."
        ),
    ] = 1,
    steps: Steps = 11,
    shared_steps: SharedSteps = 3,
    guidance: Guidance = 5.0,
    size: Size = None,
    model: Model = "embedded",
    device: TorchDevice = "cpu",
    dtype: DtypeOption = "float32",
    variant: Variant = None,
    policy: PolicyOption = Policy.KIND,
    min_public_prompts: MinPublicPrompts = 3,
    nodes: Nodes = False,
    atlas: AtlasOfNodes = None,
    calibration: CalibrationOfNodes = None,
    min_captions: MinCaptions = 8,
    tolerance: Tolerance = 0.5,
    risk: Risk = 0.2,
    cost: Cost = None,
    collect_seconds: Annotated[
        float, typer.Option(callback=number, min=1, help="Seconds to wait for all devices.")
    ] = 120.0,
    commit_seconds: Annotated[
        float, typer.Option(callback=number, min=1, help="Seconds to wait for all to agree after that.")
    ] = 30.0,
    compute_seconds: Annotated[
        float, typer.Option(callback=number, min=1, help="Seconds to wait for the shared steps after that.")
    ] = 600.0,
    threads: Threads = 1,
) -> None:
    """Draw waiting prompts in a round with other devices that are paired with each other; alone where that fails."""
    from fedaigc.deployment.agent.agent import Agent, only_agent
    from fedaigc.deployment.cluster.links import nowhere
    from fedaigc.deployment.cluster.machine import Waits
    from fedaigc.deployment.cluster.member import Member
    from fedaigc.deployment.peer.agreement import own_cost
    from fedaigc.deployment.peer.discovery import Finder, announced
    from fedaigc.deployment.peer.frames import listening_at
    from fedaigc.deployment.peer.paired import Peers
    from fedaigc.deployment.peer.sharing import Terms
    from fedaigc.device.home.home import Home

    existing_home(home)
    addresses = _addresses(other)
    settings = agent_settings(
        model=model,
        device=device,
        dtype=dtype,
        variant=variant,
        size=size,
        policy=policy,
        min_public_prompts=min_public_prompts,
        nodes=nodes,
        atlas=atlas,
        calibration=calibration,
        min_captions=min_captions,
        tolerance=tolerance,
        risk=risk,
        threads=threads,
    )
    with only_agent(Home.open(home)), listening_at(at, "--at") as listening:
        agent = Agent(home, settings)
        waits = Waits(collect_seconds, commit_seconds, compute_seconds)
        member = Member(agent, own_cost() if cost is None else cost, waits)
        terms = Terms(steps, shared_steps, guidance, settings.model.height, settings.model.width)
        with ExitStack() as stack:
            peers, find = Peers(agent.home), nowhere
            if announce:
                stack.enter_context(announced(peers, listening))
            if not all(addresses.values()):
                find = stack.enter_context(Finder(peers)).addresses
            outcomes = member.take_part(
                round_number, listening, addresses, terms, prompts, partial(typer.echo, err=True), find
            )
        for outcome in outcomes:
            typer.echo(told(outcome, agent.home.gallery))


def _addresses(given: list[str]) -> dict[str, str]:
    """Return host:port by name; "" where a name stands alone."""
    addresses: dict[str, str] = {}
    for text in given:
        name, equals, address = text.partition("=")
        if (equals and not address) or ":" in name:
            raise UserError(
                f"--with {text!r:.100}: expected NAME=HOST:PORT, such as kitchen=192.0.2.7:7400, or NAME"
            )
        if name in addresses:
            raise UserError(f"--with names {name!r:.60} twice: give each device once")
        addresses[name] = address
    return addresses


def told(outcome: "Outcome", gallery: Path) -> str:
    """Return what became of a prompt in one line."""
    picture = gallery / f"{outcome.task_id}.png"
    if outcome.report is None:
        return f"{outcome.task_id}: not drawn: {outcome.why}"
    if not outcome.executor:
        return f"{outcome.task_id}: drawn alone ({outcome.why}): {picture}"
    ran = "this device" if outcome.executor == "own" else outcome.executor
    return f"{outcome.task_id}: shared by {outcome.devices} devices, the first steps run by {ran}: {picture}"
