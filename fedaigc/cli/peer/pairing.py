"""`fedaigc device pair` and `peers`: which devices this one may share with."""

from typing import Annotated

import typer

from fedaigc.cli.options import HomeFolder, existing_home
from fedaigc.errors import UserError
from fedaigc.extras import require_extra

PeerName = Annotated[str, typer.Argument(help="Your name for the other device, such as kitchen.")]


def pair(
    home: HomeFolder,
    peer: PeerName,
    listen: Annotated[
        str,
        typer.Option(help="host:port of this machine at which it waits for the other one, and show a code."),
    ] = "",
    to: Annotated[
        str, typer.Option(help="host:port of the other device, which shows a code to type here.")
    ] = "",
) -> None:
    """Pair with another device by a short code: one waits with --listen, the other one connects with --to."""
    require_extra("peer", "pairings of devices")
    if bool(listen) is bool(to):
        raise UserError("give --listen HOST:PORT on one device, and --to HOST:PORT on the other one")
    from fedaigc.deployment.peer.frames import listening_at
    from fedaigc.deployment.peer.meeting import join_peer, wait_for_peer
    from fedaigc.deployment.peer.pairing import new_code, typed_code

    existing_home(home)
    if listen:
        with listening_at(listen, "--listen") as waiting:
            code = new_code()
            typer.echo(f"code: {code[:3]} {code[3:]}\nwaiting at {listen} for the device where it is typed")
            card = wait_for_peer(home, peer, code, waiting, typer.echo)
    else:
        card = join_peer(home, peer, typed_code(typer.prompt("code that the other device shows")), to)
    typer.echo(f"paired with {peer}, key {card.fingerprint[:16]}: share prompts with `fedaigc device share`")


def peers(
    home: HomeFolder,
    remove: Annotated[str, typer.Option(help="Forget this device: it can no longer connect.")] = "",
) -> None:
    """List the devices that this one is paired with."""
    from fedaigc.deployment.peer.paired import Peers
    from fedaigc.device.home.home import Home

    existing_home(home)
    known = Peers(Home.open(home))
    if remove:
        known.remove(remove)
        typer.echo(f"{remove} is forgotten")
        return
    typer.echo(f"this device: key {known.own().fingerprint[:16]}")
    for name, card in known.all():
        typer.echo(f"{name}: key {card.fingerprint[:16]}")
