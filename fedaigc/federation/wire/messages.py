"""Messages between the server and the clients, as Flower records.

Every message holds a few records of named values. The content of a client's replies is a closed list, which the
readers enforce: docs/threats.md has it, reply by reply ("What a device sends").
"""

import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from torch import Tensor

from fedaigc.device.replies import Failure
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.federation.wire.codec import BYTES_PER_VALUE, WireFormat, decode, differences, encode
from fedaigc.federation.wire.flat_arrays import Manifest, array_of, manifest_of
from fedaigc.federation.wire.message_bounds import (
    checked,
    state_header,
)
from fedaigc.strategy.rule import Received, Update

BODY = "body"
ARRAYS = "arrays"
METRICS = "metrics"
FAILURE = "failure"
FLAT = "flat"
PADDING = "padding"
_EXTRA = "extra/"
# key of the client number; Flower calls it partition
CLIENT = "partition"
# the values of a message beside its array
TENSOR_VALUES: Mapping[str, type] = {"manifest": str, "format": str, "scales": bytes}
# the part of an order for one client only: key in the message, type, and field of `ClientOrder`
_OWN: Mapping[str, tuple[type, str]] = {
    "shared_steps": (int, "local_steps"),  # the name of older devices; not the steps of a packet
    "upload_seed": (int, "upload_seed"),
    "dropped_out": (bool, "dropped_out"),
}


class Ask(StrEnum):
    """The message types that a client answers.

    A new one needs: a record and its strict reader here; a handler in `client.handlers`; what the owner allows
    (`device.limits`); the floor of reply times, if the reply may depend on private data (`deployment.agent`);
    its row in docs/threats.md ("What a device sends"); and its place in `tools.deployment.decoding`, in
    `tests/security/test_message_bounds.py`, in the runs that `tests/security/privacy` and
    `tests/deployment/test_capture.py` or `test_sharing_capture.py` record, and in `experiments/privacy/fuzz.py`.
    Door, relay and client app carry it without change.
    """

    HELLO = "query.hello"
    TRAIN = "train"
    INSTALL = "query.install"
    SIGNATURES = "query.signatures"
    KEYS = "query.keys"
    MASKED = "query.masked"
    BLIND = "query.blind"
    EQUAL = "query.equal"
    TWINS = "query.twins"
    OFFER = "query.offer"
    SHARE = "query.share"
    FINISH = "query.finish"


def body(**values: Any) -> RecordDict:
    """Return a message of named scalars, bytes, or lists of one of these."""
    return RecordDict({BODY: ConfigRecord(values)})


def values_of(record: RecordDict, name: str = BODY) -> dict[str, Any]:
    """Return the named values of a message; the caller checks types. KeyError if the record is missing."""
    return dict(record[name])


def failure(kind: Failure) -> RecordDict:
    """Return the reply for a client's error; only its kind crosses the boundary."""
    return RecordDict({FAILURE: ConfigRecord({"kind": kind.value})})


def failure_in(record: RecordDict) -> Failure | None:
    """Return the kind of error in a reply, or None. ValueError for a kind that is not in the list."""
    return Failure(values_of(record, FAILURE)["kind"]) if FAILURE in record else None


def tensors_record(
    tensors: Mapping[str, Tensor],
    format: WireFormat = "float32",
    random: np.random.Generator | None = None,
    **values: Any,
) -> RecordDict:
    """Return a message with tensors as one flat array, their manifest and format, and further values."""
    array, scales = encode(tensors, format, random)
    record = body(manifest=manifest_of(tensors).to_json(), format=format, scales=scales, **values)
    record[ARRAYS] = ArrayRecord({FLAT: Array(array)})
    return record


def read_tensors(record: RecordDict) -> dict[str, Tensor]:
    """Invert `tensors_record`. ValueError if array, manifest and format disagree."""
    values, arrays = values_of(record), values_of(record, ARRAYS)
    if arrays.keys() != {FLAT} or not isinstance(arrays[FLAT], Array):
        raise ValueError("invalid message: expected exactly one array")
    array = array_of(arrays[FLAT].data)
    if values["format"] not in BYTES_PER_VALUE:
        raise ValueError(
            f"number format {values['format']!r:.40}: expected one of {', '.join(BYTES_PER_VALUE)}"
        )
    return decode(array, Manifest.from_json(values["manifest"]), values["format"], values["scales"])


