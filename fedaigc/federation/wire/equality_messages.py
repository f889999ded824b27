"""Messages of an equality test: blinded keys, tags, and the shared steps of twins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, RecordDict

from fedaigc.bounds import (
    MAX_EQUALITY_MEMBERS,
    MAX_EVALUATIONS,
    MAX_PACKET_BYTES,
    ROUND_NUMBER,
    TASK_ID,
)
from fedaigc.collaboration.equality.blinded_keys import TAG_BYTES
from fedaigc.collaboration.secure_sum.masks import KEY_BYTES
from fedaigc.collaboration.session import ShareOrder, TwinSteps
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.federation.wire.generation_messages import PLAN, PlanBuilder
from fedaigc.federation.wire.message_bounds import check_noise_seed, check_range, check_text
from fedaigc.federation.wire.messages import BODY, PADDING, body, checked_body, values_of

_STEPS: Mapping[str, type] = {
    "task_id": str,
    "number": str,
    "executor": bytes,
    "twins": list,
    "noise_seed": int,
    "stop": int,
}


@dataclass(frozen=True)
class BlindOrder:
    """Order to announce a key for an equality test.

    Attributes:
        task_id: The device's task.
        number: Random number of the test: 32 hexadecimal digits.
    """

    task_id: str
    number: str


@dataclass(frozen=True)
class EqualOrder:
    """Order to say the tags of an equality test.

    Attributes:
        task_id: The device's task.
        number: Number of the test.
        keys: Keys of all members, as they were announced.
    """

    task_id: str
    number: str
    keys: tuple[bytes, ...]


def blind_order_record(order: BlindOrder) -> RecordDict:
    """Return the order to announce a key."""
    return body(task_id=order.task_id, number=order.number)


def read_blind_order(record: RecordDict) -> BlindOrder:
    """Invert `blind_order_record`; ValueError for other keys, types or values beyond the bounds."""
    values = checked_body(record, {"task_id": str, "number": str})
    _check_test(values)
    return BlindOrder(**values)


def blinded_record(key: bytes) -> RecordDict:
    """Return a device's blinded key."""
    return body(key=key)


def read_blinded(record: RecordDict) -> bytes:
    """Invert `blinded_record`; ValueError for other keys, types or lengths."""
    return _key(_padded(record, {"key": bytes})["key"])


def equal_order_record(order: EqualOrder) -> RecordDict:
    """Return the order to say the tags of a test."""
    return body(task_id=order.task_id, number=order.number, keys=list(order.keys))


def read_equal_order(record: RecordDict) -> EqualOrder:
    """Invert `equal_order_record`; ValueError for other keys, types or values beyond the bounds."""
    values = checked_body(record, {"task_id": str, "number": str, "keys": list})
    _check_test(values)
    return EqualOrder(values["task_id"], values["number"], _keys(values["keys"]))


def tags_record(tags: tuple[bytes, ...]) -> RecordDict:
    """Return a device's tags."""
    return body(tags=b"".join(tags))


def read_tags(record: RecordDict, count: int) -> tuple[bytes, ...]:
    """Invert `tags_record`; ValueError for other keys or types, or if there are not exactly `count` tags."""
    tags = _padded(record, {"tags": bytes})["tags"]
    if len(tags) != count * TAG_BYTES:
        raise ValueError(f"tags of {len(tags)} bytes: expected {count} of {TAG_BYTES} bytes")
    return tuple(tags[start : start + TAG_BYTES] for start in range(0, len(tags), TAG_BYTES))


def twin_order_record(order: ShareOrder) -> RecordDict:
    """Return the order to run the first steps of a prompt for its twins."""
    assert order.twins is not None
    record = body(
        task_id=order.task_id,
        number=order.twins.number,
        executor=order.twins.executor,
        twins=list(order.twins.members),
        noise_seed=order.noise_seed,
        stop=order.stop,
    )
    record[PLAN] = ConfigRecord(PlanRequest.of(order.plan).values())
    return record


def read_twin_order(record: RecordDict, client: int, build: PlanBuilder) -> ShareOrder:
    """Invert `twin_order_record`. `build` makes the plan on this device, see `PlanRequest`.

    Raises:
        ValueError: If the message has other keys or types, or values beyond the bounds.
        UserError: If this device does not run the plan.
    """
    values = checked_body(record, _STEPS, {BODY, PLAN})
    _check_test(values)
    check_noise_seed(values["noise_seed"])
    check_range(values, stop=MAX_EVALUATIONS)
    steps = TwinSteps(values["number"], _key(values["executor"]), _keys(values["twins"]), values["stop"])
    plan = build(PlanRequest.from_values(values_of(record, PLAN)))
    return ShareOrder(
        client=client,
        task_id=values["task_id"],
        group_prompt="",
        noise_seed=values["noise_seed"],
        plan=plan,
        stop=values["stop"],
        twins=steps,
    )


def twin_packet_record(packet: bytes) -> RecordDict:
    """Return an executor's packet for its twins, without counts, which could depend on the prompt."""
    return body(packet=packet)


def read_twin_packet(record: RecordDict, size: int) -> bytes:
    """Invert `twin_packet_record`; ValueError for other keys or types, or another size."""
    packet = checked_body(record, {"packet": bytes})["packet"]
    if len(packet) != size or size > MAX_PACKET_BYTES:
        raise ValueError(f"a packet for twins of {len(packet)} bytes: expected {size}")
    return bytes(packet)


def _padded(record: RecordDict, expected: Mapping[str, type]) -> dict[str, Any]:
    given = values_of(record) if BODY in record else {}
    return checked_body(record, {**expected, PADDING: bytes} if PADDING in given else expected)


def _check_test(values: Mapping[str, object]) -> None:
    check_text("task_id", values["task_id"], TASK_ID)
    check_text("number", values["number"], ROUND_NUMBER)


def _keys(found: list[object]) -> tuple[bytes, ...]:
    if len(found) > MAX_EQUALITY_MEMBERS:
        raise ValueError(f"{len(found)} keys of an equality test: expected at most {MAX_EQUALITY_MEMBERS}")
    return tuple(map(_key, found))


def _key(part: object) -> bytes:
    if type(part) is not bytes or len(part) != KEY_BYTES:
        raise ValueError(f"a key of an equality test: expected {KEY_BYTES} bytes")
    return part
