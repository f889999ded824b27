"""Messages of the conditioning of a group: keys of a sum, masked conditionings, and one in an order to share."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, RecordDict
from jaxtyping import UInt64
from torch import Tensor

from fedaigc.bounds import (
    MAX_CONDITIONING_VALUES,
    MAX_KEY_BYTES,
    MAX_PROMPT_CHARACTERS,
    MAX_SUM_MEMBERS,
    ROUND_NUMBER,
    TASK_ID,
)
from fedaigc.collaboration.secure_sum.fixed_point import LIMIT
from fedaigc.collaboration.secure_sum.masks import KEY_BYTES, Announced
from fedaigc.federation.wire.flat_arrays import array_of
from fedaigc.federation.wire.message_bounds import check_length, check_text
from fedaigc.federation.wire.messages import (
    ARRAYS,
    BODY,
    FLAT,
    PADDING,
    body,
    checked_body,
    read_tensors,
    values_of,
)

_MEMBERS = ("keys", "node_keys", "signatures")


@dataclass(frozen=True)
class KeyOrder:
    """Order to announce a key for a sum.

    Attributes:
        task_id: The device's task in the group.
        number: Random number of the round: 32 hexadecimal digits.
    """

    task_id: str
    number: str


@dataclass(frozen=True)
class MaskOrder:
    """Order to give the conditioning of a task to a sum.

    Attributes:
        task_id: The device's task in the group.
        number: Number of the round.
        group_prompt: Public prompt of the group.
        members: Keys of all members, as they were announced; none for a conditioning as it is, in a simulation.
    """

    task_id: str
    number: str
    group_prompt: str
    members: tuple[Announced, ...]


def key_order_record(order: KeyOrder) -> RecordDict:
    """Return the order to announce a key."""
    return body(task_id=order.task_id, number=order.number)


def read_key_order(record: RecordDict) -> KeyOrder:
    """Invert `key_order_record`; ValueError for other keys, types or values beyond the bounds."""
    values = checked_body(record, {"task_id": str, "number": str})
    _check_round(values)
    return KeyOrder(**values)


def key_record(announced: Announced) -> RecordDict:
    """Return a device's key, with what vouches for it."""
    return body(key=announced.key, node_key=announced.node_key, signature=announced.signature)


def read_key(record: RecordDict) -> Announced:
    """Invert `key_record`; ValueError for other keys, types or lengths."""
    given = values_of(record) if BODY in record else {}
    padding: dict[str, type] = {PADDING: bytes} if PADDING in given else {}
    values = checked_body(record, {"key": bytes, "node_key": bytes, "signature": bytes} | padding)
    return _announced(values["key"], values["node_key"], values["signature"])


def mask_order_record(order: MaskOrder) -> RecordDict:
    """Return the order to give a conditioning to a sum."""
    return body(
        task_id=order.task_id,
        number=order.number,
        group_prompt=order.group_prompt,
        keys=[member.key for member in order.members],
        node_keys=[member.node_key for member in order.members],
        signatures=[member.signature for member in order.members],
    )


def read_mask_order(record: RecordDict) -> MaskOrder:
    """Invert `mask_order_record`; ValueError for other keys, types or values beyond the bounds."""
    types: Mapping[str, type] = {
        "task_id": str,
        "number": str,
        "group_prompt": str,
        **dict.fromkeys(_MEMBERS, list),
    }
    values = checked_body(record, types)
    _check_round(values)
    check_length("group_prompt", values["group_prompt"], MAX_PROMPT_CHARACTERS)
    lists = [values.pop(name) for name in _MEMBERS]
    for name, found in zip(_MEMBERS, lists, strict=True):
        check_length(name, found, MAX_SUM_MEMBERS)
        if len(found) != len(lists[0]):
            raise ValueError(f"{len(found)} {name} of a sum: expected {len(lists[0])}, one a member")
    return MaskOrder(**values, members=tuple(_announced(*each) for each in zip(*lists, strict=True)))


def masked_record(values: UInt64[np.ndarray, " n"]) -> RecordDict:
    """Return a masked conditioning: as an array, which Flower sends in parts."""
    record = body(count=len(values))
    record[ARRAYS] = ArrayRecord({FLAT: Array(values.astype("<u8"))})
    return record


def read_masked(record: RecordDict, count: int) -> UInt64[np.ndarray, " n"]:
    """Invert `masked_record`.

    Raises:
        ValueError: For other keys or types, or if there are not exactly `count` values.
    """
    told = checked_body(record, {"count": int}, {BODY, ARRAYS})["count"]
    arrays = values_of(record, ARRAYS)
    if arrays.keys() != {FLAT} or not isinstance(arrays[FLAT], Array):
        raise ValueError("invalid message: expected exactly one array")
    values = array_of(arrays[FLAT].data)
    if told != count or values.shape != (count,) or values.dtype != np.dtype("<u8"):
        raise ValueError(
            f"a masked conditioning of {told} values, as an array {values.shape} of {values.dtype}: expected {count} "
            "of uint64"
        )
    return values.astype(np.uint64)


def read_conditioning(record: RecordDict) -> dict[str, Tensor]:
    """Return the conditioning in an order to share.

    Raises:
        ValueError: If array, manifest and format disagree, or for more or larger values than a conditioning has.
    """
    tensors = read_tensors(record)
    count = sum(tensor.numel() for tensor in tensors.values())
    if not 0 < count <= MAX_CONDITIONING_VALUES:
        raise ValueError(f"a conditioning of {count} values: expected 1 to {MAX_CONDITIONING_VALUES}")
    # not `abs() > LIMIT`, which is false for NaN
    if not all(bool((torch.abs(tensor) <= LIMIT).all()) for tensor in tensors.values()):
        raise ValueError(f"a conditioning has values beyond {LIMIT:g}, or that are not finite")
    return tensors


def _check_round(values: Mapping[str, object]) -> None:
    check_text("task_id", values["task_id"], TASK_ID)
    check_text("number", values["number"], ROUND_NUMBER)


def _announced(key: object, node_key: object, signature: object) -> Announced:
    return Announced(
        _bounded(key, KEY_BYTES), _bounded(node_key, MAX_KEY_BYTES), _bounded(signature, MAX_KEY_BYTES)
    )


def _bounded(part: object, largest: int) -> bytes:
    if not isinstance(part, bytes) or len(part) > largest:
        raise ValueError(f"a key of a sum: expected at most {largest} bytes")
    return part
