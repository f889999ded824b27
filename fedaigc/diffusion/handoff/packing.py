"""The hand-off: one machine's denoising state becomes a packet, another machine's state again [Du23].

Two hand-offs. "exact" sends the scheduler's history with the latents: the continued run equals the unsplit
run bit for bit (multistep schedulers keep up to four latents' worth). "latents" sends the latents alone, as
the demo of [Du23] does, and multistep schedulers restart at first order.

Two deliveries. "strict" refuses every damaged packet. "tolerant" refuses a damaged header and takes a body
with bit errors as it came (Figure 3 of [Du23]); a body of another length is refused as well, since then the
place of every value is lost, and so are the lengths that the header promises.

Latents go as they were computed, or in a stated number format (`fedaigc.wireless.number_format`) whose range
follows the plan: 4 standard deviations of the latents at that step.

What a packet discloses of its prompt. A packet is made of the group's prompt alone, so it says nothing of a
member's; where that prompt is a member's own (policy `open`), it says much. Whoever knows the initial noise
finds the prompt by running candidates: therefore a packet carries no noise seed, unless `noise_stream` is
asked for. The history of a multistep scheduler gives the same away: PNDM keeps the sample of its first step,
the initial noise itself, and from the first model outputs the noise can be computed back; "latents" does not.
Even latents alone favour their own prompt, the more the later the step. docs/threats.md has the figures.
"""

from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from fedaigc.bounds import MAX_LATENT_DEVIATIONS
from fedaigc.diffusion.handoff.packet import (
    BodyTensor,
    PacketError,
    PacketLayout,
    body_tensors,
    packet_layout,
    read_body,
    read_header,
    write_packet,
)
from fedaigc.diffusion.sampling.restart import restart_refusal
from fedaigc.diffusion.sampling.segment import DenoisingState
from fedaigc.diffusion.schedule.plan import DenoisingPlan, latents_std
from fedaigc.errors import UserError
from fedaigc.wireless.number_format import LOADING, FormatName, NumberFormat
from fedaigc.wireless.repair import Repair, repair

__all__ = [
    "BodyTensor",
    "Delivery",
    "Handoff",
    "PacketError",
    "PacketLayout",
    "body_tensors",
    "check_handoff",
    "check_magnitude",
    "mended",
    "number_format_at",
    "pack",
    "packet_layout",
    "unpack",
]

Handoff = Literal["exact", "latents"]
Delivery = Literal["strict", "tolerant"]

_KEYS = frozenset(
    [
        "plan",
        "base",
        "shared",
        "handoff",
        "step",
        "latents",
        "history",
        "body_bytes",
        "body_sha256",
    ]
)
_STREAM_KEYS = frozenset(["noise_seed", "draw_count"])


def check_handoff(plan: DenoisingPlan, k: int, boundary: int, handoff: Handoff = "exact") -> None:
    """Check that step `k` of the plan is a legal hand-off.

    boundary: first step on the personal side of t* (`boundary_step`); the number of steps where nobody has a
    personal adapter. Raises UserError for a `k` outside of the plan, or past the boundary, since only the
    device itself has the weights of those steps, and for one where a run cannot continue from latents alone.
    """
    if not 0 <= k <= plan.num_steps:
        raise UserError(f"hand-off at step {k}: the plan has steps 0 to {plan.num_steps}")
    if k > boundary:
        raise UserError(
            f"hand-off at step {k}, past the stage boundary at step {boundary}: the personal adapter never "
            f"leaves its device, so share at most {boundary} steps"
        )
    refusal = restart_refusal(plan, k) if handoff == "latents" else None
    if refusal is not None:
        raise UserError(
            f"hand-off of latents at step {k}: {refusal}; choose another step or the exact hand-off"
        )


def can_hand_off(plan: DenoisingPlan, k: int, boundary: int, handoff: Handoff = "exact") -> bool:
    """Whether `check_handoff` lets step `k` pass."""
    try:
        check_handoff(plan, k, boundary, handoff)
    except UserError:
        return False
    return True


def number_format_at(name: FormatName, plan: DenoisingPlan, step: int) -> NumberFormat:
    """The number format for latents at a step of the plan: its limit is 4 of their standard deviations."""
    return NumberFormat(name, LOADING * latents_std(plan, step))


def pack(
    state: DenoisingState,
    plan: DenoisingPlan,
    handoff: Handoff = "exact",
    number_format: FormatName | None = None,
    *,
    noise_stream: bool = False,
) -> bytes:
    """The packet of a state. number_format: None for all bits as they were computed.

    noise_stream: carry the seed of the noise and how much of it was drawn, so that a sampler that draws noise
    goes on as the unsplit run. Only for one user's own run on several machines: the seed gives away the
    initial noise, and with it the prompt of the steps that were run.

    Raises UserError for a state of another plan or a step that latents cannot resume, for latents that are
    not finite under a number format, and for a stream that the state does not have.
    """
    if state.plan_fingerprint != plan.fingerprint():
        raise UserError(
            f"this state belongs to plan {state.plan_fingerprint}, not to plan {plan.fingerprint()}"
        )
    check_handoff(plan, state.step, plan.num_steps, handoff)
    header = {
        "plan": plan.fingerprint(),
        "base": plan.base_hash,
        "shared": plan.shared_hash,
        "handoff": handoff,
        "step": state.step,
    }
    if noise_stream:
        if state.noise_seed is None:
            raise UserError("this state came without its noise stream: it cannot be handed on with it")
        header |= {"noise_seed": state.noise_seed, "draw_count": state.draw_count}
    if handoff == "exact" and state.history is None:
        raise UserError("this state came without its history: it can be handed on as latents only")
    history = dict(state.history or {}) if handoff == "exact" else {}
    on_air = number_format_at(number_format, plan, state.step) if number_format is not None else None
    return write_packet(header, state.latents, history, on_air)


