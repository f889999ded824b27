"""Ask waiting devices which of their prompts are equal, before groups are formed.

Tasks with the same signature are tested together, and those of which nothing is disclosed too: equal prompts have equal
signatures, unless these are drawn with noise. The server compares the tags of each pair, and forwards none.
"""

import secrets
from collections.abc import Mapping, Sequence
from functools import partial

from flwr.app import RecordDict

from fedaigc.bounds import MAX_EQUALITY_MEMBERS
from fedaigc.collaboration.conditioning import GroupConditioning
from fedaigc.collaboration.equality.blinded_keys import EqualityTest, twins
from fedaigc.collaboration.secure_sum.masks import check_key
from fedaigc.collaboration.session import Twin
from fedaigc.device.replies import Failure
from fedaigc.diffusion.handoff.packing import can_hand_off
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.progress import Stage
from fedaigc.federation.server.edges.generation import per_edge
from fedaigc.federation.server.exchange import parsed
from fedaigc.federation.server.roster import Roster
from fedaigc.federation.wire import equality_messages
from fedaigc.federation.wire.equality_messages import BlindOrder, EqualOrder
from fedaigc.federation.wire.messages import Ask
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.grouping import Group

OWN = GroupConditioning("own")
_BLINDED = Stage("keys of equality tests")
_COMPARED = Stage("equality tests")


def last_handoff(plan: DenoisingPlan, config: FederationConfig) -> int:
    """Return the last step at which twins can be handed what they share; 0 if there is none, or nothing is shared."""
    settings = config.generation
    if settings.denoiser is None or not settings.denoiser.equal_prompts or not settings.num_shared_steps:
        return 0
    steps = range(min(plan.boundary, plan.num_steps - 1), 0, -1)
    return next((step for step in steps if can_hand_off(plan, step, settings.handoff)), 0)


def equal_prompts(
    roster: Roster,
    signatures: Mapping[str, Disclosed | None],
    owners: Mapping[str, int],
    config: FederationConfig,
) -> tuple[list[Group], dict[str, Twin]]:
    """Return groups of tasks with equal prompts, and what their members are in the tests.

    A device that does not answer, or whose answer cannot be read, is in no such group.

    Args:
        roster: The devices.
        signatures: What was disclosed of each task.
        owners: Client of each task.
        config: The configuration.
    """
    sets = [(secrets.token_hex(16), tasks) for tasks in _tested_together(signatures, owners, config)]
    deadline_s = config.generation.deadline_s
    asked = [BlindOrder(task, number) for number, tasks in sets for task in tasks]
    records = [(owners[order.task_id], equality_messages.blind_order_record(order)) for order in asked]
    replies = roster.ask_many(Ask.BLIND, records, _BLINDED, deadline_s) if records else []
    keys = {}
    for blind, reply in zip(asked, replies, strict=True):
        key = parsed(reply, _read_key)
        if not isinstance(key, Failure):
            keys[blind.task_id] = key
    tests: list[tuple[EqualityTest, dict[bytes, str]]] = []
    orders: list[EqualOrder] = []
    for number, tasks in sets:
        members = {keys[task]: task for task in tasks if task in keys}
        # of repeated keys the last one counts: who repeats another's key opens nothing
        if len({owners[task] for task in members.values()}) < 2:
            continue
        tests.append((EqualityTest(config.run_key, number, tuple(members)), members))
        orders += [EqualOrder(task, number, tuple(members)) for task in members.values()]
    records = [(owners[order.task_id], equality_messages.equal_order_record(order)) for order in orders]
    replies = roster.ask_many(Ask.EQUAL, records, _COMPARED, deadline_s) if records else []
    told = {}
    for order, reply in zip(orders, replies, strict=True):
        tags = parsed(reply, partial(equality_messages.read_tags, count=len(order.keys) - 1))
        if not isinstance(tags, Failure):
            told[order.task_id] = tags
    groups: list[Group] = []
    found: dict[str, Twin] = {}
    for test, members in tests:
        said = {key: told[task] for key, task in members.items() if task in told}
        for same in twins(test, said):
            groups.append(Group(tuple(sorted(members[key] for key in same)), "", None))
            found |= {members[key]: Twin(test.number, key) for key in same}
    return groups, found


def _tested_together(
    signatures: Mapping[str, Disclosed | None], owners: Mapping[str, int], config: FederationConfig
) -> list[Sequence[str]]:
    """Return sets of tasks of two and more devices of one edge that may be equal, each of bounded size."""
    alike: dict[tuple[int, str], list[str]] = {}
    for task, signature in sorted(signatures.items()):
        edge = config.edge(owners[task]) if per_edge(config) else 0
        alike.setdefault((edge, "" if signature is None else signature.to_json()), []).append(task)
    parts = [
        tasks[start : start + MAX_EQUALITY_MEMBERS]
        for tasks in alike.values()
        for start in range(0, len(tasks), MAX_EQUALITY_MEMBERS)
    ]
    return [tasks for tasks in parts if len({owners[task] for task in tasks}) > 1]


def _read_key(record: RecordDict) -> bytes:
    key = equality_messages.read_blinded(record)
    try:
        check_key(key, "an equality test")
    except UserError as error:
        raise ValueError(str(error)) from None
    return key
