"""`fedaigc server` and `fedaigc keys`: a federation on separate machines."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedaigc.cli.follow_run import follow_run
from fedaigc.cli.options import Changes, Insecure, NewHomeFolder, Resume, Verbose
from fedaigc.errors import UserError

if TYPE_CHECKING:
    from fedaigc.cli.follow_run import OnLog
    from fedaigc.deployment.server.server import ServerState
    from fedaigc.federation.config.run_config import FederationConfig
    from fedaigc.federation.progress import OnProgress

server_app = typer.Typer(help="A server of devices on other machines.", no_args_is_help=True)
keys_app = typer.Typer(help="Certificates of a server, and the key of a device.", no_args_is_help=True)
Folder = Annotated[Path, typer.Argument(help="The server's folder.")]


@keys_app.command("server")
def server_keys(
    folder: Folder,
    host: Annotated[list[str], typer.Option(help="Name or address that devices use. May be repeated.")],
) -> None:
    """Create a server's authority, certificate and key."""
    from fedaigc.deployment.server.keys import make_server_keys

    typer.echo(f"copy to every device: {make_server_keys(folder, host)}")


@keys_app.command("device")
def device_key(
    home: NewHomeFolder,
) -> None:
    """Create a device's key pair; the private key stays in the home."""
    from fedaigc.deployment.server.keys import make_device_key
    from fedaigc.device.home.home import Home

    typer.echo(f"copy to the server: {make_device_key(Home.open(home).root / 'keys')}")


@server_app.command()
def start(
    folder: Folder,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port for the devices.")] = 9443,
    insecure: Insecure = False,
) -> None:
    """Start the server in the background."""
    from fedaigc.deployment.server.server import start_server

    state = start_server(folder, host, port, insecure=insecure)
    typer.echo(f"listening on {state.host}:{state.port}, process {state.pid}")


@server_app.command()
def status(folder: Folder) -> None:
    """Report whether the server runs, its runs in progress, and which of its devices are online."""
    from fedaigc.deployment.server.clocks import differences, reported
    from fedaigc.deployment.server.roster_file import known_devices, nodes_online
    from fedaigc.deployment.server.runs import going_on
    from fedaigc.deployment.server.server import server_state

    state = server_state(folder)
    typer.echo(
        "not running" if state is None else f"listening on {state.host}:{state.port}, process {state.pid}"
    )
    if state is not None:
        for run_id in sorted(going_on(folder, state)):
            typer.echo(f"run {run_id} is in progress")
    devices = known_devices(folder)
    online = nodes_online(folder, state) if devices and state is not None else set()
    clocks = differences(folder) if state is not None else {}
    for device in devices:
        there = "online" if device.node_id in online else "offline"
        clock = clocks.get(device.key) if device.node_id not in online else None
        wrong = "" if clock is None else f", refused: {reported(clock)}"
        typer.echo(f"client {device.client}: {device.name}, node {device.node_id}, {there}{wrong}")


@server_app.command()
def stop(folder: Folder) -> None:
    """Stop the server. Devices wait and reconnect when it is started again."""
    from fedaigc.deployment.server.server import stop_server

    typer.echo("stopped" if stop_server(folder) else "not running")


@server_app.command()
def add(
    folder: Folder,
    public_key: Annotated[Path, typer.Argument(help="The device's device.key.pub.")],
    name: Annotated[str, typer.Option(help="Name of the device.")],
    client: Annotated[
        int | None, typer.Option(min=0, help="Client number of the device. Default: the next free one.")
    ] = None,
) -> None:
    """Register a device: its key may act for its client and for no other."""
    from fedaigc.deployment.server.roster_file import register_device

    device = register_device(folder, _running(folder), public_key, name, client)
    typer.echo(f"{device.name}: client {device.client}, node {device.node_id}")


@server_app.command()
def run(
    folder: Folder,
    config: Annotated[
        Path, typer.Argument(help="TOML file, as for `fedaigc simulate`. `homes` is not used.")
    ],
    resume: Resume = False,
    changes: Changes = None,
    verbose: Verbose = False,
) -> None:
    """Run the federation of a TOML file on the devices: training rounds, then the waiting prompts."""
    from fedaigc.deployment.server.runs import run_on_devices

    def on_devices(settings: "FederationConfig", progress: "OnProgress", on_log: "OnLog") -> None:
        if settings.generation.enabled and settings.generation.scorer == "clip":
            typer.echo(
                'warning: generation.scorer = "clip": devices on separate machines report no CLIP score; '
                "`fedaigc score` computes it where the pictures are",
                err=True,
            )
        run_on_devices(folder, _running(folder), settings, progress, on_log)

    command = f"fedaigc server run {folder} {config}"
    follow_run(config, on_devices, changes=changes or (), resume=resume, command=command, verbose=verbose)


@server_app.command()
def cancel(folder: Folder) -> None:
    """Stop the run in progress, if any. Its rounds so far are kept, and `run --resume` continues it."""
    from fedaigc.deployment.server.runs import cancel_runs

    ended = cancel_runs(folder, _running(folder))
    typer.echo(f"ended run {', '.join(ended)}" if ended else "no run in progress")


def _running(folder: Path) -> "ServerState":
    from fedaigc.deployment.server.server import server_state

    state = server_state(folder)
    if state is None:
        raise UserError(f"no server is running in {folder}: start it with `fedaigc server start {folder}`")
    return state
