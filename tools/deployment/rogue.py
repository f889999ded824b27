"""Run `fedaigc device start` as a rogue device, with an agent that sends modified replies.

    python -m tools.deployment.rogue WAY device start HOME ...

WAY is a key of `WAYS`. Key, SuperNode, relay, socket and home are the real ones.
"""

import sys
from collections.abc import Callable

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedaigc.cli import main as cli
from fedaigc.deployment.agent import resident
from fedaigc.deployment.agent.agent import Agent
from fedaigc.federation.wire.flat_arrays import array_of
from fedaigc.federation.wire.messages import ARRAYS, BODY, FLAT, Ask, values_of

LARGE_BYTES = 200_000_000

Change = Callable[[RecordDict], RecordDict]


def with_values(reply: RecordDict, **values: object) -> RecordDict:
    reply[BODY] = ConfigRecord({**values_of(reply), **values})  # type: ignore[dict-item]
    return reply


def with_array(reply: RecordDict, array: np.ndarray) -> RecordDict:
    reply[ARRAYS] = ArrayRecord({FLAT: Array(array)})
    return reply


def not_a_number(reply: RecordDict) -> RecordDict:
    array = array_of(values_of(reply, ARRAYS)[FLAT].data).copy()
    array[-1] = np.nan
    return with_array(reply, array)


def flipped(reply: RecordDict) -> RecordDict:
    """Return the reply with one bit flipped in the middle of its packet."""
    packet = bytearray(values_of(reply)["packet"])
    packet[len(packet) // 2] ^= 1
    return with_values(reply, packet=bytes(packet))


WAYS: dict[str, dict[Ask, Change]] = {
    "nan": {Ask.TRAIN: not_a_number, Ask.SHARE: flipped},
    "rank": {Ask.TRAIN: lambda reply: with_values(reply, rank=1), Ask.SHARE: flipped},
    "large": {Ask.TRAIN: lambda reply: with_array(reply, np.zeros(LARGE_BYTES // 4, np.float32))},
    "another's update": {Ask.TRAIN: lambda reply: with_values(reply, partition=0)},
    "another's name": {Ask.HELLO: lambda reply: with_values(reply, partition=0)},
}


def main(way: str, arguments: list[str]) -> None:
    changes = WAYS[way]

    class Rogue(Agent):
        def answer(self, ask: Ask, config: str, content: RecordDict) -> RecordDict:
            reply = super().answer(ask, config, content)
            return changes.get(ask, lambda same: same)(reply)

    resident.Agent = Rogue  # type: ignore[attr-defined]
    sys.argv = ["fedaigc", *arguments]
    cli.main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
