"""The count of a simulation is what the state machines of a cluster send each other."""

from collections.abc import Sequence

import pytest

from fedaigc.bounds import MAX_PEER_MESSAGE
from fedaigc.collaboration.between_devices import device_bytes
from fedaigc.collaboration.results import GroupRecord, TaskRecord
from fedaigc.collaboration.sealing import Binding, new_key, public_key, seal
from fedaigc.deployment.cluster.election import Elected
from fedaigc.deployment.cluster.machine import Decision, Send, SendPacket
from tests.deployment.cluster.network import Cluster, elect_all, offer, signature

ROOM = 5000
LENGTH = 4


def record_of(group: Elected) -> GroupRecord:
    """Return the record of a group, as far as it is counted."""
    clients = {device: number for number, device in enumerate(group.devices)}
    tasks = tuple(
        TaskRecord.model_construct(client=clients[member.partition("/")[0]]) for member in group.members
    )
    return GroupRecord.model_construct(num_shared_steps=group.shared_steps, tasks=tasks)


def sealed(members: int) -> bytes:
    keys = [public_key(new_key()) for _ in range(members)]
    return seal(b"packet", Binding(bytes(32), 3), new_key(), keys, ROOM)


@pytest.mark.parametrize("devices", [2, 3, 4, 6])
def test_as_many_as_devices_send_that_are_connected_from_the_beginning(
    devices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[Send] = []
    packets: list[Elected] = []
    take = Cluster.take

    def counting(self: Cluster, one: str, decisions: Sequence[Decision]) -> None:
        messages.extend(each for each in decisions if isinstance(each, Send))
        packets.extend(each.group for each in decisions if isinstance(each, SendPacket))
        take(self, one, decisions)

    monkeypatch.setattr(Cluster, "take", counting)
    far = next(row for row in range(60) if signature(row, 0).node != signature(0, 0).node)
    # a group of all, and a group of two
    offers = [offer(number, [(0, 0)] + [(far, 0)] * (number < 2)) for number in range(devices)]
    Cluster.of(offers).deliver_all([])
    groups = elect_all(offers)
    assert sorted(len(group.devices) for group in groups) == sorted([2, devices])
    counted = device_bytes("cluster", [record_of(group) for group in groups], devices, ROOM)
    assert counted["messages"] == len(messages) * (LENGTH + MAX_PEER_MESSAGE)
    assert len(packets) == sum(len(group.devices) - 1 for group in groups)
    assert counted["packets"] == sum(LENGTH + len(sealed(len(group.devices) - 1)) for group in packets)
