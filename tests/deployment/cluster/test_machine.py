"""A round of a cluster under every order, loss, repetition and division: one executor a prompt, and always an end."""

from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.deployment.cluster.election import Elected
from fedaigc.deployment.cluster.machine import Alone, Compute, Finish, Machine, Send, SendPacket
from fedaigc.deployment.cluster.messages import Commit, Decided, GivenUp
from fedaigc.deployment.cluster.offers import SignedOffer
from tests.deployment.cluster.network import WAITS, Cluster, elect_all, name, offer

PROMPTS = st.lists(st.tuples(st.integers(0, 59), st.integers(0, 6)), max_size=3)
DEVICES = st.lists(st.tuples(PROMPTS, st.integers(0, 2)), min_size=3, max_size=5)
# four captions of one leaf, or of all: one large group
ALIKE = [([(0, 6)], 0), ([(0, 6)], 0), ([(0, 6)], 0), ([(0, 6)], 0)]


def offers_of(devices: Sequence[tuple[list[tuple[int, int]], int]]) -> list[SignedOffer]:
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


@settings(max_examples=60, deadline=None)
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


@settings(max_examples=25, deadline=None)
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


def machine_of(number: int = 1) -> tuple[Machine, list[SignedOffer], Elected]:
    """Return a machine that has committed to a group of three, whose executor is device 0."""
    offers = [offer(which, [(0, 6)], cost) for which, cost in enumerate((0, 50, 50))]
    machine = Machine(offers[number], [name(which) for which in range(3)], elect_all, WAITS, 0.0)
    for signed in offers:
        machine.offered(signed, 1.0)
    (group,) = machine.groups
    assert group.executor == name(0)
    return machine, offers, group


def test_a_device_that_offers_two_things_is_left_out() -> None:
    offers = [offer(which, [(0, 6)]) for which in range(3)]
    machine = Machine(offers[0], [name(which) for which in range(3)], elect_all, WAITS, 0.0)
    told = machine.offered(offers[1], 1.0) + machine.offered(offer(1, [(0, 6)], nonce=9), 1.0)
    # the others learn of both
    assert len([sent for sent in told if isinstance(sent, Send) and sent.to == name(2)]) == 2
    machine.offered(offers[2], 1.0)
    (group,) = machine.groups
    assert set(group.devices) == {name(0), name(2)}


def test_a_hostile_device_costs_only_the_sharing() -> None:
    # one that is not the executor can neither end the group nor answer for it
    machine, _, group = machine_of()
    assert machine.gave_up(name(2), group.digest, 2.0) == []
    assert machine.received(name(2), group.digest, 2.0) == []
    assert machine.received(name(0), "0" * 64, 2.0) == []
    # nor take its commit back, or commit in another round
    machine.committed(name(2), Commit(1, (), (group.digest,)), 3.0)
    assert machine.committed(name(2), Commit(1, (), ()), 3.0) == []
    assert machine.committed(name(0), Commit(2, (), ()), 3.0) == []
    told, finished = machine.received(name(0), group.digest, 4.0)
    assert told == Send(name(0), Decided(group.digest))
    assert isinstance(finished, Finish)
    # a packet twice, or one after the end
    assert machine.received(name(0), group.digest, 5.0) == machine.gave_up(name(0), group.digest, 5.0) == []
    late, _, group = machine_of()
    told, alone = late.committed(name(2), Commit(1, (), ()), 3.0)
    assert told == Send(name(0), Decided(group.digest))
    assert isinstance(alone, Alone)
    assert late.received(name(0), group.digest, 4.0) == []
    assert late.ended


def test_a_device_that_returns_in_time_is_not_gone() -> None:
    machine, _, _ = machine_of()
    machine.lost(name(0), 2.0)
    machine.heard(name(0))
    assert machine.tick(2.0 + 2 * WAITS.gone_s) == []
    machine.lost(name(0), 10.0)
    assert isinstance(machine.tick(10.0 + WAITS.gone_s)[-1], Alone)


