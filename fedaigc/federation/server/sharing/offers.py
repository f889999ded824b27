"""Offer the members of each group a ladder of hand-offs, and regroup by what they take."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from jaxtyping import Float

from fedaigc.device.replies import Failure
from fedaigc.federation.progress import Stage
from fedaigc.federation.server.exchange import parsed
from fedaigc.federation.server.roster import Roster
from fedaigc.federation.wire import generation_messages
from fedaigc.federation.wire.messages import Ask
from fedaigc.semantics.denoiser.offer import NO_NODE, Offer
from fedaigc.semantics.grouping import Group


def take_handoffs(
    roster: Roster,
    groups: Sequence[Group],
    owners: Mapping[str, int],
    ladder: Sequence[int],
    deadline_s: float | None,
    vectors: Mapping[str, Float[np.ndarray, " d"]] | None = None,
) -> tuple[list[Group], dict[str, int]]:
    """Ask every member of a group which hand-off it takes.

    A member that takes none, or does not answer, runs alone. So does one that is left without another.

    Args:
        roster: The clients and how to reach them.
        groups: Groups of tasks.
        owners: Client number by task id.
        ladder: The hand-offs, ascending.
        deadline_s: Seconds after which a missing reply counts as none.
        vectors: By task id, the vector of what its group's steps run on, where that is no public caption.

    Returns:
        The groups of those that share, with groups of one for the others; and the hand-off of each that shares.
    """
    none = np.zeros(0, np.float32)
    told = vectors or {}
    asked = [
        Offer(task, NO_NODE if task in told else group.node, tuple(ladder), told.get(task, none))
        for group in groups
        if group.node is not None and len(group.members) > 1
        for task in group.members
    ]
    if not asked:
        return list(groups), {}
    taken = ask_offers(roster, asked, owners, deadline_s)
    found = []
    for group in groups:
        members = tuple(task for task in group.members if task in taken)
        if len(members) < 2:
            members = ()
        if members:
            found.append(Group(members, group.prompt, group.signature, group.node))
        found += [Group((task,), "", None) for task in group.members if task not in members]
    shared = {task for group in found if len(group.members) > 1 for task in group.members}
    return sorted(found, key=lambda each: each.members), {t: k for t, k in taken.items() if t in shared}


def ask_offers(
    roster: Roster, offers: Sequence[Offer], owners: Mapping[str, int], deadline_s: float | None
) -> dict[str, int]:
    """Send offers, and return the hand-off of each task whose device takes one of those that it was offered.

    Args:
        roster: The clients and how to reach them.
        offers: The offers.
        owners: Client number by task id.
        deadline_s: Seconds after which a missing reply counts as none.
    """
    if not offers:
        return {}
    orders = [(owners[offer.task_id], generation_messages.offer_record(offer)) for offer in offers]
    replies = roster.ask_many(Ask.OFFER, orders, Stage("hand-offs"), deadline_s)
    taken = {}
    for offer, reply in zip(offers, replies, strict=True):
        step = parsed(reply, partial(generation_messages.read_taken, ladder=offer.ladder))
        if not isinstance(step, Failure) and step:
            taken[offer.task_id] = step
    return taken
