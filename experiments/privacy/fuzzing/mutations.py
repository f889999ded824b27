"""Mutations of the messages that a server and its devices send each other, for fuzzing both sides.

Each takes a valid message and breaks a part of it: a type, a number, a text, a key, a shape, the nesting of its JSON,
the bytes of its arrays and packets. No mutation requests honest work that is only larger, so each must be answered
about as fast as the original message.
"""

import hashlib
import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from hypothesis import strategies as st

# no record and no reply may contain this
MARK = "zzmark"
TEXTS = st.sampled_from(
    [
        "",
        MARK,
        f"<script>{MARK}</script>",
        f"\x1b[31m{MARK}\x00\r\n",
        "../" * 40 + MARK,
        MARK * 20_000,
        "٣" * 16,
        "é" * 17 + "\u202e\ufeff",
        "0123456789abcdef",
        "[" * 5_000,
        "9" * 5_000,
        "{}",
        "null",
        "1e999",
        "open",
        "silent",
    ]
)
WHOLE = st.sampled_from([0, -1, 1, 2, 10**7, 10**9, 2**31, 2**53 + 1, 2**62, 2**63 - 1, -(2**63)])
REAL = st.sampled_from([0.0, -0.0, 0.5, -1.0, 1e-310, 1e9, 3e38, 1e308, -1e308])
ODD_REAL = REAL | st.sampled_from([float("nan"), float("inf"), float("-inf")])
BYTES = st.sampled_from([b"", b"\x00", b"\xff" * 100, b"FAGC" + b"\x00" * 60, b"\x93NUMPY" + b"(" * 500])
SCALARS = st.booleans() | WHOLE | ODD_REAL | TEXTS | BYTES
LISTS = (
    st.lists(WHOLE, max_size=5)
    | st.lists(TEXTS, max_size=5)
    | st.builds(lambda text, count: [text] * count, TEXTS.filter(lambda t: len(t) < 100), st.just(3_000))
    | st.just([f"{number:016x}" for number in range(3_000)])
)
JSON_VALUES = (
    st.none()
    | st.booleans()
    | WHOLE
    | ODD_REAL
    | TEXTS
    | st.sampled_from([[], {}, [[]], [1] * 3_000, {f"{MARK}{number}": number for number in range(2_000)}])
    | st.builds(lambda depth: _nested(depth), st.sampled_from([3, 50, 900]))
    | st.just(10**4_000)
)


def _nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@st.composite
def broken_json(draw: st.DrawFn, text: str) -> str:
    """Draw a JSON text with a replaced value, key or part of its characters."""
    way = draw(st.sampled_from(["value", "value", "value", "key", "drop", "cut", "insert", "other"]))
    if way == "cut":
        return text[: draw(st.integers(0, max(len(text) - 1, 0)))]
    if way == "insert":
        at = draw(st.integers(0, len(text)))
        odd = draw(
            st.sampled_from(["[" * 2_000, "9" * 3_000, '"', ",", "\x00", "\ud800", "NaN", '{"a":1,"a":2}'])
        )
        return text[:at] + odd + text[at:]
    if way == "other":
        return json.dumps(draw(JSON_VALUES))
    root = json.loads(text)
    holder = [root]
    place: Any = 0
    inner: Any = holder
    for _ in range(draw(st.integers(0 if way == "value" else 1, 4))):
        value = inner[place]
        if isinstance(value, dict) and value:
            inner, place = value, draw(st.sampled_from(sorted(value)))
        elif isinstance(value, list) and value:
            inner, place = value, draw(st.integers(0, len(value) - 1))
        else:
            break
    if way == "drop" and inner is not holder:
        del inner[place]
    elif way == "key" and isinstance(inner, dict):
        for name in draw(st.sampled_from([[MARK], [f"{MARK}{n}" for n in range(2_000)], [MARK * 500]])):
            inner[name] = draw(WHOLE) if name == MARK else 1
    else:
        inner[place] = draw(JSON_VALUES)
    return json.dumps(holder[0])


