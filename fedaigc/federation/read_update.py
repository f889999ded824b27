"""The door between Flower's messages and strategies: a reply becomes a validated update or is refused.

Flower checks the names of arrays and not their shapes, so that a rank-1 factor is silently broadcast into a
rank-4 sum. Here a reply must have exactly the names, shapes, number format and length that the rule expects
of its client, all finite.
"""

import math

import numpy as np
from flwr.app import Array, RecordDict

from fedaigc.federation.arrays import Manifest, array_of
from fedaigc.federation.messages import ARRAYS, FLAT, METRICS, values_of
from fedaigc.federation.rule import Received, Rule, Update
from fedaigc.federation.wire import BYTES_PER_VALUE, Format, decode, sums

_NPY_HEADER_BYTES = 4096
_MAX_METRICS = 32


class RefusedUpdate(ValueError):
    """A reply that takes no part in the round; the text names the partition and both values."""


def read_update(record: RecordDict, partition: int, received: Received, rule: Rule, format: Format) -> Update:
    """The update in the train reply of `partition`, which had `received`.

    Raises RefusedUpdate for another partition's id, names or shapes other than the rule expects (which a
    wrong rank is), another number format or length, values that are not finite, or counts that are none.
    """
    try:
        values, metrics = values_of(record), values_of(record, METRICS)
        manifest = Manifest.from_json(values["manifest"])
        claimed, num_examples, num_steps = values["partition"], values["num_examples"], values["num_steps"]
        array, rank = values_of(record, ARRAYS)[FLAT], values["rank"]
        found, scales = values["format"], values["scales"]
        numbers = {name: float(value) for name, value in metrics.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise RefusedUpdate(f"partition {partition}: the reply is no update ({error!r:.200})") from None
    if claimed != partition:
        raise RefusedUpdate(f"partition {partition}: the reply claims to come from partition {claimed!r}")
    if not all(type(count) is int and count >= 1 for count in (num_examples, num_steps)):
        raise RefusedUpdate(
            f"partition {partition}: {num_examples!r} examples and {num_steps!r} steps, expected 1 or more"
        )
    try:
        expected = Manifest(tuple(rule.expected(received, rank).items()))
    except (TypeError, ValueError) as error:
        raise RefusedUpdate(f"partition {partition}: {error}") from None
    _check_manifest(partition, manifest, expected)
    if len(numbers) > _MAX_METRICS or not all(math.isfinite(value) for value in numbers.values()):
        raise RefusedUpdate(f"partition {partition}: over {_MAX_METRICS} metrics, or one that is not finite")
    if found != format or not isinstance(scales, bytes):
        raise RefusedUpdate(f"partition {partition}: number format {found!r:.50}, expected {format!r}")
    buffer = _read_array(partition, array, BYTES_PER_VALUE[format] * expected.num_values)
    try:
        tensors = decode(buffer, expected, format, scales)
    except ValueError as error:
        raise RefusedUpdate(f"partition {partition}: {error}") from None
    if format != "float32":
        tensors = sums(tensors, received.shared.tensors())
    for name, tensor in tensors.items():
        # a finite sum has finite terms: one pass without a mask as large as the tensor
        if not math.isfinite(tensor.sum().item()) and not bool(tensor.isfinite().all()):
            raise RefusedUpdate(f"partition {partition}: {name} holds values that are not finite")
    return Update(partition, num_examples, num_steps, tensors, rank, numbers)


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


def _read_array(partition: int, array: object, num_bytes: int) -> np.ndarray:
    if not isinstance(array, Array):
        raise RefusedUpdate(f"partition {partition}: the reply has no array")
    # the size first: what is too long is never decoded
    if len(array.data) > num_bytes + _NPY_HEADER_BYTES:
        raise RefusedUpdate(f"partition {partition}: {len(array.data)} bytes for values of {num_bytes}")
    try:
        return array_of(array.data)
    except (TypeError, ValueError) as error:
        raise RefusedUpdate(
            f"partition {partition}: the array cannot be read ({type(error).__name__})"
        ) from None
