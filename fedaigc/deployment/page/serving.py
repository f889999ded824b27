"""Serving the page from a thread of the agent's process, on 127.0.0.1 only."""

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Iterator

import uvicorn

from fedaigc.deployment.page.app import page_app
from fedaigc.deployment.page.state import Status
from fedaigc.device.home.home import Home
from fedaigc.errors import UserError

LOOPBACK = "127.0.0.1"
# file in the home with the page's address and token, for the owner
PAGE_URL = "page.url"
_START_TIMEOUT_S = 30.0
_STOP_TIMEOUT_S = 5


@contextlib.contextmanager
def serving_page(home: Home, status: Status, port: int = 0) -> Iterator[str]:
    """Serve the page of a home, with a new token.

    The address is kept in the home while the page is served.

    Args:
        home: Home of the device.
        status: See `PageState`.
        port: Port on 127.0.0.1; 0: any free port.

    Yields:
        The address with the token.

    Raises:
        UserError: If the port is taken or the page does not start.
    """
    with _listener(port) as listener:
        number = listener.getsockname()[1]
        token = secrets.token_urlsafe(32)
        server = uvicorn.Server(
            uvicorn.Config(
                page_app(home, status, token=token, port=number),
                # no log: its lines would contain the token, and the text of an error may contain a prompt
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_STOP_TIMEOUT_S,
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            _wait_until_started(server, thread)
            url = f"http://{LOOPBACK}:{number}/{token}/"
            home.write(home.root / PAGE_URL, f"{url}\n".encode())
            yield url
        finally:
            forget_page(home)
            server.should_exit = True
            thread.join(2 * _STOP_TIMEOUT_S)


def forget_page(home: Home) -> None:
    """Remove the address of a page that is no longer served."""
    (home.root / PAGE_URL).unlink(missing_ok=True)


def _listener(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # after a quick restart the port may still be in TIME_WAIT
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
    except OSError as error:
        listener.close()
        raise UserError(
            f"port {port} of {LOOPBACK} is not available ({error.strerror}): choose another --page-port, or 0"
        ) from error
    return listener


def _wait_until_started(server: uvicorn.Server, thread: threading.Thread) -> None:
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not server.started:
        if not thread.is_alive() or time.monotonic() > deadline:
            raise UserError("the page did not start: use --no-page to start the agent without it")
        time.sleep(0.01)