def executor_of_three() -> tuple[Machine, Elected]:
    """Return a machine that computes for a group of three, and the group."""
    machine, _, group = machine_of(0)
    for other in (1, 2):
        told = machine.committed(name(other), Commit(1, (), (group.digest,)), 2.0)
    assert told == [Compute(group)]
    return machine, group


def test_an_executor_stays_until_the_others_have_its_packet() -> None:
    machine, group = executor_of_three()
    machine.computed(group.digest, 3.0)
    assert not machine.ended
    # a connection that is made only now, or again
    assert SendPacket(name(2), group) in machine.reached(name(2), 4.0)
    machine.decided(name(2), group.digest, 5.0)
    assert not machine.ended
    # the other one ends without a word, which is noticed later
    machine.lost(name(1), 6.0)
    machine.tick(6.0 + WAITS.gone_s)
    assert machine.ended


def test_an_executor_does_not_stay_for_ever() -> None:
    machine, group = executor_of_three()
    machine.failed(group.digest, "fails", 3.0)
    assert Send(name(1), GivenUp(group.digest)) in machine.reached(name(1), 4.0)
    machine.tick(3.0 + WAITS.commit_s - 1)
    assert not machine.ended
    machine.tick(3.0 + WAITS.commit_s)
    assert machine.ended


def test_an_executor_does_not_stay_for_one_that_decided_before_it() -> None:
    machine, group = executor_of_three()
    machine.decided(name(1), group.digest, 2.5)
    machine.computed(group.digest, 3.0)
    machine.decided(name(2), group.digest, 4.0)
    assert machine.ended
    # where views differ all draw alone, and nobody waits for anybody
    machine, _, group = machine_of(0)
    machine.decided(name(1), group.digest, 1.5)
    machine.committed(name(1), Commit(1, (), (group.digest,)), 2.0)
    machine.committed(name(2), Commit(1, (), ()), 2.0)
    assert machine.ended


def test_a_decision_that_was_lost_is_told_again() -> None:
    machine, _, group = machine_of()
    machine.received(name(0), group.digest, 4.0)
    assert Send(name(0), Decided(group.digest)) in machine.reached(name(0), 5.0)
    assert Send(name(0), Decided(group.digest)) not in machine.reached(name(2), 5.0)


def test_one_that_offered_and_at_whose_address_nobody_answers_is_gone() -> None:
    machine, _, _ = machine_of()
    machine.refused(name(0), 2.0)
    assert isinstance(machine.tick(2.0 + WAITS.gone_s)[-1], Alone)
    # one that has not offered yet may still start
    offers = [offer(which, [(0, 6)]) for which in range(2)]
    early = Machine(offers[0], [name(0), name(1)], elect_all, WAITS, 0.0)
    early.refused(name(1), 1.0)
    assert early.tick(2.0 + WAITS.gone_s) == []
    assert early.commit is None


def test_who_is_not_there_is_waited_for_once() -> None:
    offers = [offer(which, [(0, 6)]) for which in range(4)]
    cluster = Cluster.of(offers[:3])
    machine = Machine(offers[0], [name(which) for which in range(4)], elect_all, WAITS, 0.0)
    for signed in offers[1:3]:
        machine.offered(signed, 1.0)
    assert machine.commit is None
    machine.tick(WAITS.collect_s)
    (group,) = machine.groups
    assert set(group.devices) == set(cluster.devices)
    # one that committed earlier shows the way
    other = Machine(offers[1], [name(which) for which in range(4)], elect_all, WAITS, 0.0)
    for signed in (offers[0], offers[2]):
        other.offered(signed, 1.0)
    assert machine.commit is not None
    other.committed(name(0), machine.commit, 2.0)
    assert other.commit == machine.commit


def test_an_offer_of_another_round_does_not_count() -> None:
    own = offer(0, [(0, 6)])
    machine = Machine(own, [name(0), name(1)], elect_all, WAITS, 0.0)
    assert machine.offered(offer(1, [(0, 6)], at_round=2), 1.0) == []
    told = machine.tick(WAITS.collect_s)
    assert [sent.why for sent in told if isinstance(sent, Alone)] == ["no other device came to this round"]
    assert machine.ended
