"""The only place where strategies meet Flower: replies become validated updates, its strategies become rules.

Flower checks the names of arrays and not their shapes, so that a rank-1 factor is silently broadcast into a
rank-4 sum. Here a reply must have exactly the names, shapes, dtype and length of the shared state's factors,
all finite.
"""

import math
from collections.abc import Mapping

import numpy as np
from flwr.app import Array, ArrayRecord, Message, Metadata, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg
from jaxtyping import Float32
from torch import Tensor, nn

from fedaigc.diffusion.adapters import Adapter, SharedState
from fedaigc.errors import UserError
from fedaigc.federation.arrays import Manifest, unflatten
from fedaigc.federation.messages import ARRAYS, FLAT, METRICS, values_of
from fedaigc.federation.rule import Rule, Update, load_rule, strategy_names

_NPY_HEADER_BYTES = 4096
_MAX_METRICS = 32


class RefusedUpdate(ValueError):
    """A reply that takes no part in the round; the text names the partition and both values."""


def read_update(record: RecordDict, partition: int, expected: Manifest) -> Update:
    """The update in a train reply of `partition`.

    Raises RefusedUpdate for another partition's id, names or shapes other than `expected` (which a wrong rank
    is), another dtype or length, values that are not finite, or counts that are none.
    """
    try:
        values, metrics = values_of(record), values_of(record, METRICS)
        manifest = Manifest.from_json(values["manifest"])
        claimed, num_examples, num_steps = values["partition"], values["num_examples"], values["num_steps"]
        array = values_of(record, ARRAYS)[FLAT]
        numbers = {name: float(value) for name, value in metrics.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedUpdate(f"partition {partition}: the reply is no update ({error!r:.200})") from None
    if claimed != partition:
        raise RefusedUpdate(f"partition {partition}: the reply claims to come from partition {claimed!r}")
    if not all(type(count) is int and count >= 1 for count in (num_examples, num_steps)):
        raise RefusedUpdate(
            f"partition {partition}: {num_examples!r} examples and {num_steps!r} steps, expected 1 or more"
        )
    _check_manifest(partition, manifest, expected)
    if len(numbers) > _MAX_METRICS or not all(math.isfinite(value) for value in numbers.values()):
        raise RefusedUpdate(f"partition {partition}: over {_MAX_METRICS} metrics, or one that is not finite")
    buffer = _decode(partition, array, expected.num_values)
    tensors = unflatten(buffer, expected)
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise RefusedUpdate(f"partition {partition}: {name} holds values that are not finite")
    return Update(partition, num_examples, num_steps, tensors, numbers)


class FlowerStrategy:
    """A Flower strategy as the server half of a rule; the client half is plain training, FedIT's.

    The strategy sees float32 arrays under their layer names, one message a client, in partition order. FedAvg
    on factors under the partition `stage` is FedIT: the two count as one row of a table.
    """

    def __init__(self, strategy: FedAvg, client: Rule) -> None:
        self._strategy = strategy
        self._client = client

    def begin(self, shared: SharedState) -> Adapter:
        """The client trains on from the shared factors."""
        return self._client.begin(shared)

    def loss_term(self, parameters: Mapping[str, nn.Parameter]) -> Tensor | None:
        """Nothing is added to the loss."""
        return self._client.loss_term(parameters)

    def after_step(self, parameters: Mapping[str, nn.Parameter]) -> None:
        """Nothing is corrected."""
        self._client.after_step(parameters)

    def upload(self, trained: Adapter) -> Mapping[str, Tensor]:
        """Both factors of every layer."""
        return self._client.upload(trained)

    def start(self, shared: SharedState) -> None:
        """A new round."""
        self._shared = shared
        self._messages: list[Message] = []

    def add(self, update: Update) -> None:
        """Keep the update as the message that Flower's strategies expect."""
        arrays = ArrayRecord({name: Array(tensor.numpy()) for name, tensor in update.tensors.items()})
        metrics = MetricRecord({**update.metrics, self._strategy.weighted_by_key: update.num_examples})
        content = RecordDict({self._strategy.arrayrecord_key: arrays, METRICS: metrics})
        origin = Metadata(0, "", update.partition, 0, "", "", 0.0, 1.0, "train")
        self._messages.append(Message(content=content, metadata=origin))  # type: ignore[call-overload]

    def finish(self) -> SharedState:
        """What the strategy's `aggregate_train` makes of the round."""
        arrays, _ = self._strategy.aggregate_train(0, self._messages)
        self._messages = []
        if arrays is None:
            return self._shared
        # copy: arrays decoded from bytes are not writable
        means = {name: _tensor(array) for name, array in arrays.items()}
        return self._shared.with_adapter(self._shared.adapter.with_tensors(means))

    def download(self, shared: SharedState, partition: int) -> SharedState:
        """Every client gets the same state."""
        return shared


def load_strategy(name: str) -> Rule:
    """The strategy of a config: "fedavg" is Flower's, every other name a file in `strategies/`.

    Raises UserError, with the names there are, for an unknown one.
    """
    if name == "fedavg":
        return FlowerStrategy(FedAvg(), load_rule("fedit"))
    try:
        return load_rule(name)
    except UserError as error:
        raise UserError(
            f"{error} (or 'fedavg', Flower's own); {len(strategy_names())} files were found"
        ) from None


def _check_manifest(partition: int, manifest: Manifest, expected: Manifest) -> None:
    if manifest == expected:
        return
    found, wanted = dict(manifest.entries), dict(expected.entries)
    for name in wanted.keys() - found.keys():
        raise RefusedUpdate(f"partition {partition}: {name} is missing")
    for name in found.keys() - wanted.keys():
        raise RefusedUpdate(f"partition {partition}: {name} was not asked for")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise RefusedUpdate(f"partition {partition}: {name} has shape {found[name]}, expected {shape}")
    raise RefusedUpdate(f"partition {partition}: the tensors are in another order")


def _decode(partition: int, array: object, length: int) -> Float32[np.ndarray, " n"]:
    if not isinstance(array, Array):
        raise RefusedUpdate(f"partition {partition}: the reply has no array")
    # the size first: what is too long is never decoded
    if len(array.data) > 4 * length + _NPY_HEADER_BYTES:
        raise RefusedUpdate(f"partition {partition}: {len(array.data)} bytes for {length} float32 values")
    try:
        buffer = array.numpy()
    except (TypeError, ValueError, EOFError, OSError) as error:
        raise RefusedUpdate(
            f"partition {partition}: the array cannot be read ({type(error).__name__})"
        ) from None
    if buffer.dtype != np.float32:
        raise RefusedUpdate(f"partition {partition}: the array has dtype {buffer.dtype}, expected float32")
    if buffer.shape != (length,):
        raise RefusedUpdate(
            f"partition {partition}: the array has shape {buffer.shape}, expected ({length},)"
        )
    return buffer


def _tensor(array: Array) -> Tensor:
    import torch

    return torch.from_numpy(array.numpy().astype(np.float32, copy=True))
