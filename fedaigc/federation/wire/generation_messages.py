"""Messages of a collaborative generation: signatures, shared steps, packets and reports."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from fedaigc.bounds import (
    MAX_ATLAS_NODES,
    MAX_DENOISING_STEPS,
    MAX_EVALUATIONS,
    MAX_LADDER,
    MAX_PACKET_BYTES,
    MAX_PHI_VALUES,
    MAX_PROMPT_CHARACTERS,
    MAX_TASKS_OF_A_DEVICE,
    MAX_UNREADABLE,
    ROUND_NUMBER,
    TASK_ID,
)
from fedaigc.collaboration.secure_sum.masks import KEY_BYTES
from fedaigc.collaboration.session import FinishOrder, ShareOrder, TwinSteps
from fedaigc.device.replies import FinishReport, SharedSteps
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.federation.wire.message_bounds import (
    check_length,
    check_noise_seed,
    check_range,
    check_text,
    checked,
)
from fedaigc.federation.wire.messages import (
    ARRAYS,
    BODY,
    PADDING,
    TENSOR_VALUES,
    body,
    checked_body,
    tensors_record,
    values_of,
)
from fedaigc.federation.wire.sum_messages import read_conditioning
from fedaigc.flower_private import recorddict_to_proto
from fedaigc.semantics.denoiser.offer import NO_NODE, Offer
from fedaigc.semantics.disclosed import Disclosed, check_asked, read_signature
from fedaigc.semantics.policy import Policy

PLAN = "plan"
TWINS = "twins"
# size of every reply to an order to finish or for a key, an offer or an equality test, whatever the outcome: see
# `of_one_size`
FINISH_REPLY_BYTES = 1024


def signatures_record(signatures: Mapping[str, Disclosed | None], unreadable: int) -> RecordDict:
    """Return what a device discloses of its waiting tasks: for one that runs alone, only its id.

    Args:
        signatures: Signature by task id; None for a task that runs alone.
        unreadable: Number of prompts that the device cannot read.
    """
    disclosed = {task_id: signature for task_id, signature in signatures.items() if signature is not None}
    alone = [task_id for task_id, signature in signatures.items() if signature is None]
    return body(
        tasks=list(disclosed),
        signatures=[signature.to_json() for signature in disclosed.values()],
        alone=alone,
        unreadable=unreadable,
    )


def read_signatures(
    record: RecordDict, policy: Policy = Policy.OPEN, *, nodes: bool = False
) -> tuple[dict[str, Disclosed | None], int]:
    """Invert `signatures_record`.

    Args:
        record: The reply.
        policy: The most disclosing policy that was asked for.
        nodes: Whether nodes of an atlas were asked for, in place of concepts.

    Raises:
        ValueError: If the reply holds anything but task ids and signatures, more tasks than a device may offer, or a
            signature that discloses more than asked for: a server is responsible for what it stores.
    """
    values = checked_body(record, {"tasks": list, "signatures": list, "alone": list, "unreadable": int})
    tasks, texts, alone = values["tasks"], values["signatures"], values["alone"]
    if len(tasks) + len(alone) > MAX_TASKS_OF_A_DEVICE:
        raise ValueError(
            f"{len(tasks) + len(alone)} tasks of a device: expected at most {MAX_TASKS_OF_A_DEVICE}"
        )
    if len(tasks) != len(texts) or len({*tasks, *alone}) != len(tasks) + len(alone):
        raise ValueError("invalid tasks: expected each task exactly once, with or without a signature")
    for task_id in (*tasks, *alone):
        check_text("task_id", task_id, TASK_ID)
    check_range(values, unreadable=MAX_UNREADABLE)
    found: dict[str, Disclosed | None] = dict(zip(tasks, map(read_signature, texts), strict=True))
    for signature in found.values():
        check_asked(signature, policy, nodes=nodes)
    return found | dict.fromkeys(alone), values["unreadable"]


PlanBuilder = Callable[[PlanRequest], DenoisingPlan]


def share_record(order: ShareOrder) -> RecordDict:
    """Return the order to run the shared steps of a group."""
    values: dict[str, Any] = {
        "task_id": order.task_id,
        "group_prompt": order.group_prompt,
        "noise_seed": order.noise_seed,
        "stop": order.stop,
    }
    if order.conditioning is None:
        record = body(**values)
    else:
        tensors = {name: tensor.float().cpu() for name, tensor in sorted(order.conditioning.items())}
        record = tensors_record(tensors, **values)
    record[PLAN] = ConfigRecord(PlanRequest.of(order.plan).values())
    return record


def read_share(record: RecordDict, client: int, build: PlanBuilder) -> ShareOrder:
    """Invert `share_record`. `build` makes the plan on this device, see `PlanRequest`.

    Raises:
        ValueError: If the message has other keys or types, or values beyond the bounds.
        UserError: If this device does not run the plan.
    """
    types: dict[str, type] = {"task_id": str, "group_prompt": str, "noise_seed": int, "stop": int}
    given = ARRAYS in record
    further: Mapping[str, type] = TENSOR_VALUES if given else {}
    read = checked_body(record, {**types, **further}, {BODY, PLAN, ARRAYS} if given else {BODY, PLAN})
    values = {name: read[name] for name in types}
    check_text("task_id", values["task_id"], TASK_ID)
    check_length("group_prompt", values["group_prompt"], MAX_PROMPT_CHARACTERS)
    check_noise_seed(values["noise_seed"])
    check_range(values, stop=MAX_EVALUATIONS)
    conditioning = read_conditioning(record) if given else None
    plan = build(PlanRequest.from_values(values_of(record, PLAN)))
    return ShareOrder(client=client, plan=plan, conditioning=conditioning, **values)


def finish_record(order: FinishOrder) -> RecordDict:
    """Return the order to finish a task: with its packet, or without one if the task runs alone."""
    record = body(task_id=order.task_id, noise_seed=order.noise_seed, packet=order.packet or b"")
    record[PLAN] = ConfigRecord(PlanRequest.of(order.plan).values())
    if order.twins is not None:
        twins = order.twins
        record[TWINS] = ConfigRecord({"number": twins.number, "executor": twins.executor, "stop": twins.stop})
    return record


def read_finish(record: RecordDict, client: int, build: PlanBuilder) -> FinishOrder:
    """Invert `finish_record`; see `read_share`."""
    records = {BODY, PLAN, TWINS} if TWINS in record else {BODY, PLAN}
    values = checked_body(record, {"task_id": str, "noise_seed": int, "packet": bytes}, records)
    check_text("task_id", values["task_id"], TASK_ID)
    check_length("packet", values["packet"], MAX_PACKET_BYTES)
    check_noise_seed(values["noise_seed"])
    plan = build(PlanRequest.from_values(values_of(record, PLAN)))
    values["packet"] = values["packet"] or None
    return FinishOrder(client=client, plan=plan, twins=_twins(record) if TWINS in record else None, **values)


def _twins(record: RecordDict) -> TwinSteps:
    values = checked(values_of(record, TWINS), {"number": str, "executor": bytes, "stop": int})
    check_text("number", values["number"], ROUND_NUMBER)
    check_range(values, stop=MAX_EVALUATIONS)
    if len(values["executor"]) != KEY_BYTES:
        raise ValueError(f"the key of an executor: expected {KEY_BYTES} bytes")
    return TwinSteps(values["number"], values["executor"], (), values["stop"])


def offer_record(offer: Offer) -> RecordDict:
    """Return an offer of hand-offs."""
    changing = {"nodes": list(offer.nodes)} if offer.nodes else {}
    return body(
        task_id=offer.task_id,
        node=offer.node,
        ladder=list(offer.ladder),
        vector=np.asarray(offer.vector, "<f4").tobytes(),
        **changing,
    )


def read_offer(record: RecordDict) -> Offer:
    """Invert `offer_record`; ValueError for other keys or types, or values beyond the bounds."""
    given = values_of(record) if BODY in record else {}
    changing: dict[str, type] = {"nodes": list} if "nodes" in given else {}
    values = checked_body(record, {"task_id": str, "node": int, "ladder": list, "vector": bytes, **changing})
    check_text("task_id", values["task_id"], TASK_ID)
    check_length("ladder", values["ladder"], MAX_LADDER)
    if any(type(step) is not int or not 0 < step <= MAX_DENOISING_STEPS for step in values["ladder"]):
        raise ValueError(f"invalid ladder: expected steps from 1 to {MAX_DENOISING_STEPS}")
    nodes = values.get("nodes", [])
    check_length("nodes", nodes, MAX_LADDER)
    if not NO_NODE <= values["node"] < MAX_ATLAS_NODES:
        raise ValueError(f"invalid node: expected {NO_NODE} to {MAX_ATLAS_NODES - 1}")
    if any(type(node) is not int or not 0 <= node < MAX_ATLAS_NODES for node in nodes):
        raise ValueError(f"invalid nodes: expected 0 to {MAX_ATLAS_NODES - 1}")
    check_length("vector", values["vector"], 4 * MAX_PHI_VALUES)
    if len(values["vector"]) % 4:
        raise ValueError("invalid vector: expected float32 numbers")
    vector = np.frombuffer(values["vector"], "<f4")
    if not np.isfinite(vector).all():
        raise ValueError("the vector of an offer is not finite: expected finite numbers")
    return Offer(values["task_id"], values["node"], tuple(values["ladder"]), vector, tuple(nodes))


def taken_record(step: int) -> RecordDict:
    """Return the step of the hand-off that a device takes; 0: it runs alone."""
    return body(handoff=step)


def read_taken(record: RecordDict, ladder: Sequence[int]) -> int:
    """Invert `taken_record`; ValueError for a step that was not offered."""
    given = values_of(record) if BODY in record else {}
    padding: dict[str, type] = {PADDING: bytes} if PADDING in given else {}
    step = checked_body(record, {"handoff": int} | padding)["handoff"]
    if step and step not in ladder:
        raise ValueError(f"invalid hand-off: expected 0 or one of {len(ladder)} that were offered")
    return int(step)


def of_one_size(record: RecordDict) -> RecordDict:
    """Pad a reply to an order to finish or for a key, an offer or an equality test to `FINISH_REPLY_BYTES` bytes.

    Its size, seen by the server or on the wire, then distinguishes neither a failure from an image nor one
    report from another. ValueError if the reply is larger.
    """
    (name,) = record
    values = values_of(record, name)
    missing = FINISH_REPLY_BYTES
    filled = record
    # protobuf length prefixes grow with the length that they state: a few iterations converge
    for _ in range(8):
        filled = RecordDict({name: ConfigRecord(values | {PADDING: bytes(max(missing, 0))})})
        excess = len(recorddict_to_proto(filled).SerializeToString()) - FINISH_REPLY_BYTES
        if not excess:
            return filled
        missing -= excess
    raise ValueError(f"a reply of {len(values)} values cannot be padded to {FINISH_REPLY_BYTES} bytes")


def shared_steps_record(steps: SharedSteps) -> RecordDict:
    """Return a helper's answer: one packet, as a helper does not wait for a better channel."""
    return body(
        packet=steps.packet, denoiser_calls=steps.denoiser_calls, denoiser_samples=steps.denoiser_samples
    )


