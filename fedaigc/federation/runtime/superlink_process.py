"""Flower's SuperLink as `flower-superlink` starts it, for processes of its own user only.

Everything that connects to it runs as that user: the door, `flwr`, and the processes of ServerApps. Other
users are refused before TLS begins, so they can neither submit a run, nor take a task, nor hold connections
open. It runs as `python -m fedaigc.federation.runtime.superlink_process` with the arguments of
`flower-superlink`.
"""

import socket
import sys

import uvicorn

from fedaigc.errors import UserError
from fedaigc.federation.runtime.own_user import TABLES, is_of_own_user, listeners, users_are_known
from fedaigc.flower_private import (
    SuperLinkLifespan,
    console_handler,
    create_app,
    get_uvicorn_log_config,
    superlink_configuration,
)
from fedaigc.storage.private_files import only_for_this_user


def main() -> None:
    """Serve until SIGTERM.

    Where the system does not report the user of a connection, a simulation runs anyway, open to all users of
    its machine like Flower's own.

    Raises:
        UserError: If the system does not report the user of a connection and this is no simulation.
    """
    only_for_this_user()
    config = superlink_configuration()
    if not users_are_known() and not config.simulation:
        raise UserError(
            f"{TABLES[0]} does not exist: a server needs Linux, which reports the user of each connection"
        )
    admits = is_of_own_user if users_are_known() else _everybody
    settings = uvicorn.Config(
        create_app(config, SuperLinkLifespan),
        log_config=get_uvicorn_log_config(console_handler.level),
        ssl_keyfile=config.ssl_keyfile,
        ssl_certfile=config.ssl_certfile,
        # the listener refuses connections in `accept`, which uvloop does not call
        loop="asyncio",
    )
    server = uvicorn.Server(settings)
    server.run(sockets=listeners(config.host, config.port, admits))
    if not server.started:
        sys.exit("the SuperLink did not start: see above")


def _everybody(connection: socket.socket, address: object) -> bool:
    return True


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
