"""Decoding of captured traffic into Flower's messages, and of these into messages of the federation.

Nothing is dropped silently: everything that cannot be decoded to its last byte is listed in `Traffic.unread`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from io import BytesIO
from typing import Any
from zipfile import is_zipfile

import numpy as np
from flwr.app import Array, ArrayRecord, Message, RecordDict
from flwr.proto import fleet_pb2
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from google.protobuf import message_factory
from google.protobuf.message import DecodeError
from google.protobuf.message import Message as Proto

from fedaigc.bounds import MAX_DENOISING_STEPS
from fedaigc.diffusion.handoff.packet import read_body, read_header
from fedaigc.federation.wire import equality_messages, generation_messages, messages, sum_messages
from fedaigc.federation.wire.flat_arrays import array_of, flatten
from fedaigc.federation.wire.generation_messages import PLAN, TWINS
from fedaigc.federation.wire.messages import ARRAYS, BODY, FLAT, METRICS, Ask

from .recorder import Exchange

FLEET = "/v1/fleet/"


def _kebab(name: str) -> str:
    return "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in name).lstrip("-")


# types of request and response by path, from Flower's own description of the service
_TYPES: dict[str, tuple[type[Proto], type[Proto]]] = {
    FLEET + _kebab(method.name): (
        message_factory.GetMessageClass(method.input_type),
        message_factory.GetMessageClass(method.output_type),
    )
    for method in fleet_pb2.DESCRIPTOR.services_by_name["Fleet"].methods
}


@dataclass(frozen=True)
class Told:
    """A message of the federation.

    Attributes:
        up: Whether a device sent it.
        kind: Its kind.
        num_bytes: Total size of its objects.
        content: Its content as plain data.
        node: Flower's number of the device, which takes 9 or 10 bytes in each message.
    """

    up: bool
    kind: str
    num_bytes: int
    content: Any
    node: int = 0

    def __str__(self) -> str:
        return f"{'reply' if self.up else 'order'} {self.kind}"


@dataclass
class Traffic:
    """The decoded traffic of a capture.

    Attributes:
        calls: Number of calls of Flower's transport, by path.
        call_bytes: Number of bytes of these calls, by path.
        plain: Name and fields of each call.
        told: The messages that the calls carried.
        unread: Descriptions of everything that could not be decoded.
    """

    calls: Counter[str] = field(default_factory=Counter)
    call_bytes: Counter[str] = field(default_factory=Counter)
    plain: list[tuple[str, Any]] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def decoded(exchanges: Iterable[Exchange]) -> Traffic:
    """Decode a capture."""
    traffic = Traffic()
    objects: dict[str, bytes] = {}
    trees: list[tuple[bool, Any]] = []
    for exchange in exchanges:
        name = exchange.path.removeprefix(FLEET)
        sizes = [len(half.head) + 4 + len(half.body) for half in (exchange.request, exchange.response)]
        traffic.calls[name] += 1
        traffic.call_bytes[name] += sum(sizes)
        if exchange.path not in _TYPES:
            traffic.unread.append(f"{exchange.path}: no call of Flower's")
            continue
        read: list[Any] = [None, None]
        for place, half in enumerate((exchange.request, exchange.response)):
            kind = _TYPES[exchange.path][place]
            if place == 1 and exchange.status != 200:
                traffic.plain.append((f"{name} {exchange.status}", half.body))
                continue
            try:
                read[place] = _parsed(half.body, kind)
            except ValueError as error:
                traffic.unread.append(f"{name}: {error}")
                continue
            traffic.plain.append((f"{name} {kind.__name__}", fields_of(read[place])))
        try:
            _collect(name, read[0], read[1], objects, trees)
        except ValueError as error:
            traffic.unread.append(f"{name}: {error}")
    used = set()
    for up, tree in trees:
        ids = {node.object_id for node in iterate_object_tree(tree)}
        used |= ids
        try:
            traffic.told.append(_told(up, tree.object_id, {key: objects[key] for key in ids}))
        except KeyError as error:
            traffic.unread.append(f"a message without its part {error}")
        except Exception as error:
            traffic.unread.append(f"a message that is none: {error}")
    traffic.unread += [f"an object of no message: {key}" for key in objects.keys() - used]
    return traffic


def _parsed(data: bytes, kind: type[Proto]) -> Proto:
    """Return the message.

    Raises:
        ValueError: If some of the bytes are not fields of this type.
    """
    try:
        message = kind.FromString(data)
    except DecodeError as error:
        raise ValueError(f"no {kind.__name__}") from error
    message.DiscardUnknownFields()
    if message.ByteSize() != len(data):
        raise ValueError(f"{len(data) - message.ByteSize()} bytes beyond the fields of a {kind.__name__}")
    return message


def fields_of(message: Proto) -> dict[str, Any]:
    """Return the fields of a protobuf message as plain data."""
    plain: dict[str, Any] = {}
    for descriptor, value in message.ListFields():
        if descriptor.message_type and descriptor.message_type.GetOptions().map_entry:
            plain[descriptor.name] = {str(key): _plain_field(item) for key, item in value.items()}
        elif descriptor.is_repeated:
            plain[descriptor.name] = [_plain_field(item) for item in value]
        else:
            plain[descriptor.name] = _plain_field(value)
    return plain


def _plain_field(value: Any) -> Any:
    return fields_of(value) if isinstance(value, Proto) else value


def _collect(
    name: str, asked: Any, answered: Any, objects: dict[str, bytes], trees: list[tuple[bool, Any]]
) -> None:
    """Collect the objects of a call, and the trees that combine objects into messages."""
    if name == "push-object" and asked:
        objects[_checked_id(asked.object_id, asked.object_content)] = asked.object_content
    elif name == "pull-object" and asked and answered and answered.object_available:
        objects[_checked_id(asked.object_id, answered.object_content)] = answered.object_content
    elif name == "push-messages" and asked:
        trees += [(True, tree) for tree in asked.message_object_trees]
    elif name == "pull-messages" and answered:
        trees += [(False, tree) for tree in answered.message_object_trees]
    elif name == "get-fab" and answered and not is_zipfile(BytesIO(answered.fab.content)):
        raise ValueError("an app that is no archive")


def _checked_id(key: str, content: bytes) -> str:
    if sha256(content).hexdigest() != key:
        raise ValueError(f"object {key} holds something else")
    return key


def _told(up: bool, root: str, contents: dict[str, bytes]) -> Told:
    num_bytes = sum(map(len, contents.values()))
    message = inflate_object_from_contents(root, contents)
    if not isinstance(message, Message):
        raise ValueError(f"a {type(message).__name__}")
    kind = message.metadata.message_type
    node = message.metadata.src_node_id if up else message.metadata.dst_node_id
    if message.has_error():
        error = {"code": message.error.code, "reason": message.error.reason}
        return Told(up, f"{kind} error", num_bytes, error, node)
    content = {name: _plain_record(record) for name, record in message.content.items()}
    if up and messages.FAILURE in message.content:
        kind += " failure"
    return Told(up, kind, num_bytes, content | {"read": dict(_read(up, kind, message.content))}, node)


def _plain_record(record: Any) -> dict[str, Any]:
    if isinstance(record, ArrayRecord):
        return {name: _plain_array(array) for name, array in record.items()}
    return dict(record)


def _plain_array(array: Array) -> dict[str, Any]:
    values = {"dtype": array.dtype, "shape": list(array.shape), "stype": array.stype}
    return values | {"data": array_of(array.data)}


def _read(up: bool, kind: str, record: RecordDict) -> Iterator[tuple[str, Any]]:
    """Yield the parts of a message as the federation decodes them: tensors, signatures and packets.

    Raises:
        ValueError: If the federation does not know or does not accept a record.
    """
    known = {messages.FAILURE} if messages.FAILURE in record else _RECORDS.get((up, kind), {BODY})
    if not up and kind == Ask.SHARE and ARRAYS in record:
        known = known | {ARRAYS}
    if not up and kind == Ask.FINISH and TWINS in record:
        known = known | {TWINS}
    if set(record) != known:
        raise ValueError(f"{kind} with the records {sorted(record)}")
    if ARRAYS in record:
        if set(record[ARRAYS]) != {FLAT}:
            raise ValueError(f"{kind} with the arrays {sorted(record[ARRAYS])}")
        if kind == Ask.MASKED:
            yield "values", sum_messages.read_masked(record, messages.values_of(record)["count"])
        else:
            yield "tensors", flatten(messages.read_tensors(record))
    if up and kind == Ask.SIGNATURES:
        nodes = any('"atlas"' in text for text in messages.values_of(record)["signatures"])
        signatures, _ = generation_messages.read_signatures(record, nodes=nodes)
        yield "signatures", [s and s.to_json() for s in signatures.values()]
    if kind == Ask.OFFER:
        if up:
            generation_messages.read_taken(record, range(1, MAX_DENOISING_STEPS + 1))
        else:
            yield "offer", {"vector": generation_messages.read_offer(record).vector}
    if up and kind == Ask.KEYS:
        sum_messages.read_key(record)
    if not up and kind == Ask.MASKED:
        sum_messages.read_mask_order(record)
    if kind == Ask.BLIND:
        equality_messages.read_blinded(record) if up else equality_messages.read_blind_order(record)
    if kind == Ask.EQUAL and not up:
        equality_messages.read_equal_order(record)
    if up and kind == Ask.SHARE:
        generation_messages.read_shared_steps(record)
    if up and kind == Ask.FINISH:
        generation_messages.read_report(record)
    if kind == Ask.TWINS or TWINS in record:
        # sealed: only devices with the same prompt can open it
        return
    packet = messages.values_of(record).get("packet") if BODY in record else None
    if packet:
        header, _ = read_header(packet)
        latents, history = read_body(packet, verify=True)
        arrays = {name: np.asarray(value) for name, value in history.items() if hasattr(value, "numpy")}
        yield "packet", {"header": str(vars(header)), "latents": latents.numpy(), **arrays}


_RECORDS: dict[tuple[bool, str], set[str]] = {
    (False, Ask.HELLO.value): set(),
    (False, Ask.TRAIN.value): {BODY, ARRAYS},
    (True, Ask.TRAIN.value): {BODY, ARRAYS, METRICS},
    (False, Ask.INSTALL.value): {BODY, ARRAYS},
    (True, Ask.MASKED.value): {BODY, ARRAYS},
    (False, Ask.SHARE.value): {BODY, PLAN},
    (False, Ask.TWINS.value): {BODY, PLAN},
    (False, Ask.FINISH.value): {BODY, PLAN},
}
