"""Validation of train replies: a reply becomes a validated update for the strategy or is refused.

Flower checks the names of arrays but not their shapes, so a rank-1 factor would silently be broadcast into a
rank-4 sum. Here a reply must have exactly the names, shapes, number format and length that the rule expects
of its client, and values and counts within bounds. `update_bounds` checks how far an update moves the state.
"""

import math

import numpy as np
from flwr.app import Array, RecordDict
from torch import Tensor

from fedaigc.bounds import (
    MAX_ARRAY_HEADER_BYTES,
    MAX_EXAMPLES,
    MAX_LOSS,
    MAX_RANK,
    MAX_REASON_CHARACTERS,
    MAX_WEIGHT,
)
from fedaigc.bounds import (
    METRICS as METRIC_NAMES,
)
from fedaigc.errors import Error
from fedaigc.federation.wire.codec import BYTES_PER_VALUE, WireFormat, decode, sums
from fedaigc.federation.wire.flat_arrays import Manifest, array_of
from fedaigc.federation.wire.message_bounds import quoted
from fedaigc.federation.wire.messages import ARRAYS, BODY, CLIENT, FLAT, METRICS, values_of
from fedaigc.strategy.rule import Received, Rule, Update

_KEYS = {"manifest", "format", "scales", CLIENT, "num_examples", "num_steps", "rank"}


class RefusedUpdate(Error, ValueError):
    """A reply that takes no part in the round; the text names the client and both values.

    The text enters the server's record and log, truncated and with the client's own strings escaped.
    """

    def __init__(self, text: str) -> None:
        super().__init__(f"{text:.{MAX_REASON_CHARACTERS}}")


def read_update(
    record: RecordDict, client: int, received: Received, rule: Rule, format: WireFormat, *, num_steps: int
) -> Update:
    """Read and validate the update in a train reply.

    Args:
        record: The reply.
        client: The client that the reply must come from.
        received: What the client was sent.
        rule: The strategy; it states the expected names and shapes.
        format: Expected number format.
        num_steps: Local steps that the client was ordered to take.

    Raises:
        RefusedUpdate: If the reply has another client's id, names or shapes other than the rule expects
            (a wrong rank included), another number format or length, values that are not finite or beyond
            MAX_WEIGHT, a number of steps other than ordered, a number of examples outside 1 to MAX_EXAMPLES,
            or losses with unknown names or outside 0 to MAX_LOSS.
    """
    try:
        values, metrics = values_of(record), values_of(record, METRICS)
        records, arrays = {BODY, ARRAYS, METRICS}, values_of(record, ARRAYS)
        if record.keys() != records or values.keys() != _KEYS or arrays.keys() != {FLAT}:
            raise ValueError("unexpected or missing keys")
        if not metrics.keys() <= set(METRIC_NAMES):
            raise ValueError(f"unexpected metrics: expected some of {', '.join(METRIC_NAMES)}")
        manifest = Manifest.from_json(values["manifest"])
        claimed, num_examples, steps = values[CLIENT], values["num_examples"], values["num_steps"]
        array, rank = arrays[FLAT], values["rank"]
        found, scales = values["format"], values["scales"]
        numbers = {name: float(value) for name, value in metrics.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedUpdate(f"client {client}: the reply is not an update ({error!a:.200})") from None
    if type(claimed) is not int or claimed != client:
        raise RefusedUpdate(f"client {client}: the reply claims to come from client {quoted(claimed)}")
    for what, count, largest in (("examples", num_examples, MAX_EXAMPLES), ("as rank", rank, MAX_RANK)):
        if type(count) is not int or not 1 <= count <= largest:
            raise RefusedUpdate(f"client {client}: {quoted(count)} {what}, expected 1 to {largest}")
    # rules divide by the number of steps: a small claim would enlarge the update
    if type(steps) is not int or steps != num_steps:
        raise RefusedUpdate(f"client {client}: {quoted(steps)} steps, expected {num_steps}")
    try:
        expected = Manifest(tuple(rule.expected(received, rank).items()))
    except (TypeError, ValueError) as error:
        raise RefusedUpdate(f"client {client}: {error}") from None
    _check_manifest(client, manifest, expected)
    if not all(0 <= value <= MAX_LOSS for value in numbers.values()):
        raise RefusedUpdate(f"client {client}: a loss is outside of 0 to {MAX_LOSS:g}")
    if found != format or not isinstance(scales, bytes):
        told = found if type(found) is str and found in BYTES_PER_VALUE else quoted(found)
        raise RefusedUpdate(f"client {client}: number format {told}, expected {format!r}")
    buffer = _read_array(client, array, BYTES_PER_VALUE[format] * expected.num_values)
    try:
        tensors = decode(buffer, expected, format, scales)
    except ValueError as error:
        raise RefusedUpdate(f"client {client}: {error}") from None
    if format != "float32":
        tensors = sums(tensors, received.shared.tensors())
    for name, tensor in tensors.items():
        problem = value_problem(tensor)
        if problem is not None:
            raise RefusedUpdate(f"client {client}: {name} has {problem}")
    return Update(client, num_examples, steps, tensors, rank, numbers)


def value_problem(tensor: Tensor) -> str | None:
    """Describe what is wrong with the values of a weight tensor; None if all lie within +-MAX_WEIGHT."""
    if not tensor.numel():
        return None
    # one pass without a mask as large as the tensor; a NaN makes both values NaN
    least, most = (float(value) for value in tensor.aminmax())
    largest = max(-least, most)
    if largest <= MAX_WEIGHT:
        return None
    if math.isfinite(least) and math.isfinite(most):
        return f"a value of size {largest:.3g}, beyond {MAX_WEIGHT:g}"
    return "values that are not finite"


def _check_manifest(client: int, manifest: Manifest, expected: Manifest) -> None:
    if manifest == expected:
        return
    found, wanted = dict(manifest.entries), dict(expected.entries)
    for name in wanted.keys() - found.keys():
        raise RefusedUpdate(f"client {client}: {name} is missing")
    for name in found.keys() - wanted.keys():
        raise RefusedUpdate(f"client {client}: {name} was not requested")
    for name, shape in wanted.items():
        if found[name] != shape:
            raise RefusedUpdate(f"client {client}: {name} has shape {found[name]}, expected {shape}")
    raise RefusedUpdate(f"client {client}: the tensors are in another order")


def _read_array(client: int, array: object, num_bytes: int) -> np.ndarray:
    if not isinstance(array, Array):
        raise RefusedUpdate(f"client {client}: the reply has no array")
    # the size first, so that an oversized array is never decoded
    if len(array.data) > num_bytes + MAX_ARRAY_HEADER_BYTES:
        raise RefusedUpdate(
            f"client {client}: the array has {len(array.data)} bytes, expected {num_bytes} and a header"
        )
    try:
        return array_of(array.data)
    except (TypeError, ValueError) as error:
        raise RefusedUpdate(f"client {client}: the array cannot be read ({type(error).__name__})") from None
