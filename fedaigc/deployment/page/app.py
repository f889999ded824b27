"""The page's application: the routes behind the guard."""

from collections.abc import Callable
from importlib.resources import files
from typing import Annotated

from fastapi import FastAPI, Path, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from fedaigc.deployment.page.guard import Guard
from fedaigc.deployment.page.state import PageState, Status
from fedaigc.device.home.home import Home, note_error
from fedaigc.errors import UserError

_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
TaskId = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]


class NewPrompt(BaseModel):
    """The body of a request that queues a prompt.

    Attributes:
        text: The prompt.
    """

    text: str


def page_app(home: Home, status: Status, *, token: str, port: int) -> Guard:
    """Return the application for one home, behind its guard.

    Args:
        home: Home of the device.
        status: See `PageState`.
        token: Token of the page's address.
        port: Port where the page is served.
    """
    state = PageState(home, status)
    # no API documentation pages: they would load scripts from other hosts
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)

    for path, (name, media_type) in _FILES.items():
        app.get(path)(_sender(name, media_type))

    @app.get("/state.json")
    def read_state() -> Response:
        return Response(state.to_json(), media_type="application/json")

    @app.post("/prompts", status_code=201)
    def add_prompt(prompt: NewPrompt) -> dict[str, str]:
        return {"id": state.queue.add(prompt.text)}

    @app.get("/pictures/{task_id}.png")
    def picture(task_id: TaskId) -> Response:
        return _picture(state, task_id, None)

    @app.get("/pictures/{task_id}/{part}.png")
    def part_of_strip(task_id: TaskId, part: Annotated[int, Path(ge=0, le=9999)]) -> Response:
        return _picture(state, task_id, part)

    @app.exception_handler(UserError)
    def mistaken(request: Request, error: UserError) -> Response:
        return JSONResponse({"error": str(error)}, status_code=422)

    @app.exception_handler(RequestValidationError)
    def misshapen(request: Request, error: RequestValidationError) -> Response:
        # the error itself quotes its input, which may not even be encodable as text
        return JSONResponse({"error": "the prompt is not valid text"}, status_code=422)

    return Guard(app, token=token, port=port, note=lambda text: note_error(home.root, text))


def _sender(name: str, media_type: str) -> Callable[[], Response]:
    content = (files(__package__) / "static" / name).read_bytes()

    def send() -> Response:
        return Response(content, media_type=media_type)

    return send


def _picture(state: PageState, task_id: str, part: int | None) -> Response:
    path = state.gallery.path(task_id, part)
    if state.pictures.version(path) is None:
        return Response(status_code=404)
    return Response(path.read_bytes(), media_type="image/png")
