"""A round of a cluster under every order, loss, repetition and division: one executor a prompt, and always an end."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.deployment.cluster.machine import Finish
from tests.deployment.cluster.network import Cluster, elect_all, name, offer

PROMPTS = st.lists(st.tuples(st.integers(0, 59), st.integers(0, 6)), max_size=3)
DEVICES = st.lists(st.tuples(PROMPTS, st.integers(0, 2)), min_size=3, max_size=5)
# four captions of one leaf, or of all: one large group
ALIKE = [([(0, 6)], 0), ([(0, 6)], 0), ([(0, 6)], 0), ([(0, 6)], 0)]


def offers_of(devices: Sequence[tuple[list[tuple[int, int]], int]]) -> list:  # type: ignore[type-arg]
    return [offer(number, prompts, cost) for number, (prompts, cost) in enumerate(devices)]


def check(cluster: Cluster) -> None:
    """One executor a prompt, a packet only from it, and one decision for each prompt of a device that lives."""
    executors: Counter[str] = Counter()
    computed = {}
    for device in cluster.devices.values():
        for group in device.computed:
            computed[group.digest] = group
            assert group.executor == device.offer.offer.device
            executors.update(group.members)
    assert all(count == 1 for count in executors.values())
    for device in cluster.devices.values():
        tasks = [decision.task for decision in device.decided]
        assert len(set(tasks)) == len(tasks)
        assert set(tasks) <= set(device.offer.offer.tasks)
        if device.alive:
            assert device.machine.ended
            assert set(tasks) == set(device.offer.offer.tasks)
        for decision in device.decided:
            if isinstance(decision, Finish):
                assert computed[decision.group.digest] == decision.group
                assert decision.task in decision.group.members


@settings(max_examples=100, deadline=None)
@given(
    st.one_of(DEVICES, st.just(ALIKE)),
    st.lists(st.integers(0, 10_000), max_size=150),
    st.lists(st.tuples(st.integers(0, 150), st.integers(0, 4)), max_size=2),
    st.lists(st.floats(0, 100), max_size=5),
    st.booleans(),
)
def test_never_two_executors_and_always_an_end(
    devices: list[tuple[list[tuple[int, int]], int]],
    actions: list[int],
    killed: list[tuple[int, int]],
    starts: list[float],
    heals: bool,
) -> None:
    cluster = Cluster.of(offers_of(devices), starts[: len(devices)])
    for number, action in enumerate(actions):
        for at, which in killed:
            if at == number:
                cluster.kill(name(which % len(devices)))
        cluster.act(action)
    if heals:
        cluster.sides = {}
        cluster.meet()
        cluster.deliver_all([])
    cluster.settle()
    check(cluster)


@settings(max_examples=50, deadline=None)
@given(
    st.one_of(DEVICES, st.just(ALIKE)),
    st.lists(st.integers(0, 10_000), max_size=200),
    st.lists(st.floats(0, 50), max_size=5),
)
def test_every_order_gives_what_is_elected_from_all_offers(
    devices: list[tuple[list[tuple[int, int]], int]], order: list[int], starts: list[float]
) -> None:
    offers = offers_of(devices)
    cluster = Cluster.of(offers, starts[: len(devices)])
    for number in order:
        if cluster.flying:
            cluster.deliver(number % len(cluster.flying), again=bool(number % 3 == 0))
    cluster.deliver_all(order)
    check(cluster)
    groups = {task: group for group in elect_all(offers) for task in group.members}
    for device in cluster.devices.values():
        for decision in device.decided:
            if isinstance(decision, Finish):
                assert groups[decision.task] == decision.group
            else:
                assert decision.task not in groups
    computed = [group for device in cluster.devices.values() for group in device.computed]
    assert sorted(computed, key=lambda group: group.members) == elect_all(offers)