@st.composite
def broken_bytes(draw: st.DrawFn, data: bytes) -> bytes:
    """Draw bytes that are cut, flipped, repeated or replaced; packets may also get another header with its checksum."""
    ways = ["cut", "flip", "repeat", "other"] + ["header"] * 4 * data.startswith(b"FAGC")
    way = draw(st.sampled_from(ways))
    if way == "other" or not data:
        return draw(BYTES)
    at = draw(st.integers(0, len(data) - 1))
    if way == "cut":
        return data[:at]
    if way == "flip":
        return data[:at] + bytes([data[at] ^ (1 << draw(st.integers(0, 7)))]) + data[at + 1 :]
    if way == "repeat":
        # bounded size: a gigabyte would test this process only
        return data * min(20, 1 + 4_000_000 // len(data))
    start, (length,) = 42, struct.unpack_from("<I", data, 6)
    header, body = json.loads(data[start : start + length]), data[start + length :]
    if draw(st.booleans()):
        return sealed(draw(broken_json(json.dumps(header))).encode(errors="surrogatepass"), body)
    # a body of another shape or with odd values
    shape = draw(st.sampled_from([[1, 4, 512, 512], [64, 4, 16, 16], [1, 1], [1, 0, 4], [4], [1, 4, 2**40]]))
    fill = draw(st.sampled_from([0.0, 1e30, float("nan"), 1e-40]))
    count = int(np.prod(shape)) if 0 < np.prod(shape) < 2**22 else 4
    body = np.full(count, fill, "<f4").tobytes()
    header |= {
        "latents": {"shape": shape, "dtype": "float32"},
        "history": {},
        "body_bytes": len(body),
        "body_sha256": hashlib.sha256(body).hexdigest(),
    }
    return sealed(json.dumps(header).encode(), body)


def sealed(header: bytes, body: bytes) -> bytes:
    """Return a packet of these parts, with a valid checksum."""
    prefix = struct.pack("<4sHI", b"FAGC", 1, len(header))
    return prefix + hashlib.sha256(prefix + header).digest() + header + body


@st.composite
def broken_array(draw: st.DrawFn, array: Array) -> Array:
    """Draw an array with other values, type, shape or bytes."""
    way = draw(st.sampled_from(["bytes", "bytes", "header", "values", "type", "shape", "fields"]))
    values = array.numpy().copy()
    if way == "bytes":
        return _with_data(array, draw(broken_bytes(array.data)))
    if way == "header":
        text = draw(
            st.sampled_from(
                [
                    "(" * 500,
                    "'" * 3,
                    "{'descr': 'O', 'fortran_order': False, 'shape': (1,), }",
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }",
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (0, 99999999999999999999), }",
                    "{'descr': '<f4', 'fortran_order': True, 'shape': (2**64,), }",
                    "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 300 + "), }",
                    "{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,), }",
                    "\x00\x0c\t\\\n  x\n y",
                ]
            )
        ).encode()
        head = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text
        return _with_data(array, head + array.data[128:])
    if way == "values" and values.size:
        if values.dtype.kind == "f":
            values[draw(st.integers(0, values.size - 1))] = np.float32(
                draw(ODD_REAL.filter(lambda x: abs(x) < 1e38 or x != x))
            )
        return Array(values)
    if way == "type":
        return Array(values.astype(draw(st.sampled_from(["<f8", "<i8", "?", "<c8", "<u2"]))))
    if way == "shape":
        return Array(
            draw(st.sampled_from([values[:-1], values[None], np.zeros(0, np.float32), np.tile(values, 3)]))
        )
    # values that the message can carry
    side = draw(st.sampled_from([-1, 0, 1, 2**31 - 1]))
    return Array(dtype=draw(TEXTS), shape=(side,), stype=draw(TEXTS), data=array.data)


