"""Pack the denoising state of one machine into a packet, and unpack it on another machine [Du23].

A hand-off has one of two modes. "exact" sends the scheduler's history with the latents, and the continued run
equals the unsplit run bit for bit. Multistep schedulers keep up to four tensors of the size of the latents.
"latents" sends the latents alone, as the demo of [Du23] does, and multistep schedulers restart at first
order.

A delivery has one of two modes. "strict" refuses every damaged packet. "tolerant" refuses a damaged header
but accepts a body with bit errors (Figure 3 of [Du23]). Both refuse a body of another length, because the
values then no longer lie where the header states.

Latents are sent with all bits as they were computed, or in a number format
(`fedaigc.wireless.number_format`). Its range follows the plan: 4 standard deviations of the latents at that
step.

Disclosure. A packet depends on the group's prompt only, so it reveals nothing about the prompts of members.
The exception is a group whose prompt is a member's own (policy `open`): its packets reveal much about that
prompt.

- A receiver that knows the initial noise can find the prompt by running candidates. A packet therefore
  carries no noise seed unless `noise_stream` is set.
- The history of a multistep scheduler reveals the initial noise as well. PNDM keeps the sample of its first
  step, which is the initial noise. The noise can also be computed from the first model outputs. The mode
  "latents" sends no history.
- Even latents alone favour their own prompt, and more so at later steps.

docs/threats.md reports the measurements.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from fedaigc.bounds import MAX_LATENT_DEVIATIONS
from fedaigc.counting import counted
from fedaigc.diffusion.handoff.header import Handoff, PacketHeader
from fedaigc.diffusion.handoff.packet import (
    BodyTensor,
    PacketLayout,
    body_tensors,
    packet_layout,
    read_body,
    read_header,
    write_packet,
)
from fedaigc.diffusion.sampling.restart import restart_refusal
from fedaigc.diffusion.sampling.segment import DenoisingState
from fedaigc.diffusion.schedule.model_settings import differences, read_settings, to_text
from fedaigc.diffusion.schedule.plan import DenoisingPlan, latents_std
from fedaigc.errors import PacketError, UserError
from fedaigc.wireless.number_format import LOADING, FormatName, NumberFormat
from fedaigc.wireless.repair import Repair, repair

__all__ = [
    "BodyTensor",
    "Delivery",
    "Handoff",
    "PacketLayout",
    "body_tensors",
    "check_handoff",
    "check_magnitude",
    "check_settings",
    "check_shared_steps",
    "mended",
    "number_format_at",
    "pack",
    "packet_layout",
    "unpack",
]

Delivery = Literal["strict", "tolerant"]


def check_handoff(plan: DenoisingPlan, k: int, handoff: Handoff = "exact") -> None:
    """Check that step `k` of the plan is a legal hand-off step.

    Args:
        plan: The plan.
        k: The hand-off step.
        handoff: The hand-off mode.

    Raises:
        UserError: If `k` is outside of the plan, if it lies past the boundary, where only the device itself
            has the weights, or if a run cannot continue at `k` from latents alone in mode "latents".
    """
    if not 0 <= k <= plan.num_steps:
        raise UserError(f"hand-off at step {k}: the plan has steps 0 to {plan.num_steps}")
    if k > plan.boundary:
        raise UserError(
            f"hand-off at step {k}, past the stage boundary at step {plan.boundary}: the steps after it belong to the "
            f"personal stage of each device, so share at most {counted(plan.boundary, 'step')}"
        )
    refusal = restart_refusal(plan, k) if handoff == "latents" else None
    if refusal is not None:
        raise UserError(
            f"hand-off of latents at step {k}: {refusal}; choose another step or the exact hand-off"
        )


def check_shared_steps(plan: DenoisingPlan, k: int, handoff: Handoff = "exact") -> None:
    """Check that a group may share the first `k` steps of the plan: at least one step is left to each prompt.

    Args:
        plan: The plan.
        k: The number of shared steps.
        handoff: The hand-off mode.

    Raises:
        UserError: If no step is left, whereupon all prompts would have one picture, or as `check_handoff`.
    """
    if k >= plan.num_steps:
        last = plan.num_steps - 1
        raise UserError(
            f"{counted(k, 'shared step')} of {plan.num_steps}: each prompt needs a step of its own, or all have one "
            f"picture; share at most {counted(last, 'step')}, or take more steps in all"
        )
    check_handoff(plan, k, handoff)


def can_hand_off(plan: DenoisingPlan, k: int, handoff: Handoff = "exact") -> bool:
    """Return whether `check_handoff` accepts step `k`."""
    try:
        check_handoff(plan, k, handoff)
    except UserError:
        return False
    return True


def number_format_at(name: FormatName, plan: DenoisingPlan, step: int) -> NumberFormat:
    """Return the number format for latents at a step: its limit is 4 standard deviations of these latents."""
    return NumberFormat(name, LOADING * latents_std(plan, step))


def pack(
    state: DenoisingState,
    plan: DenoisingPlan,
    handoff: Handoff = "exact",
    number_format: FormatName | None = None,
    *,
    noise_stream: bool = False,
    settings: Mapping[str, str] | None = None,
) -> bytes:
    """Pack a state into a packet.

    Args:
        state: The state to send.
        plan: The plan that the state belongs to.
        handoff: The hand-off mode.
        number_format: The number format of the tensors. None sends all bits as they were computed.
        noise_stream: Whether to send the seed of the noise and the number of draws, so that a sampler that
            draws noise continues like the unsplit run. Set this only for one user's own run on several
            machines: the seed reveals the initial noise and, with it, the prompt of the steps that were run.
        settings: `model_settings` of this machine, for a packet that is passed by hand: `check_settings` compares
            them. None: no part of the packet, as where a message has them.

    Returns:
        The packet.

    Raises:
        UserError: If the state belongs to another plan, if the step cannot be resumed from latents, if values
            are not finite under a number format, or if the state lacks the history or the noise stream that
            is to be sent.
    """
    if state.plan_fingerprint != plan.fingerprint():
        raise UserError(
            f"this state belongs to plan {state.plan_fingerprint}, not to plan {plan.fingerprint()}"
        )
    check_handoff(plan, state.step, handoff)
    if noise_stream and state.noise_seed is None:
        raise UserError("this state has no noise stream: it cannot be packed with one")
    header = PacketHeader(
        plan=plan.fingerprint(),
        base=plan.base_hash,
        shared=plan.shared_hash,
        handoff=handoff,
        step=state.step,
        noise_seed=state.noise_seed if noise_stream else None,
        draw_count=state.draw_count if noise_stream else None,
        settings=to_text(settings) if settings is not None else None,
    )
    if handoff == "exact" and state.history is None:
        raise UserError("this state has no history: it can only be handed on as latents")
    history = dict(state.history or {}) if handoff == "exact" else {}
    on_air = number_format_at(number_format, plan, state.step) if number_format is not None else None
    return write_packet(header, state.latents, history, on_air)


def unpack(
    data: bytes, plan: DenoisingPlan, delivery: Delivery = "strict", shape: tuple[int, ...] | None = None
) -> DenoisingState:
    """Return the state that a packet carries, on the CPU.

    Args:
        data: The packet.
        plan: The plan that the packet must belong to.
        delivery: Whether a damaged body is refused ("strict") or accepted ("tolerant").
        shape: The shape of the plan's latents (`segment.latents_shape`), required of a packet from another
            machine. None accepts any shape.

    Returns:
        The state. Its `noise_seed` is None if the packet carries no noise stream.

    Raises:
        PacketError: If the packet is of another version, base model, shared state, plan or shape (the message
            names both), or if it is damaged in a way that `delivery` does not accept.
    """
    header, _ = read_header(data)
    for what, found, expected in (
        ("base model", header.base, plan.base_hash),
        ("shared state", header.shared, plan.shared_hash),
        ("plan", header.plan, plan.fingerprint()),
    ):
        if found != expected:
            raise PacketError(f"packet of {what} {found!r:.80}, expected {what} {expected!r}")
    header.check_steps(plan.num_steps)
    latents, history = read_body(data, verify=delivery == "strict", shape=shape)
    if not latents.is_floating_point() or latents.dim() < 2:
        raise PacketError(
            f"latents of shape {tuple(latents.shape)} and type {latents.dtype}: expected a batch of numbers"
        )
    if delivery == "strict":
        check_finite(latents, "the latents")
        for name, value in history.items():
            check_finite(value, f"{name} in the history")
    if shape is not None and latents.dtype not in (getattr(torch, plan.dtype), torch.float32):
        raise PacketError(f"latents of type {latents.dtype} for a plan in {plan.dtype}")
    return DenoisingState(
        header.step,
        latents,
        history if header.handoff == "exact" else None,
        header.noise_seed,
        header.draw_count or 0,
        plan.fingerprint(),
    )


def check_settings(data: bytes, settings: Mapping[str, str]) -> None:
    """Check that a packet is of a machine whose model has the same settings, if the packet has any.

    Args:
        data: The packet.
        settings: `model_settings` of this machine.

    Raises:
        PacketError: If a part differs (the message names it), or if the packet is damaged.
    """
    try:
        there = read_settings(read_header(data)[0].settings or "")
    except UserError as error:
        raise PacketError(f"the header of the packet: {error}") from None
    other = differences(settings, there) if there else []
    if other:
        raise PacketError(
            f"the packet is of a machine whose model has other settings: {', '.join(other)}; load the same files with "
            "the same options on both"
        )


def check_finite(value: Any, what: str) -> None:
    """Check that large tensors have no NaN and no infinity.

    Args:
        value: A tensor, a list of values, or any other value. Tensors without a batch are not checked, because
            step sizes may be infinite.
        what: The name of the value in the message.

    Raises:
        PacketError: If a value is not finite, since denoising it yields no image.
    """
    if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1:
        broken = int((~torch.isfinite(value)).sum())
        if broken:
            raise PacketError(
                f"{broken} of {value.numel()} values of {what} are not finite: they give no image"
            )
    elif isinstance(value, list | tuple):
        for item in value:
            check_finite(item, what)


def check_magnitude(state: DenoisingState, plan: DenoisingPlan) -> None:
    """Check that no value of a strictly delivered state exceeds what a run of the plan can produce.

    The limit is `MAX_LATENT_DEVIATIONS` standard deviations of the plan's latents, at step 0 or at this step,
    whichever is larger. For a history the limit is 1 + |guidance_scale| times larger, because multistep
    schedulers keep model outputs that guidance has amplified.

    Raises:
        PacketError: If a value exceeds the limit or is not finite.
    """
    std = max(latents_std(plan, step) for step in {0, state.step})
    limit = MAX_LATENT_DEVIATIONS * std
    _check_part(state.latents, limit)
    for value in (state.history or {}).values():
        _check_part(value, limit * (1 + abs(plan.guidance_scale)))


def _check_part(value: Any, limit: float) -> None:
    if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1:
        largest = float(value.abs().max())
        # not `largest > limit`, which is false for NaN
        if not largest <= limit:
            raise PacketError(f"a value of {largest:.4g}: a run of this plan stays below {limit:.4g}")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_part(item, limit)


def mended(state: DenoisingState, plan: DenoisingPlan, how: Repair) -> DenoisingState:
    """Return a received state with implausible values repaired.

    Latents are implausible beyond 4 standard deviations of the plan's latents at this step. The tensors of a
    history are earlier latents and model outputs. Their limit is twice the largest limit of the steps so far,
    because guidance carries model outputs beyond the range of the plan's latents.

    Args:
        state: The received state.
        plan: The plan that the state belongs to.
        how: The repair (see `fedaigc.wireless.repair`).

    Raises:
        PacketError: If values are still not finite after the repair, since denoising them yields no image.
    """
    latents = _finite(state.latents, LOADING * latents_std(plan, state.step), how, "latents")
    if state.history is None:
        return replace(state, latents=latents)
    limit = 2 * LOADING * max(latents_std(plan, step) for step in range(state.step + 1))
    history = {key: _mended_part(value, limit, how) for key, value in state.history.items()}
    return replace(state, latents=latents, history=history)


def _mended_part(value: Any, limit: float, how: Repair) -> Any:
    # numbers and small tensors are in the header, which is verified
    if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1:
        return _finite(value, limit, how, "values of the history")
    if isinstance(value, list | tuple):
        return type(value)(_mended_part(item, limit, how) for item in value)
    return value


def _finite(tensor: Tensor, limit: float, how: Repair, what: str) -> Tensor:
    tensor = repair(tensor, limit, how)
    broken = int((~torch.isfinite(tensor)).sum())
    if broken:
        raise PacketError(
            f"{broken} of {tensor.numel()} {what} are not finite: choose a repair, or send the packet again"
        )
    return tensor
