"""Groups and executors of a cluster: those of a server on the same prompts, whatever the order of the offers."""

from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.collaboration.planner import Executor, plan_assignments
from fedaigc.deployment.cluster.messages import Commit, Decided, GivenUp, Message, Offered, decoded, encoded
from fedaigc.deployment.cluster.offers import SignedOffer, read_offer, sign
from fedaigc.deployment.peer.frames import PeerMistake
from fedaigc.deployment.peer.paired import Peers
from fedaigc.device.home.home import Home
from fedaigc.semantics.denoiser.node_groups import node_groups
from tests.deployment.cluster.network import ATLAS, PLAN, elect_all, name, offer, signature
from tests.semantics.denoiser.test_sharing_distance import plan_of

PROMPTS = st.lists(st.tuples(st.integers(0, 59), st.integers(0, 6)), max_size=3)


@settings(max_examples=30, deadline=None)
@given(st.lists(PROMPTS, min_size=3, max_size=6), st.randoms(use_true_random=False))
def test_the_groups_and_executors_are_those_of_a_server(
    pipe: Any, prompts: list[list[tuple[int, int]]], random: Random
) -> None:
    offers = [offer(number, told) for number, told in enumerate(prompts)]
    elected = elect_all(offers)
    random.shuffle(offers)
    assert elect_all(offers) == elected
    # a server that numbers the devices in the order of their fingerprints
    devices = sorted(signed.offer.device for signed in offers)
    signatures = {task: said for signed in offers for task, said in signed.offer.tasks.items()}
    owners = {task: devices.index(task.partition("/")[0]) for task in signatures}
    groups = node_groups(signatures, owners, ATLAS)  # type: ignore[arg-type]
    plan = plan_of(pipe)
    central = plan_assignments(groups, owners, plan, num_shared_steps=1, seed=0, executor=Executor.MEMBER)
    assert [
        (group.members, group.prompt, group.node, devices.index(group.executor)) for group in elected
    ] == [
        (planned.group.members, planned.group.prompt, planned.group.node, planned.executor)
        for planned in central
        if planned.shares
    ]


def test_the_cheapest_of_a_group_computes() -> None:
    offers = [offer(number, [(0, 6)], cost) for number, cost in enumerate((50, 10, 90))]
    (group,) = elect_all(offers)
    assert group.executor == name(1)
    assert group.members == tuple(sorted(signed.offer.task(0) for signed in offers))
    assert ATLAS.captions[ATLAS.medoid(group.node or 0)] == group.prompt
    # the more work is spread among equals
    far = next(row for row in range(60) if signature(row, 0).node != signature(0, 0).node)
    twice = [offer(number, [(0, 0), (far, 0)]) for number in range(3)]
    assert len({group.executor for group in elect_all(twice)}) == len(elect_all(twice)) == 2


def test_what_differs_makes_another_group_or_none() -> None:
    offers = [offer(number, [(0, 6)]) for number in range(3)]
    (group,) = elect_all(offers)
    (other,) = elect_all([offer(0, [(0, 6)], nonce=1), *offers[1:]])
    assert group.members == other.members
    assert len({group.digest, other.digest}) == len({group.noise_seed, other.noise_seed}) == 2
    # an offer of another plan stays outside, and the group of the others is another one
    (without,) = elect_all([offer(0, [(0, 6)], plan="b" * 64), *offers[1:]])
    assert name(0) not in without.devices
    # offers of others that share nothing with a group do not enter its digest
    alone = offer(7, [(0, 6)], plan="c" * 64)
    assert elect_all([*offers, alone]) == [group]
    # prompts of one device alone are no group
    assert elect_all([offer(0, [(0, 6), (0, 6)])]) == []


def test_an_offer_holds_only_as_its_device_signed_it(tmp_path: Path) -> None:
    peers = [Peers(Home.open(tmp_path / str(number), number)) for number in range(2)]
    cards = {peer.own().fingerprint: peer.own() for peer in peers}
    own, theirs = cards
    made = replace(offer(0, [(0, 2), (9, 0)]).offer, device=own)
    signed = sign(made, peers[0].tls_file)
    message = decoded(encoded(Offered(signed.text, signed.by)))
    assert isinstance(message, Offered)
    read = read_offer(message.text, message.by, cards)
    assert (read, read.digest) == (signed, signed.digest)
    assert list(read.offer.tasks) == [f"{own}/00", f"{own}/01"]

    def changed(**values: object) -> SignedOffer:
        other = replace(made)
        for key, value in values.items():
            object.__setattr__(other, key, value)
        return sign(other, peers[0].tls_file)

    with pytest.raises(PeerMistake, match="did not sign"):
        read_offer(changed(cost=1).text, signed.by, cards)
    another = changed(device=theirs)
    with pytest.raises(PeerMistake, match="did not sign"):
        read_offer(another.text, another.by, cards)
    with pytest.raises(PeerMistake, match="not of this cluster"):
        read_offer(signed.text, signed.by, {theirs: cards[theirs]})
    for wrong in (
        {"version": 2},
        {"round": 0},
        {"plan": "x"},
        {"signatures": ("{}",)},
        {"signatures": ('{"policy":"open","prompt":"x"}',)},
        {"signatures": made.signatures * 5},
        {"space": "0" * 64},
        {"space": ""},
    ):
        mine = changed(**wrong)
        with pytest.raises(PeerMistake):
            read_offer(mine.text, mine.by, cards)


@pytest.mark.parametrize(
    "message",
    [Commit(3, ("0" * 64,), (PLAN, "1" * 64)), GivenUp(PLAN), Decided(PLAN), Offered("{}", "00")],
)
def test_messages_have_one_size_and_a_closed_form(message: Message) -> None:
    assert decoded(encoded(message)) == message
    assert len(encoded(message)) == len(encoded(GivenUp("0" * 64)))
    for wrong in (
        encoded(message)[:-1],
        encoded(message).replace(b'"', b"'"),
        b'["received", {}]'.ljust(len(encoded(message))),
        b'["givenup", {"group": 1}]'.ljust(len(encoded(message))),
        bytes(len(encoded(message))),
    ):
        with pytest.raises(PeerMistake):
            decoded(wrong)