def unpack(
    data: bytes, plan: DenoisingPlan, delivery: Delivery = "strict", shape: tuple[int, ...] | None = None
) -> DenoisingState:
    """The state that a packet carries, on the CPU; its `noise_seed` is None when it came without its stream.

    shape: of the plan's latents (`segment.latents_shape`), which a packet from another machine must have;
    None for any. Raises PacketError for a packet of another version, base model, shared state, plan or shape,
    naming both, and for a damaged one as the delivery asks.
    """
    header, _ = read_header(data)
    if header.keys() not in (_KEYS, _KEYS | _STREAM_KEYS):
        raise PacketError(f"the header has {sorted(header)!a:.200}: expected {', '.join(sorted(_KEYS))}")
    for what, key, expected in (
        ("base model", "base", plan.base_hash),
        ("shared state", "shared", plan.shared_hash),
        ("plan", "plan", plan.fingerprint()),
    ):
        if header[key] != expected:
            raise PacketError(f"packet of {what} {header[key]!r:.80}, expected {what} {expected!r}")
    _check_numbers(header, plan)
    latents, history = read_body(data, verify=delivery == "strict", shape=shape)
    if not latents.is_floating_point() or latents.dim() < 2:
        raise PacketError(
            f"latents of shape {tuple(latents.shape)} and type {latents.dtype}: expected a batch of numbers"
        )
    if shape is not None and latents.dtype not in (getattr(torch, plan.dtype), torch.float32):
        raise PacketError(f"latents of type {latents.dtype} for a plan in {plan.dtype}")
    return DenoisingState(
        header["step"],
        latents,
        history if header["handoff"] == "exact" else None,
        header.get("noise_seed"),
        header.get("draw_count", 0),
        plan.fingerprint(),
    )


def check_magnitude(state: DenoisingState, plan: DenoisingPlan) -> None:
    """Check a state of strict delivery: no value of it may be larger than a run of the plan can make it.

    The limit is `MAX_LATENT_DEVIATIONS` standard deviations of the plan's latents, before its first step or
    here; guidance carries what the denoiser says, which multistep schedulers keep, further by its scale.
    Raises PacketError for a value beyond, or one that is not finite.
    """
    std = max(latents_std(plan, step) for step in {0, state.step})
    limit = MAX_LATENT_DEVIATIONS * std
    _check_part(state.latents, limit)
    for value in (state.history or {}).values():
        _check_part(value, limit * (1 + abs(plan.guidance_scale)))


def _check_part(value: Any, limit: float) -> None:
    if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1:
        largest = float(value.abs().max())
        # not `largest > limit`, which is false of what is no number
        if not largest <= limit:
            raise PacketError(f"a value of {largest:.4g}: a run of this plan stays below {limit:.4g}")
    elif isinstance(value, list | tuple):
        for item in value:
            _check_part(item, limit)


def mended(state: DenoisingState, plan: DenoisingPlan, how: Repair) -> DenoisingState:
    """A received state with what is implausible in it mended.

    Implausible are latents beyond 4 standard deviations of the plan's at this step. The tensors of a history
    are earlier latents and what the denoiser said of them, so they get twice the largest limit of the steps
    behind them: guidance carries what it says beyond the plan's.

    Raises PacketError for numbers that are not finite after that: they would denoise to nothing.
    """
    latents = _finite(state.latents, LOADING * latents_std(plan, state.step), how, "latents")
    if state.history is None:
        return replace(state, latents=latents)
    limit = 2 * LOADING * max(latents_std(plan, step) for step in range(state.step + 1))
    history = {key: _mended_part(value, limit, how) for key, value in state.history.items()}
    return replace(state, latents=latents, history=history)


def _mended_part(value: Any, limit: float, how: Repair) -> Any:
    # numbers and short rows of them cross in the header, which arrives safely
    if isinstance(value, Tensor) and value.is_floating_point() and value.dim() > 1:
        return _finite(value, limit, how, "values of the history")
    if isinstance(value, list | tuple):
        return type(value)(_mended_part(item, limit, how) for item in value)
    return value


def _finite(tensor: Tensor, limit: float, how: Repair, what: str) -> Tensor:
    tensor = repair(tensor, limit, how)
    broken = int((~torch.isfinite(tensor)).sum())
    if broken:
        raise PacketError(f"{broken} of {tensor.numel()} {what} are not finite: mend them, or send again")
    return tensor


def _check_numbers(header: dict[str, Any], plan: DenoisingPlan) -> None:
    """A packet comes from another machine: no number in it may cost this one more than a run of the plan."""
    limits = {
        "step": (0, plan.num_steps),
        "noise_seed": (-(2**63), 2**64 - 1),
        # the initial noise, and what `windowed_scheduler` allows a step
        "draw_count": (0, 1 + 4 * plan.num_steps),
        "body_bytes": (1, 2**40),
    }
    for name, (low, high) in limits.items():
        if name in _STREAM_KEYS - header.keys():
            continue
        if type(header[name]) is not int or not low <= header[name] <= high:
            raise PacketError(f"the header's {name} is {header[name]!r:.40}: expected {low} to {high}")
    if header["handoff"] not in ("exact", "latents"):
        raise PacketError(f"the header's handoff is {header['handoff']!r:.40}: expected exact or latents")
    if not isinstance(header["history"], dict) or (header["handoff"] == "latents" and header["history"]):
        raise PacketError("the header's history is no object, or there is one beside a hand-off of latents")
