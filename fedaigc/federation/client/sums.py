"""A device's part in the conditioning of its group: a key first, then its own conditioning under masks.

The device decides. It takes part only with a prompt of which it discloses a node, on a public caption that it accepts
for its group, in sums of at least three members, once for each prompt, and on separate machines only if its owner
permits sums.
"""

import math

import numpy as np
from flwr.app import RecordDict

from fedaigc.collaboration.secure_sum import fixed_point, noise
from fedaigc.collaboration.secure_sum.masks import Announced, SumKey, SumRound
from fedaigc.device.device import Device
from fedaigc.device.home.budget import Price
from fedaigc.device.home.prompts import Task
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.node_answers import disclosed_nodes
from fedaigc.device.replies import DeviceError, Failure
from fedaigc.diffusion.conditioning import prompt_conditioning
from fedaigc.diffusion.sampling.denormals import flushed_denormals
from fedaigc.federation.client.host import Host, check_discloses
from fedaigc.federation.client.own_tasks import count_disclosure, waiting_task
from fedaigc.federation.config.denoiser_section import DenoiserSection
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.wire import sum_messages
from fedaigc.federation.wire.sum_messages import MaskOrder
from fedaigc.semantics.denoiser.atlas import Atlas


def announce(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Report a fresh key for the sum of a task's group, signed with the node key if the device has one."""
    section = _section(host, config)
    if section.conditioning != "mean":
        raise _refused("the run asks for a key and has no sums")
    order = sum_messages.read_key_order(content)
    device = host.open_device()
    task = waiting_task(device, order.task_id)
    if not disclosed_nodes(task, host.node_disclosure(config).atlas):
        raise _refused("no node was disclosed of this prompt")
    key = SumKey()
    announced = Announced(key.public)
    device.sums.announce(task, order.number, key.public, key.private)
    signer = host.signer()
    if signer is not None:
        node_key, sign = signer
        announced = Announced(key.public, node_key, sign(announced.signed_text(config.run_key, order.number)))
    return sum_messages.key_record(announced)


def give(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Report the conditioning of a task under the masks of its sum; in a simulation without a sum, as it is."""
    section = _section(host, config)
    order = sum_messages.read_mask_order(content)
    device = host.open_device()
    task = waiting_task(device, order.task_id)
    _check_group(device, task, order.group_prompt, host.node_disclosure(config).atlas)
    if section.conditioning == "member":
        if host.limits is not None or order.members:
            raise _refused("a conditioning leaves a device as it is in simulations only")
        _count(device, task, order, None, host.limits)
        device.sums.give_clear(task, order.number)
        with flushed_denormals():
            clear = fixed_point.encode(fixed_point.flat(prompt_conditioning(device.pipe, task.prompt)))
        return sum_messages.masked_record(clear)
    with flushed_denormals():
        public = prompt_conditioning(device.pipe, order.group_prompt)
    agreed = SumRound(
        config.run_key,
        order.group_prompt,
        order.number,
        fixed_point.layout(public),
        section.noise_epsilon,
        order.members,
    )
    key = SumKey(device.sums.announced(task, order.number))
    agreed.check(key.public, also_own=device.sums.of_round(order.number), trusted=host.trusted_keys)
    # refuses keys of low order before the attempt counts
    masks = key.masked(np.zeros(fixed_point.num_values(public), np.uint64), agreed)
    _count(device, task, order, section.noise_epsilon, host.limits)
    device.sums.give(task, order.number, len(order.members), section.noise_epsilon)
    with flushed_denormals():
        own = prompt_conditioning(device.pipe, task.prompt)
        fixed_point.check_alike(own, public)
        values = fixed_point.flat(own)
        if section.noise_epsilon is not None:
            center, empty = (
                fixed_point.flat(each) for each in (public, prompt_conditioning(device.pipe, ""))
            )
            norm = noise.clipping_norm(center, empty)
            std = noise.share_std(section.noise_epsilon, norm, len(order.members))
            values = noise.noised(values, center, norm, std)
        encoded = fixed_point.encode(values)
    return sum_messages.masked_record(encoded + masks)


def _section(host: Host, config: FederationConfig) -> DenoiserSection:
    section = config.generation.denoiser
    if section is None or section.conditioning == "public":
        raise _refused("the shared steps of this run's groups run on public captions")
    check_discloses(host, config)
    if host.limits is not None and not host.limits.sums:
        raise _refused("the owner of this device permits no sums of conditionings")
    return section


def _check_group(device: Device, task: Task, group_prompt: str, atlas: Atlas) -> None:
    """Refuse a group on a caption of a node that was not disclosed of the prompt."""
    accepted = {atlas.captions[atlas.medoid(node)] for node in disclosed_nodes(task, atlas)}
    if group_prompt not in accepted:
        raise _refused(
            "the public prompt of the group is no caption of a node that was disclosed of this prompt"
        )


def _count(
    device: Device, task: Task, order: MaskOrder, noise_epsilon: float | None, limits: OwnerLimits | None
) -> None:
    """Count a conditioning in the ledger before it is sent; DeviceError if the owner's budget does not allow it."""
    epsilon = noise_epsilon
    price = Price(0.0) if epsilon is None else Price(epsilon / math.log(2), epsilon)
    text = f"masked, in a sum of {len(order.members)}" if order.members else "as it is"
    count_disclosure(
        device,
        task,
        price,
        text,
        kind="sum",
        number=order.number,
        limits=limits,
        refusal=Failure.NOT_SUMMED,
    )


def _refused(message: str) -> DeviceError:
    return DeviceError(Failure.NOT_SUMMED, message)