def shared_state_record(shared: SharedState, **values: Any) -> RecordDict:
    """Return a message with a shared state as one flat array, and further values."""
    return tensors_record(shared.tensors(), header=json.dumps(shared.header()), **values)


def read_shared_state(record: RecordDict) -> SharedState:
    """Invert `shared_state_record`; ValueError for other keys, types or values beyond the bounds."""
    header = checked_body(record, {**TENSOR_VALUES, "header": str}, {BODY, ARRAYS})["header"]
    return SharedState.from_tensors(state_header(header), read_tensors(record))


@dataclass(frozen=True)
class ClientOrder:
    """The part of an order to train that is for one client only.

    Attributes:
        local_steps: Local steps of the shared stage; None: those of the run's configuration.
        upload_seed: Seed for rounding the upload; None: drawn from the operating system. It is derived for
            this order: the run's seed does not follow from it unless that can be guessed.
        dropped_out: Whether the client was drawn to fail in this round (`dropout_rate`).
    """

    local_steps: int | None = None
    upload_seed: int | None = None
    dropped_out: bool = False

    def random(self) -> np.random.Generator:
        """Return the generator for rounding the upload."""
        return np.random.default_rng(self.upload_seed)


def train_record(
    received: Received,
    format: WireFormat,
    random: np.random.Generator,
    strategy_code: str,
    order: ClientOrder | None = None,
) -> RecordDict:
    """Return the order to train a round.

    It holds the shared state, the strategy's extra tensors, the fingerprint of the strategy's code, which the
    client's code must match, and the part for this client only.
    """
    told = asdict(order or ClientOrder())
    own = {key: told[name] for key, (_, name) in _OWN.items() if told[name] is not None}
    extra = {f"{_EXTRA}{name}": tensor for name, tensor in received.extra.items()}
    header = json.dumps(received.shared.header())
    tensors = received.shared.tensors() | extra
    return tensors_record(
        tensors, format, random, header=header, round=received.round, strategy_code=strategy_code, **own
    )


def strategy_code_of(record: RecordDict) -> str | None:
    """Return the fingerprint of the code in an order to train, or None."""
    told = values_of(record).get("strategy_code")
    return told if isinstance(told, str) else None


def read_client_order(record: RecordDict) -> ClientOrder:
    """Read the part of an order to train for this client only. ValueError for wrong types or values."""
    values = values_of(record)
    checked({key: values[key] for key in _OWN if key in values}, _own_types(record))
    found = {name: values[key] for key, (_, name) in _OWN.items() if key in values}
    if found.get("local_steps", 1) < 1 or found.get("upload_seed", 0) < 0:
        raise ValueError("invalid order: expected at least one step, and a seed of at least 0")
    return ClientOrder(**found)


def _own_types(record: RecordDict) -> dict[str, type]:
    """Return the types of the values for this client only, as far as the order contains them."""
    return {key: kind for key, (kind, _) in _OWN.items() if key in values_of(record)}


def read_train(record: RecordDict) -> Received:
    """Invert `train_record`, up to the rounding of the number format.

    Raises:
        ValueError: If the message has other keys or types, or values beyond the bounds.
    """
    types = {**TENSOR_VALUES, "header": str, "round": int, "strategy_code": str, **_own_types(record)}
    values = checked_body(record, types, {BODY, ARRAYS})
    header = state_header(values["header"])
    tensors = read_tensors(record)
    extra = {
        name.removeprefix(_EXTRA): tensors.pop(name) for name in list(tensors) if name.startswith(_EXTRA)
    }
    return Received(SharedState.from_tensors(header, tensors), values["round"], extra)


def update_record(
    update: Update, received: Received, format: WireFormat, random: np.random.Generator
) -> RecordDict:
    """Return a client's update: weights in one flat array, counts, and metrics as numbers."""
    tensors = update.tensors
    if format != "float32":
        tensors = differences(tensors, received.shared.tensors())
    record = tensors_record(
        tensors,
        format,
        random,
        **{CLIENT: update.client},
        num_examples=update.num_examples,
        num_steps=update.num_steps,
        rank=update.rank,
    )
    record[METRICS] = MetricRecord(dict(update.metrics))
    return record


def checked_body(
    record: RecordDict, expected: Mapping[str, type], records: AbstractSet[str] = frozenset({BODY})
) -> dict[str, Any]:
    """Return the body of a message; ValueError unless records, keys and types are exactly as expected."""
    if record.keys() != records:
        raise ValueError(f"a message of {len(record)} records: expected {', '.join(sorted(records))}")
    return checked(values_of(record), expected)
