"""A federation in this process in which one device, or all, change their replies."""

from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict

from fedaigc.federation.client.client_app import app
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import RunRecord, read_record
from fedaigc.federation.runtime.launcher import in_process_run
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.server_app import serve
from fedaigc.federation.wire.flat_arrays import array_of, flatten
from fedaigc.federation.wire.messages import ARRAYS, BODY, FLAT, METRICS, read_train, values_of

# reply, client, kind of the order, content of the order
Change = Callable[[RecordDict, int, str, RecordDict], RecordDict]
Vectors = Callable[[np.ndarray, np.ndarray], np.ndarray]


class HostileGrid(LocalGrid):
    """Passes every reply through `change`."""

    change: Change

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        client = int(self._contexts[message.metadata.dst_node_id].node_config["partition-id"])
        content = self.change(reply.content, client, message.metadata.message_type, message.content)
        return Message(content, reply_to=message)


def run_with(config: FederationConfig, change: Change) -> RunRecord:
    """Carry a run out and return its record."""
    with in_process_run(config) as run_id:
        grid = HostileGrid(
            app, num_clients=config.num_clients, run_config=config.to_run_config(), run_id=run_id
        )
        grid.change = change
        serve(grid, config)
    return read_record(config.output)


def with_values(content: RecordDict, **values: object) -> RecordDict:
    content[BODY] = ConfigRecord({**values_of(content), **values})  # type: ignore[dict-item]
    return content


def with_loss(content: RecordDict, loss: float) -> RecordDict:
    content[METRICS] = MetricRecord({"shared_loss": loss})
    return content


def with_weights(content: RecordDict, order: RecordDict, vectors: Vectors) -> RecordDict:
    """Send `vectors(x, y)`, a function of the received and the trained weights."""
    received, trained = flatten(read_train(order).shared.tensors()), values_of(content, ARRAYS)[FLAT].data
    sent = vectors(received, array_of(trained)).astype(np.float32)
    content[ARRAYS] = ArrayRecord({FLAT: Array(sent)})
    return content
