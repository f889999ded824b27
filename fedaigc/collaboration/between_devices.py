"""Bytes that devices send each other where no edge is between them: messages by which they agree, and sealed packets.

All messages have one size, whatever they say, so they are counted by their number. In a pair these are a hello, its
answer, the agreement and a receipt. In a cluster each device sends its offer to all others and passes on the offer of
every other one; each commits once, to all; and each member of a group says to its executor that it has decided. So the
messages of a cluster of n devices grow with n^3.

These are the bytes where nothing is lost, nobody fails and all connections stand from the beginning; without TLS.
"""

from collections.abc import Sequence

from fedaigc.bounds import MAX_PEER_MESSAGE
from fedaigc.collaboration.results import GroupRecord
from fedaigc.collaboration.sealing import sealed_bytes
from fedaigc.collaboration.topology import BETWEEN_DEVICES, Topology

MESSAGES, PACKETS = "messages", "packets"
# each message and packet follows its length
_LENGTH = 4
_MESSAGE = _LENGTH + MAX_PEER_MESSAGE
_OF_A_PAIR = 4


def device_bytes(
    topology: Topology, groups: Sequence[GroupRecord], devices: int, room: int
) -> dict[str, int]:
    """Return the bytes that devices send each other in a generation, by kind: "messages" and "packets".

    Args:
        topology: The topology; with an edge the result is empty.
        groups: All groups.
        devices: Number n of devices with prompts that wait.
        room: Size in bytes up to which packets are padded, see `packet_room`.
    """
    if topology not in BETWEEN_DEVICES:
        return {}
    sizes = [len({task.client for task in group.tasks}) for group in groups if group.num_shared_steps]
    if topology == "pair":
        messages = _OF_A_PAIR * len(sizes)
    else:
        offers = devices * (devices - 1) ** 2
        commits = devices * (devices - 1)
        messages = offers + commits + sum(size - 1 for size in sizes)
    packets = sum((size - 1) * (_LENGTH + sealed_bytes(room, size - 1)) for size in sizes)
    return {MESSAGES: messages * _MESSAGE, PACKETS: packets}
