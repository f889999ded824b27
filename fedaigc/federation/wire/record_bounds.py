"""Bounds on what a Flower message holds, checked before the message is converted.

Our messages have one to three records of a few named values, and at most one array. Flower itself accepts any
number of them, visits every one, and copies them at each step from bytes to objects and back.
"""

from collections.abc import Iterator

from flwr.app import ArrayRecord, RecordDict

from fedaigc.bounds import MAX_ARRAYS, MAX_KEY_CHARACTERS, MAX_LIST_ITEMS, MAX_RECORD_VALUES, MAX_RECORDS
from fedaigc.flower_private import ProtoRecordDict


def check_records(record: ProtoRecordDict | RecordDict) -> None:
    """Check the counts of a message.

    A device checks before the bytes become objects. A server, where Flower has already created the objects,
    checks before they are copied.

    Args:
        record: The message, as protobuf or as Flower's objects.

    Raises:
        ValueError: If the message has more records, arrays, values, list items or longer keys than allowed.
    """
    entries = record.items if isinstance(record, ProtoRecordDict) else record
    if len(entries) > MAX_RECORDS:
        raise ValueError(f"a message of {len(entries)} records: expected at most {MAX_RECORDS}")
    for key, of_arrays, values in _proto(record) if isinstance(record, ProtoRecordDict) else _objects(record):
        limit = MAX_ARRAYS if of_arrays else MAX_RECORD_VALUES
        if len(values) > limit:
            raise ValueError(f"a record of {len(values)} values: expected at most {limit}")
        if any(len(name) > MAX_KEY_CHARACTERS for name in (key, *(name for name, _ in values))):
            raise ValueError(f"a key of more than {MAX_KEY_CHARACTERS} characters")
        if any(items > MAX_LIST_ITEMS for _, items in values):
            raise ValueError(f"a list of more than {MAX_LIST_ITEMS} items")


# a record: its name, whether it holds arrays, and the name and number of items of each value
_Counts = tuple[str, bool, list[tuple[str, int]]]


def _proto(record: ProtoRecordDict) -> Iterator[_Counts]:
    for item in record.items:
        kind = item.WhichOneof("value")
        if kind is None:
            raise ValueError("a record has no type")
        values = getattr(item, kind).items
        if kind == "array_record" or len(values) > MAX_RECORD_VALUES:
            yield item.key, kind == "array_record", [(value.key, 1) for value in values]
            continue
        counts = []
        for value in values:
            held = value.value.WhichOneof("value")
            if held is None:
                raise ValueError("a value has no type")
            counts.append((value.key, len(getattr(value.value, held).vals) if held.endswith("_list") else 1))
        yield item.key, False, counts


def _objects(record: RecordDict) -> Iterator[_Counts]:
    for key, held in record.items():
        counts = [(name, len(value) if isinstance(value, list) else 1) for name, value in held.items()]
        yield key, isinstance(held, ArrayRecord), counts
