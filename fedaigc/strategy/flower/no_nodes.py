"""A Flower grid without nodes: it drives a strategy through a round, and its messages go nowhere."""

from collections.abc import Iterable
from typing import NoReturn

from flwr.app import Message, RecordDict
from flwr.serverapp.grid import Grid

from fedaigc.flower_private import Run


class NoNodes(Grid):
    """The grid that `configure_train` requires; nothing can be sent over it."""

    def set_run(self, run: Run) -> None:
        """Do nothing."""

    @property
    def run(self) -> Run:
        """An empty run."""
        return Run.create_empty(0)

    def get_node_ids(self) -> list[int]:
        """Return no ids."""
        return []

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> NoReturn:
        """Raise RuntimeError, since there is no node to send to."""
        raise RuntimeError("a grid of no nodes sends nothing")

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Return no message ids."""
        return []

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Return no replies."""
        return []

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Return no replies."""
        return []
