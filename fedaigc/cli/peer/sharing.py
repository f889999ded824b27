"""`fedaigc device share` and `listen`: two paired devices share the first steps of two prompts."""

import signal
import threading
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

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
from fedaigc.cli.peer.pairing import PeerName
from fedaigc.semantics.policy import Policy

if TYPE_CHECKING:
    from fedaigc.deployment.peer.sharing import Outcome

# an announcement is repeated within a second of a question
_FIND_S = 10.0
ComputeSeconds = Annotated[
    float,
    typer.Option(
        callback=number,
        min=1,
        help="Seconds that the other device may take to compare its prompts, and for the shared steps.",
    ),
]


def share(
    home: HomeFolder,
    peer: PeerName,
    to: Annotated[
        str,
        typer.Option(
            help="host:port at which the other device listens. Default: where it announces itself on the local network."
        ),
    ] = "",
    task: Annotated[str | None, typer.Option(help="Task, as listed by `queue`. Default: the oldest.")] = None,
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
    compute_seconds: ComputeSeconds = 600.0,
    threads: Threads = 1,
) -> None:
    """Draw a waiting prompt, its first steps together with a prompt of a paired device; alone if that fails."""
    from fedaigc.deployment.agent.agent import Agent, only_agent
    from fedaigc.deployment.peer.agreement import own_cost
    from fedaigc.deployment.peer.connections import calling, seeking
    from fedaigc.deployment.peer.sharing import Sharer, Terms
    from fedaigc.device.home.home import Home

    existing_home(home)
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
    with only_agent(Home.open(home)):
        agent = Agent(home, settings)
        sharer = Sharer(agent, own_cost() if cost is None else cost, compute_s=compute_seconds)
        connection = calling(sharer, peer, to) if to else seeking(sharer, peer, _FIND_S)
        terms = Terms(steps, shared_steps, guidance, settings.model.height, settings.model.width)
        outcome = sharer.call(connection, terms, task)
    typer.echo(_told(outcome, agent.home.gallery, peer))


def listen(
    home: HomeFolder,
    at: ListenAt,
    announce: Announce = False,
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
    compute_seconds: ComputeSeconds = 600.0,
    max_steps: Annotated[
        int, typer.Option(min=1, help="Most denoising steps that another device may propose.")
    ] = 150,
    max_side: Annotated[
        int, typer.Option(min=8, help="Largest image side that another device may propose, in pixels.")
    ] = 1024,
    threads: Threads = 1,
) -> None:
    """Run the device's agent for the paired devices that call with `share`, until it is stopped."""
    from fedaigc.deployment.agent.agent import Agent, listening
    from fedaigc.deployment.peer import connections
    from fedaigc.deployment.peer.agreement import own_cost
    from fedaigc.deployment.peer.discovery import announced
    from fedaigc.deployment.peer.frames import listening_at
    from fedaigc.deployment.peer.sharing import Sharer
    from fedaigc.device.limits import OwnerLimits

    existing_home(home)
    settings = agent_settings(
        model=model,
        device=device,
        dtype=dtype,
        variant=variant,
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
    limits = OwnerLimits(max_denoising_steps=max_steps, max_image_side=max_side)
    settings = replace(settings, limits=limits)
    with listening_at(at, "--at") as waiting:
        agent = Agent(home, settings)
        sharer = Sharer(agent, own_cost() if cost is None else cost, compute_s=compute_seconds)
        ending = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: ending.set())
        public = announced(sharer.peers, waiting) if announce else nullcontext()
        with listening(agent) as requests, public:
            # `device status` and `device stop`
            threading.Thread(target=requests.serve_forever, daemon=True).start()
            known = ", ".join(name for name, _ in sharer.peers.all()) or "none yet"
            typer.echo(f"listening at {at}; paired devices: {known}")
            connections.listen(
                sharer,
                waiting,
                ending,
                lambda outcome: typer.echo(_told(outcome, agent.home.gallery, outcome.peer)),
            )
            requests.shutdown()


def _told(outcome: "Outcome", gallery: Path, peer: str) -> str:
    """Return the outcome of a sharing in one line."""
    picture = gallery / f"{outcome.task_id}.png"
    if outcome.task_id is None:
        return f"{peer}: not shared, nothing drawn: {outcome.why}"
    if not outcome.executor:
        return f"{peer}: not shared: {outcome.why}; drawn alone: {picture}"
    ran = "this device" if outcome.executor == "own" else peer
    after = f" ({outcome.why})" if outcome.why else ""
    return f"{peer}: shared, the first steps run by {ran}{after}: {picture}"
