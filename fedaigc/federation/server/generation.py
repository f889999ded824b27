"""Collaborative generation over Flower: signatures, groups, shared steps, packets and reports."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from flwr.app import RecordDict

from fedaigc.bounds import MAX_TASKS
from fedaigc.collaboration.between_devices import device_bytes
from fedaigc.collaboration.equality.twin_packets import twin_packet_bytes
from fedaigc.collaboration.link import SimulatedLink
from fedaigc.collaboration.planner import Assignment, Executor, plan_assignments
from fedaigc.collaboration.sealing import packet_room
from fedaigc.collaboration.session import FinishOrder, ShareOrder, Twin, carry_out
from fedaigc.device.batched_steps import Tree, run_batched_steps
from fedaigc.device.replies import Failure, FinishReport, SharedSteps
from fedaigc.device.shared_steps import Line, run_shared_steps
from fedaigc.diffusion.adapters.stages import SharedState, install
from fedaigc.diffusion.exactness import prove_divisible
from fedaigc.diffusion.handoff.packing import check_magnitude, unpack
from fedaigc.diffusion.sampling.noise_matched import check_matched
from fedaigc.diffusion.sampling.pipeline_call import check_true_guidance
from fedaigc.diffusion.sampling.segment import latents_shape
from fedaigc.diffusion.schedule.noise_draws import draws_noise
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import PacketError, UserError
from fedaigc.federation.config.run_config import FederationConfig, GenerationSection
from fedaigc.federation.node_sharing import node_disclosure
from fedaigc.federation.output.records import GenerationRecord
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.progress import Stage
from fedaigc.federation.server.edges.generation import send_states, with_edges
from fedaigc.federation.server.exchange import parsed
from fedaigc.federation.server.roster import Roster
from fedaigc.federation.server.sharing.by_topology import executors, planned_by_topology
from fedaigc.federation.server.sharing.equal_prompts import OWN, equal_prompts, last_handoff
from fedaigc.federation.server.sharing.group_conditioning import (
    check_run_conditioning,
    group_conditionings,
    vectors_of,
)
from fedaigc.federation.server.sharing.offers import take_handoffs
from fedaigc.federation.server.sharing.planned import PlannedGroups
from fedaigc.federation.server.sharing.run_planner import asked, plan_sharing
from fedaigc.federation.stopwatch import Stopwatch
from fedaigc.federation.wire import equality_messages, generation_messages
from fedaigc.federation.wire.messages import Ask, body, shared_state_record
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.grouping import Group
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE

SIGNATURES = Stage("signatures")


class FlowerPeers:
    """The devices of a roster, as the peers of a `collaboration.session`.

    Args:
        roster: The clients and how to reach them.
        deadline_s: Seconds after which a missing reply is `Failure.LATE`.
        watch: Measures the time of each exchange.
        shape: Shape of the plan's latents.
    """

    def __init__(
        self, roster: Roster, deadline_s: float | None, watch: Stopwatch, shape: tuple[int, ...]
    ) -> None:
        self._roster = roster
        self._shape = shape
        self._deadline_s = deadline_s
        self._watch = watch

    def share(self, orders: Sequence[ShareOrder]) -> list[SharedSteps | Failure]:
        """Send the orders for shared steps to the helpers and return their replies."""
        found: dict[int, SharedSteps | Failure] = {}
        for kind, record, read in (
            (Ask.SHARE, generation_messages.share_record, _shared_steps),
            (Ask.TWINS, equality_messages.twin_order_record, _twin_steps),
        ):
            chosen = [n for n, order in enumerate(orders) if (order.twins is not None) is (kind is Ask.TWINS)]
            if not chosen:
                continue
            asked = [(int(orders[n].client), record(orders[n])) for n in chosen]
            with self._watch.timing("shared steps"):
                replies = self._roster.ask_many(kind, asked, Stage("shared steps"), self._deadline_s)
            for n, reply in zip(chosen, replies, strict=True):
                found[n] = parsed(reply, partial(read, order=orders[n], shape=self._shape))
        return [found[n] for n in range(len(orders))]

    def finish(self, orders: Sequence[FinishOrder]) -> list[FinishReport | Failure]:
        """Send the orders to finish tasks to their devices and return the reports."""
        asked = [(order.client, generation_messages.finish_record(order)) for order in orders]
        with self._watch.timing("own steps"):
            replies = self._roster.ask_many(Ask.FINISH, asked, Stage("own steps"), self._deadline_s)
        return [parsed(reply, generation_messages.read_report) for reply in replies]


def plan_generation(shared: SharedState, config: FederationConfig) -> DenoisingPlan:
    """Return the plan of every task under this shared state.

    Raises:
        UserError: If the number of shared steps exceeds the steps before t* or the steps of the plan, or if a run
            cannot be resumed there under the configured hand-off, or if the pipeline's divided runs do not equal its
            stock call.
    """
    pipe, base_hash = base_model(config.model)
    settings = config.generation
    prove_divisible(
        pipe, guidance_scale=settings.guidance_scale, height=config.model.height, width=config.model.width
    )
    plan = build_plan(
        pipe,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        height=config.model.height,
        width=config.model.width,
        negative_prompt=settings.negative_prompt,
        base_hash=base_hash,
        shared_hash=shared.hash(),
        boundary_log_snr=shared.boundary_log_snr,
        arguments=settings.arguments,
    )
    check_true_guidance(pipe, plan.call, plan.negative_prompt)
    if settings.link is not None and settings.link.known_errors is not None:
        check_matched(plan)
    if settings.edge_batch > 1 and draws_noise(plan):
        raise UserError(
            f"generation.edge_batch = {settings.edge_batch}: {plan.scheduler_class} draws noise in its steps, and a "
            "batch would draw it for all of its groups; set it to 1"
        )
    if settings.denoiser is not None:
        node_disclosure(config)  # files for another model are refused here
        check_run_conditioning(pipe, plan, config)
    # of no groups: a wrong number of shared steps is refused here
    _assign(PlannedGroups((), {str(k): k for k in settings.ladder}), {}, plan, config)
    if settings.planner is not None:
        plan_sharing({}, {}, plan, config)
    return plan


@dataclass(frozen=True)
class WaitingTasks:
    """The tasks that wait on the devices.

    Attributes:
        signatures: Signature by task id. None marks a task that must run alone.
        owners: Client by task id.
        refused: Clients that failed to name their tasks, with the kind of failure.
        unreadable: Number of prompts that a device cannot read, by client.
        seconds: Duration of the query.
    """

    signatures: dict[str, Disclosed | None]
    owners: dict[str, int]
    refused: dict[int, Failure]
    unreadable: dict[int, int]
    seconds: float = 0.0


def waiting_tasks(roster: Roster, config: FederationConfig, stage: Stage | None = SIGNATURES) -> WaitingTasks:
    """Ask every device for its waiting tasks.

    Args:
        roster: The clients to ask.
        config: Provides the deadline and the policy.
        stage: The stage of the reported progress. None reports no progress.
    """
    asked = {client: body() for client in roster.clients}
    watch = Stopwatch()
    with watch.timing("signatures"):
        replies = roster.ask(Ask.SIGNATURES, asked, stage, config.generation.deadline_s)
    return replace(_signatures(replies, config.generation), seconds=watch.seconds["signatures"])


def generate(
    roster: Roster, shared: SharedState, config: FederationConfig, waiting: WaitingTasks
) -> GenerationRecord:
    """Serve the waiting tasks and return the record of this generation.

    A device that fails, or whose reply cannot be read, loses only its own tasks.

    Raises:
        UserError: As `plan_generation`.
    """
    settings, watch = config.generation, Stopwatch()
    with watch.timing("base model"):
        pipe, _ = base_model(config.model)
    signatures, owners = waiting.signatures, waiting.owners
    # a client without a task of its own neither helps nor finishes images
    states = {client: shared_state_record(shared) for client in sorted(set(owners.values()))}
    send_states(roster, shared, states, config)
    with watch.timing("shared state"):
        roster.ask(Ask.INSTALL, states, Stage("shared state"), settings.deadline_s)
    with watch.timing("groups and plan"):
        plan = plan_generation(shared, config)
    twin_groups: list[Group] = []
    twins: dict[str, Twin] = {}
    if last := last_handoff(plan, config):
        with watch.timing("equality tests"):
            twin_groups, twins = equal_prompts(roster, signatures, owners, config)
    with watch.timing("groups and plan"):
        others = {task: signature for task, signature in signatures.items() if task not in twins}
        planned = planned_by_topology(others, owners, plan, config)
    conditionings = group_conditionings(planned.groups, owners, config, roster, pipe)
    if settings.ladder:
        with watch.timing("hand-offs"):
            vectors = vectors_of(pipe, config, conditionings)
            deadline_s = settings.deadline_s
            if settings.planner is not None:
                planned = asked(roster, planned, owners, settings.ladder, deadline_s, vectors)
            else:
                groups, taken = take_handoffs(
                    roster, planned.groups, owners, settings.ladder, deadline_s, vectors
                )
                planned = PlannedGroups(tuple(groups), taken)
    assignments = _assign(planned, owners, plan, config)
    assignments += _assign(PlannedGroups(tuple(twin_groups)), owners, plan, config, twin_steps=last)
    # who took no hand-off runs on its own prompt
    sharing = {task for group in planned.groups if len(group.members) > 1 for task in group.members}
    conditionings = {task: given for task, given in conditionings.items() if task in sharing}
    conditionings |= dict.fromkeys(twins, OWN)

    def edge(order: ShareOrder) -> SharedSteps:
        with watch.timing("shared steps"):
            install(pipe, shared)
            return run_shared_steps(
                pipe,
                order.group_prompt,
                order.plan,
                order.stop,
                noise_seed=order.noise_seed,
                handoff=settings.handoff,
                number_format=settings.link.number_format if settings.link is not None else None,
                later=order.later,
                conditioning=order.conditioning,
                lines=order.lines,
            )

    def batched(orders: Sequence[ShareOrder]) -> list[SharedSteps | Failure]:
        trees = [
            Tree(order.noise_seed, (Line(order.group_prompt, 0, (order.stop, *order.later)), *order.lines))
            for order in orders
        ]
        with watch.timing("shared steps"):
            install(pipe, shared)
            return run_batched_steps(
                pipe,
                trees,
                plan,
                settings.edge_batch,
                handoff=settings.handoff,
                number_format=settings.link.number_format if settings.link is not None else None,
            )

    sender = PHONE if settings.between_devices else EDGE_SERVER
    link = SimulatedLink(settings.link, config.seed, sender) if settings.link is not None else None
    shape = latents_shape(pipe, plan)
    peers = FlowerPeers(roster, settings.deadline_s, watch, shape)
    at_once = batched if settings.edge_batch > 1 else None
    records = carry_out(
        assignments, owners, plan, peers, edge, link, signatures, conditionings, twins, at_once
    )
    return GenerationRecord(
        policy="node" if settings.denoiser is not None else settings.policy.value,
        plan=plan.fingerprint(),
        num_steps=plan.num_steps,
        boundary_step=plan.boundary,
        refused=waiting.refused,
        unreadable=waiting.unreadable,
        seconds={"signatures": waiting.seconds} | watch.seconds,
        groups=with_edges(records, owners, config),
        atlas=node_disclosure(config).atlas.hash if settings.denoiser is not None else None,
        device_bytes=device_bytes(
            settings.topology, records, len(set(owners.values())), packet_room(math.prod(shape))
        ),
    )


def _shared_steps(record: RecordDict, order: ShareOrder, shape: tuple[int, ...]) -> SharedSteps:
    """Return a helper's shared steps.

    Raises:
        PacketError: If the packet does not fit the order, so that no member of the group receives it.
    """
    steps = generation_messages.read_shared_steps(record)
    state = unpack(steps.packet, order.plan, shape=shape)
    check_magnitude(state, order.plan)
    if state.step != order.stop or steps.later:
        raise PacketError(f"packet of step {state.step}: expected step {order.stop}")
    if state.noise_seed is not None:
        raise PacketError("the packet has the noise stream of its group, which the members must not receive")
    return steps


def _twin_steps(record: RecordDict, order: ShareOrder, shape: tuple[int, ...]) -> SharedSteps:
    """Return an executor's packet for its twins, which the server cannot open."""
    assert order.twins is not None
    size = twin_packet_bytes(packet_room(math.prod(shape)), len(order.twins.members))
    return SharedSteps(equality_messages.read_twin_packet(record, size), 0, 0)


