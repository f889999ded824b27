"""Access control of the page: the token and this machine's name, and no changes from other pages.

The token is the first part of every path and is not in a cookie: a browser sends cookies of 127.0.0.1 to
every port of it, and automatically, so that another page could use them.
"""

import secrets
import traceback
from collections.abc import Callable
from typing import Final

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fedaigc.bounds import MAX_PAGE_BODY_BYTES

_READING = ("GET", "HEAD")
HEADERS: Final = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """An ASGI application in front of the page's: it refuses a request or passes it on without the token.

    Args:
        app: The application of the page.
        token: Token of the page's address.
        port: Port where the page is served.
        note: Keeps the text of an error, which may quote a prompt.
    """

    def __init__(self, app: ASGIApp, *, token: str, port: int, note: Callable[[str], None]) -> None:
        self._app = app
        self._token = token.encode()
        # against DNS rebinding: a foreign name that resolves to 127.0.0.1 is not in this set
        self._hosts = {f"127.0.0.1:{port}".encode(), f"localhost:{port}".encode()}
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; requests other than HTTP are not answered."""
        if scope["type"] != "http":
            return
        begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                kept = [(name, value) for name, value in message["headers"] if name.decode() not in HEADERS]
                message = {**message, "headers": kept + added}
            await send(message)

        status, path = self._checked(scope)
        if status is not None:
            refusal = PlainTextResponse(_REFUSALS[status], status_code=status)
            await refusal(scope, receive, send_with_headers)
            return
        try:
            inner = {**scope, "path": path, "raw_path": path.encode(), "root_path": ""}
            await self._app(inner, receive, send_with_headers)
        except Exception:
            self._note(traceback.format_exc())
            if not begun:
                failed = PlainTextResponse("internal error: see errors.log in the home\n", status_code=500)
                await failed(scope, receive, send_with_headers)

    def _checked(self, scope: Scope) -> tuple[int | None, str]:
        """Return the status of a refusal, or None and the path after the token."""
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        hosts = [value for name, value in headers if name == b"host"]
        _, given, *rest = scope["path"].split("/", 2) if scope["path"].startswith("/") else ("", "")
        known = secrets.compare_digest(given.encode(errors="surrogatepass"), self._token)
        if not known or len(hosts) != 1 or hosts[0].lower() not in self._hosts:
            return 403, ""
        origins = [value for name, value in headers if name == b"origin"]
        if scope["method"] not in _READING and any(origin != b"http://" + hosts[0] for origin in origins):
            return 403, ""
        lengths = [value for name, value in headers if name == b"content-length"]
        if any(name == b"transfer-encoding" for name, _ in headers):
            return 411, ""
        if any(not length.isdigit() or int(length) > MAX_PAGE_BODY_BYTES for length in lengths):
            return 413, ""
        if not scope["path"].isprintable():
            return 400, ""
        # without the trailing slash the page's relative links would lose the token
        return None, "/" + rest[0] if rest else "/no-slash"


_REFUSALS = {
    403: "403: `fedaigc device page HOME` prints the address of this page\n",
    400: "400: invalid path\n",
    411: "411: Content-Length is required\n",
    413: "413: the request body is too large\n",
}
