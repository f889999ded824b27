"""A Flower grid of no nodes: a strategy is led through a round, and its messages go nowhere."""

from collections.abc import Iterable
from typing import NoReturn

from flwr.app import Message, RecordDict
from flwr.serverapp.grid import Grid

from fedaigc.flower_private import Run


class NoNodes(Grid):
    """What `configure_train` asks for; nothing can be sent over it."""

    def set_run(self, run: Run) -> None:
        """Nothing to do."""

    @property
    def run(self) -> Run:
        """A run that is none."""
        return Run.create_empty(0)

    def get_node_ids(self) -> list[int]:
        """None."""
        return []

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> NoReturn:
        """There is nobody to write to."""
        raise RuntimeError("a grid of no nodes sends nothing")

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """The messages of no nodes."""
        return []

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """No replies."""
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """No replies."""
        return []
