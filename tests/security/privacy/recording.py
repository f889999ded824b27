"""The replies of clients as plain data, recorded on the real path through the Flower client app."""

from typing import Any

from flwr.app import ArrayRecord, Message

from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.server_app import initial_shared_state
from tools.leaks.detector import Leak

PROMPTS = ("a gleaming strawberry on a table", "a shiny apple on a table", "a xylophone beneath mahogany")
NUMBER = "ab" * 16


def plain(reply: Message) -> dict[str, Any]:
    """Return everything in a reply as plain data."""
    if reply.has_error():
        return {"error": {"code": reply.error.code, "reason": reply.error.reason}}
    return {name: _plain_record(record) for name, record in reply.content.items()}


def _plain_record(record: Any) -> dict[str, Any]:
    if isinstance(record, ArrayRecord):
        return {
            name: {"dtype": array.dtype, "shape": list(array.shape), "stype": array.stype, "data": array.data}
            for name, array in record.items()
        }
    return dict(record)


class RecordingGrid(LocalGrid):
    """A local grid that records the replies of the clients."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.recorded: list[tuple[str, dict[str, Any]]] = []

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        self.recorded.append((message.metadata.message_type, plain(reply)))
        return reply


def plan_of(config: FederationConfig) -> Any:
    pipe, base_hash = base_model(config.model)
    shared_hash = initial_shared_state(config).hash()
    return build_plan(
        pipe,
        num_inference_steps=3,
        guidance_scale=5.0,
        height=64,
        width=64,
        base_hash=base_hash,
        shared_hash=shared_hash,
    )


def forms(leaks: list[Leak]) -> set[str]:
    return {leak.form for leak in leaks}