def read_shared_steps(record: RecordDict) -> SharedSteps:
    """Invert `shared_steps_record`; ValueError for other keys, types or values beyond the bounds."""
    values = checked_body(record, {"packet": bytes, "denoiser_calls": int, "denoiser_samples": int})
    check_range(values, denoiser_calls=MAX_EVALUATIONS, denoiser_samples=2 * MAX_EVALUATIONS)
    check_length("packet", values["packet"], MAX_PACKET_BYTES)
    return SharedSteps(**values)


def report_record(report: FinishReport) -> RecordDict:
    """Return a device's report as named numbers, without the scores that it lacks."""
    return body(**{name: value for name, value in asdict(report).items() if value is not None})


def read_report(record: RecordDict) -> FinishReport:
    """Invert `report_record`; ValueError for a key or value outside the closed list."""
    given = values_of(record) if BODY in record else {}
    counts: dict[str, type] = {field.name: int for field in fields(FinishReport) if field.type is int}
    scores: dict[str, type] = {
        name: float for name in ("object_confidence", "place_confidence", "clip_score") if name in given
    }
    padding: dict[str, type] = {PADDING: bytes} if PADDING in given else {}
    values = checked_body(record, counts | scores | padding)
    check_range(values, **dict.fromkeys(counts, 2 * MAX_EVALUATIONS))
    return FinishReport(**{name: value for name, value in values.items() if name != PADDING})
