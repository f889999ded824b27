"""How much a message of Flower may hold, counted before its records become objects.

A message of ours has one to three records of a few named values. Flower itself takes any number of both, and
looks at every one of them.
"""

from flwr.proto.recorddict_pb2 import RecordDict as ProtoRecordDict

from fedaigc.bounds import MAX_KEY_CHARACTERS, MAX_LIST_ITEMS, MAX_RECORD_VALUES, MAX_RECORDS


def check_records(proto: ProtoRecordDict) -> None:
    """Raises ValueError for more records, values, items of a list or longer keys than any message has."""
    if len(proto.items) > MAX_RECORDS:
        raise ValueError(f"a message of {len(proto.items)} records: at most {MAX_RECORDS}")
    for item in proto.items:
        kind = item.WhichOneof("value")
        if kind is None:
            raise ValueError("a record of no kind")
        values = getattr(item, kind).items
        if len(values) > MAX_RECORD_VALUES:
            raise ValueError(f"a record of {len(values)} values: at most {MAX_RECORD_VALUES}")
        if len(item.key) > MAX_KEY_CHARACTERS or any(len(value.key) > MAX_KEY_CHARACTERS for value in values):
            raise ValueError(f"a key of more than {MAX_KEY_CHARACTERS} characters")
        if kind == "array_record":
            continue
        for value in values:
            held = value.value.WhichOneof("value")
            if held is None:
                raise ValueError("a value of no kind")
            if held.endswith("_list") and len(getattr(value.value, held).vals) > MAX_LIST_ITEMS:
                raise ValueError(f"a list of more than {MAX_LIST_ITEMS} items")