def _with_data(array: Array, data: bytes) -> Array:
    return Array(dtype=array.dtype, shape=array.shape, stype=array.stype, data=data)


@st.composite
def broken_record(draw: st.DrawFn, record: RecordDict) -> RecordDict:
    """Draw a copy of a message with one of its records or values broken."""
    record = recorddict_from_proto(recorddict_to_proto(record))
    way = draw(st.sampled_from(["value"] * 8 + ["records", "keys"]))
    if way == "records" or not record:
        return draw(_other_records(record))
    name = draw(st.sampled_from(sorted(record)))
    held = record[name]
    if isinstance(held, ArrayRecord):
        arrays = {key: draw(broken_array(array)) for key, array in held.items()}
        if way == "keys":
            arrays = {f"{MARK}{number}": array for number in range(50) for array in list(arrays.values())[:1]}
        record[name] = ArrayRecord(arrays)
    elif isinstance(held, MetricRecord):
        odd: Mapping[str, Any] = draw(
            st.dictionaries(TEXTS | st.sampled_from(sorted(held) or [MARK]), WHOLE | ODD_REAL, max_size=4)
        )
        many = {f"{MARK}{number}": 1.0 for number in range(2_000)} if way == "keys" else {}
        record[name] = MetricRecord({**held, **odd, **many})
    else:
        record[name] = ConfigRecord(draw(_broken_values(dict(held), way == "keys")))
    return record


@st.composite
def _other_records(draw: st.DrawFn, record: RecordDict) -> RecordDict:
    way = draw(st.sampled_from(["none", "drop", "kind", "more", "failure"]))
    if way == "none" or not record:
        return RecordDict()
    name = draw(st.sampled_from(sorted(record)))
    if way == "drop":
        del record[name]
    elif way == "kind":
        others: list[ArrayRecord | MetricRecord | ConfigRecord] = [
            MetricRecord({MARK: 1.0}),
            ConfigRecord({MARK: 1}),
            ArrayRecord(),
        ]
        record[name] = draw(st.sampled_from(others))
    elif way == "more":
        for number in range(300):
            record[f"{MARK}{number}"] = ConfigRecord({MARK: number})
    else:
        record["failure"] = ConfigRecord({"kind": draw(TEXTS | WHOLE | LISTS)})
    return record


@st.composite
def _broken_values(draw: st.DrawFn, values: dict[str, Any], keys: bool) -> dict[str, Any]:
    if keys or not values:
        way = draw(st.sampled_from(["drop", "more", "long"]))
        if way == "drop" and values:
            del values[draw(st.sampled_from(sorted(values)))]
        elif way == "long":
            values[draw(TEXTS)] = draw(SCALARS)
        else:
            values |= {f"{MARK}{number}": number for number in range(2_000)}
        return values
    name = draw(st.sampled_from(sorted(values)))
    value = values[name]
    if isinstance(value, str) and value[:1] in ("[", "{") and draw(st.integers(0, 4)):
        # replace characters that cannot be sent
        values[name] = draw(broken_json(value)).encode(errors="replace").decode()
    elif isinstance(value, bytes) and draw(st.integers(0, 4)):
        values[name] = draw(broken_bytes(value))
    elif isinstance(value, list) and value and draw(st.booleans()):
        others: dict[type, st.SearchStrategy[Any]] = {str: TEXTS, bytes: BYTES}
        values[name] = [*value[:-1], draw(others.get(type(value[0]), WHOLE))]
        if isinstance(value[0], str) and value[0][:1] == "{" and draw(st.booleans()):
            values[name] = [draw(broken_json(value[0])).encode(errors="replace").decode(), *value[1:]]
    elif isinstance(value, list) and draw(st.booleans()):
        values[name] = value * draw(st.sampled_from([2, 3_000]))
    else:
        values[name] = draw(SCALARS | LISTS)
    return values
