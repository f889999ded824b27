"""A Flower grid that runs the client app in this process, for tests and small runs with the same apps."""

from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict, UserConfig
from flwr.serverapp.grid import Grid

from fedaigc.flower_private import ErrorCode, Run
from fedaigc.rng import derived_seed, numpy_rng

SERVER_NODE_ID = 1


class LocalGrid(Grid):
    """A grid of simulated nodes that answer one after the other.

    Node ids are arbitrary numbers, as Flower's are, so that they cannot be mistaken for client ids.

    Args:
        app: The client app.
        num_clients: Number of nodes.
        run_config: Flower's run config.
        run_id: Id of the run.
        shuffle_seed: Seed of a random order in which nodes answer, as in a real network; early replies are
            kept here. None: nodes answer in order.
    """

    def __init__(
        self,
        app: Callable[[Message, Context], Message],
        *,
        num_clients: int,
        run_config: dict[str, str],
        run_id: int,
        shuffle_seed: int | None = None,
    ) -> None:
        self._app = app
        self._run_id = run_id
        self._order = None if shuffle_seed is None else numpy_rng(shuffle_seed, "reply order")
        self._waiting: dict[str, Message] = {}
        self._early: dict[str, Message] = {}
        self._sent = 0
        self._contexts: dict[int, Context] = {}
        for client in range(num_clients):
            node_id = derived_seed(run_id, "node", client)
            node_config: UserConfig = {"partition-id": client, "num-partitions": num_clients}
            self._contexts[node_id] = Context(run_id, node_id, node_config, RecordDict(), dict(run_config))

    def set_run(self, run: Run) -> None:
        """Do nothing: a local grid belongs to one run."""

    @property
    def run(self) -> Run:
        """The run; only its id has a meaning here."""
        return Run.create_empty(self._run_id)

    def create_message(
        self,
        content: RecordDict,
        message_type: str,
        dst_node_id: int,
        group_id: str,
        ttl: float | None = None,
    ) -> Message:
        """Create a message to one node."""
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """Return the ids of all nodes, sorted."""
        return sorted(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        """Keep the messages until their replies are pulled."""
        ids = []
        for message in messages:
            self._sent += 1
            message_id = f"{self._run_id}-{self._sent}"
            # the attribute in which a SuperLink stores it
            message.metadata.__dict__["_message_id"] = message_id
            self._waiting[message_id] = message
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        """Run the wanted nodes or, when shuffling, random nodes until a wanted one has answered.

        Returns:
            One reply, or an empty list if none of these messages awaits a reply.
        """
        wanted = [
            message_id
            for message_id in message_ids
            if message_id in self._waiting or message_id in self._early
        ]
        if not wanted:
            return []
        while not (ready := [message_id for message_id in wanted if message_id in self._early]):
            chosen = wanted[0]
            if self._order is not None:
                chosen = list(self._waiting)[int(self._order.integers(len(self._waiting)))]
            self._early[chosen] = self._answer(self._waiting.pop(chosen))
        return [self._early.pop(ready[0])]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        """Push the messages, then pull until every node has answered."""
        ids = self.push_messages(messages)
        return [reply for _ in ids for reply in self.pull_messages(ids)]

    def _answer(self, message: Message) -> Message:
        context = self._contexts[message.metadata.dst_node_id]
        try:
            return self._app(message, context)
        except (
            Exception
        ) as error:  # as in Flower's simulation, the text of a client's error reaches the server
            return Message(Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, str(error)), reply_to=message)
