"""A device's part in an equality test: a blinded key first, then tags, and steps for those with the same prompt.

The device decides. A task takes part while it waits, in few tests, on separate machines only if its owner permits
equality tests and a policy that is not silent, and what its tags tell is counted before they are sent.
"""

import math
import traceback

from flwr.app import RecordDict

from fedaigc.collaboration.equality.blinded_keys import BlindedKey, EqualityTest
from fedaigc.collaboration.equality.twin_packets import open_from_twin, seal_for_twins, sealed_to_nobody
from fedaigc.collaboration.sealing import packet_room
from fedaigc.collaboration.session import FinishOrder, ShareOrder
from fedaigc.device.device import Device
from fedaigc.device.home.budget import Price
from fedaigc.device.home.equality import EqualityLog, Tested
from fedaigc.device.home.prompts import Task
from fedaigc.device.replies import DeviceError, Failure, reading_an_order, refusing
from fedaigc.diffusion.conditioning import prompt_digest
from fedaigc.diffusion.sampling.denormals import flushed_denormals
from fedaigc.diffusion.sampling.segment import latents_shape
from fedaigc.federation.client.host import Host
from fedaigc.federation.client.own_tasks import count_disclosure, waiting_task
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.wire import equality_messages
from fedaigc.semantics.policy import Policy


def announce(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Report a fresh blinded key for an equality test."""
    _check_permitted(host, config)
    order = equality_messages.read_blind_order(content)
    device = host.open_device()
    task = waiting_task(device, order.task_id)
    key = BlindedKey(prompt_digest(device.pipe, task.prompt), config.run_key, order.number)
    _log(device).announce(task, config.run_key, order.number, key.private)
    return equality_messages.blinded_record(key.public)


def compare(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Report the tags of an equality test."""
    _check_permitted(host, config)
    order = equality_messages.read_equal_order(content)
    device = host.open_device()
    task = waiting_task(device, order.task_id)
    tested = _log(device).in_test(task, order.number, "announced")
    key = _own_key(device, task, tested)
    test = EqualityTest(tested.run, order.number, order.keys)
    test.check(key.public)
    # refuses keys of low order before the test counts
    tags = key.tags(test)
    count_disclosure(
        device,
        task,
        Price(test.bits),
        f"tags for {len(test.keys) - 1} others",
        kind="equality",
        number=test.number,
        limits=host.limits,
        refusal=Failure.NOT_COMPARED,
    )
    _log(device).answer(task, order.number, order.keys)
    return equality_messages.tags_record(tags)


def run_for_twins(content: RecordDict, host: Host, config: FederationConfig) -> RecordDict:
    """Run the first steps of a prompt, and return them sealed to the members of a test that have the same prompt.

    From here on a failure may depend on the prompt: then the packet opens for nobody, and looks like any other.
    """
    _check_permitted(host, config)
    device = host.open_device()
    with reading_an_order(), refusing(Failure.PLAN_REFUSED):
        order = equality_messages.read_twin_order(
            content, host.client, lambda request: device.plan(request, host.limits)
        )
    assert order.twins is not None
    task = waiting_task(device, order.task_id)
    tested = _log(device).execute(task, order.twins.number)
    test = _test(tested)
    if not order.twins.members or not set(order.twins.members) <= set(test.keys):
        raise DeviceError(Failure.ORDER_REFUSED, "a receiver was no member of this equality test")
    room = packet_room(math.prod(latents_shape(device.pipe, order.plan)))
    try:
        packet = _sealed(device, task, tested, order, config, room)
    except Exception:  # any error: it may depend on the prompt
        host.note(traceback.format_exc())
        packet = sealed_to_nobody(len(order.twins.members), test, order.stop, room)
    return equality_messages.twin_packet_record(packet)


def opened(device: Device, order: FinishOrder) -> bytes:
    """Return the packet of an order to finish that was sealed for twins; it can be opened once.

    Raises:
        DeviceError: If the task is in no such test, or its packet was opened before.
        SealError: If the packet was not sealed to it by a member with the same prompt.
    """
    assert order.twins is not None
    assert order.packet is not None
    task = waiting_task(device, order.task_id)
    tested = _log(device).use_up(task, order.twins.number)
    own = _own_key(device, task, tested)
    return open_from_twin(order.packet, own, _test(tested), order.twins.executor, order.twins.stop)


def forget(device: Device, task_id: str) -> None:
    """Forget the secret number of a task that is drawn otherwise."""
    _log(device).forget(device.prompts.get(task_id))


def _sealed(
    device: Device, task: Task, tested: Tested, order: ShareOrder, config: FederationConfig, room: int
) -> bytes:
    assert order.twins is not None
    with flushed_denormals():
        steps = device.share(
            task.task_id,
            task.prompt,
            order.plan,
            order.stop,
            noise_seed=order.noise_seed,
            handoff=config.generation.handoff,
        )
    own, test = _own_key(device, task, tested), _test(tested)
    return seal_for_twins(steps.packet, own, test, order.twins.members, order.stop, room)


def _check_permitted(host: Host, config: FederationConfig) -> None:
    section = config.generation.denoiser
    if section is None or not section.equal_prompts:
        raise _refused("this run compares no prompts")
    if host.limits is not None and not host.limits.equal_prompts:
        raise _refused("the owner of this device permits no equality tests")
    if host.permitted(config.generation.policy, 1)[0] is Policy.SILENT:
        raise _refused("the policy of this device is silent")


def _own_key(device: Device, task: Task, tested: Tested) -> BlindedKey:
    digest = prompt_digest(device.pipe, task.prompt)
    return BlindedKey(digest, tested.run, tested.number, bytes.fromhex(tested.private))


def _test(tested: Tested) -> EqualityTest:
    return EqualityTest(tested.run, tested.number, tuple(map(bytes.fromhex, tested.keys)))


def _log(device: Device) -> EqualityLog:
    return EqualityLog(device.prompts.home)


def _refused(message: str) -> DeviceError:
    return DeviceError(Failure.NOT_COMPARED, message)
