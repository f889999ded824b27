"""The section `edges`: the edges between the server and the devices of a simulation."""

from collections import Counter
from typing import Annotated

from pydantic import Field

from fedaigc.federation.config.model_config import Section


class EdgesSection(Section):
    """Edges between the server and the devices: two-level aggregation, in simulations.

    Each edge passes the state on to its clients and aggregates their updates; the server aggregates over the edges.
    `fedaigc strategies` marks the strategies for which an edge sends one mean; of others it forwards each update. The
    result is that without edges, up to rounding. With `generation.topology = "edges"` each edge also groups the
    prompts of its own devices and runs their shared steps. Without this section every device talks to the server.

    Attributes:
        count: Number of edges.
        clients: The edge of each client, from 0 to count - 1; None: blocks of consecutive clients, of equal size up to
            one.
        dropout_rate: Share of edges that fail in a round, drawn from the seed: their clients are not reached.
    """

    count: Annotated[int, Field(ge=1)] = 2
    clients: tuple[Annotated[int, Field(ge=0)], ...] | None = None
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def edge_of(self, client: int, num_clients: int) -> int:
        """Return the edge of a client.

        Args:
            client: The client.
            num_clients: Number of clients of the run.
        """
        return client * self.count // num_clients if self.clients is None else self.clients[client]

    def check(self, num_clients: int) -> None:
        """Check that every client has an edge, and every edge a client.

        Raises:
            ValueError: If it is not so.
        """
        if self.count > num_clients:
            raise ValueError(
                f"edges.count is {self.count}: expected at most num_clients, which is {num_clients}"
            )
        if self.clients is None:
            return
        if len(self.clients) != num_clients:
            raise ValueError(
                f"edges.clients has {len(self.clients)} values for {num_clients} clients: give the edge of each client"
            )
        beyond = sorted(set(self.clients) - set(range(self.count)))
        if beyond:
            raise ValueError(
                f"edges.clients names the edges {beyond}: for {self.count} edges expected 0 to {self.count - 1}"
            )
        found = Counter(self.clients)
        idle = [edge for edge in range(self.count) if not found[edge]]
        if idle:
            raise ValueError(
                f"edges.clients gives the edges {idle} no client: expected each of 0 to {self.count - 1} at least once"
            )