def _assign(
    planned: PlannedGroups,
    owners: Mapping[str, int],
    plan: DenoisingPlan,
    config: FederationConfig,
    twin_steps: int | None = None,
) -> list[Assignment]:
    """Assign groups their work; `twin_steps` is the number of shared steps of groups with equal prompts."""
    settings = config.generation
    return plan_assignments(
        planned.groups,
        owners,
        plan,
        num_shared_steps=settings.num_shared_steps if twin_steps is None else twin_steps,
        seed=None if config.seeded_noise is False else config.seed,
        executor=settings.executor if twin_steps is None else Executor.MEMBER,
        handoff=settings.handoff,
        taken=planned.handoffs,
        branches=planned.branches,
        elected=executors(planned.groups, owners, config),
    )


def _signatures(replies: dict[int, RecordDict | Failure], settings: GenerationSection) -> WaitingTasks:
    """Return the tasks in the replies, at most `MAX_TASKS`: first tasks of all devices before second ones."""
    failures: dict[int, Failure] = {}
    signatures: dict[str, Disclosed | None] = {}
    owners: dict[str, int] = {}
    unreadable: dict[int, int] = {}
    places: dict[str, int] = {}
    read = partial(
        generation_messages.read_signatures, policy=settings.policy, nodes=settings.denoiser is not None
    )
    for client, reply in sorted(replies.items()):
        told = parsed(reply, read)
        if isinstance(told, Failure):
            failures[client] = told
            continue
        found, count = told
        if count:
            unreadable[client] = count
        # a task belongs to the client that named it first
        for place, task_id in enumerate([task_id for task_id in found if task_id not in owners]):
            owners[task_id] = client
            signatures[task_id] = found[task_id]
            places[task_id] = place
    if len(owners) > MAX_TASKS:
        taken = set(sorted(owners, key=lambda task_id: (places[task_id], owners[task_id]))[:MAX_TASKS])
        owners = {task_id: owner for task_id, owner in owners.items() if task_id in taken}
        signatures = {task_id: told for task_id, told in signatures.items() if task_id in taken}
    return WaitingTasks(signatures, owners, failures, unreadable)
