"""Counts of every byte that a federation sends, by direction and kind."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

from flwr.app import ConfigRecord, RecordDict

from fedaigc.federation.wire.messages import ARRAYS, METRICS
from fedaigc.flower_private import recorddict_to_proto

Direction = Literal["down", "up"]
KINDS = ("weights", "signatures", "packets", "metrics", "control")


class Ledger:
    """Counts bytes from the server to clients ("down") and back ("up").

    A message counts with the length of its content as Flower serializes it (protobuf), split by kind: arrays
    are weights; a body is packets, signatures, metrics or, if it is anything else, control.
    """

    def __init__(self) -> None:
        self._bytes: Counter[tuple[Direction, str]] = Counter()
        self._further: tuple[Ledger, Collection[str]] | None = None

    @contextmanager
    def forwarding(self, further: "Ledger", kinds: Collection[str] = KINDS) -> Iterator[None]:
        """Within the context, also count messages in a second ledger, because an edge forwards them.

        Args:
            further: The second ledger.
            kinds: The kinds that are forwarded.
        """
        self._further = further, kinds
        try:
            yield
        finally:
            self._further = None

    def add(self, direction: Direction, content: RecordDict) -> None:
        """Count one message."""
        proto = recorddict_to_proto(content)
        sizes: Counter[str] = Counter(control=proto.ByteSize())
        for item in proto.items:
            sizes[_kind(item.key, content[item.key])] += item.ByteSize()
            # what is left is the framing of the message
            sizes["control"] -= item.ByteSize()
        self._count(direction, sizes, KINDS)
        if self._further is not None:
            ledger, kinds = self._further
            ledger._count(direction, sizes, kinds)

    def _count(self, direction: Direction, sizes: Mapping[str, int], kinds: Collection[str]) -> None:
        for kind in kinds:
            self._bytes[direction, kind] += sizes.get(kind, 0)

    def totals(self) -> dict[str, dict[str, int]]:
        """Return the bytes so far for every kind, e.g. {"down": {"weights": 1200, ...}, "up": {...}}."""
        return {
            direction: {kind: self._bytes[direction, kind] for kind in KINDS} for direction in ("down", "up")
        }


def _kind(name: str, record: object) -> str:
    if name == ARRAYS:
        return "weights"
    if name == METRICS:
        return "metrics"
    if isinstance(record, ConfigRecord):
        keys = set(record)
        if "packet" in keys:
            return "packets"
        if "signatures" in keys:
            return "signatures"
        if "denoiser_calls" in keys:
            return "metrics"
    return "control"
