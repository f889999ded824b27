"""What a device answers about a prompt in the denoiser's space."""

from fedaigc.device.device import Device
from fedaigc.device.disclosing import Discloser
from fedaigc.device.home.prompts import Task
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError, Failure
from fedaigc.device.training.local_round import put_adapters
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.offer import NO_NODE, Offer
from fedaigc.semantics.denoiser.sharing_distance import distance
from fedaigc.semantics.disclosed import read_signature


def node_signature(
    device: Device, task_id: str, disclosure: NodeDisclosure, limits: OwnerLimits | None = None
) -> NodeSignature | None:
    """Return the node that may be disclosed of a prompt, as the base model sees it; None: it runs alone.

    See `Discloser.node`; `limits` is None in a simulation.
    """
    put_adapters(device.pipe, None, None)
    return Discloser(device.prompts, limits).node(task_id, disclosure, device.pipe)


def taken_step(
    device: Device, offer: Offer, disclosure: NodeDisclosure, limits: OwnerLimits | None = None
) -> int:
    """Return the step of the hand-off that the device takes of an offer; 0: it runs alone.

    Without a calibration it is that of the first one.

    The offer is counted, durably, before anything is computed from the prompt. What the answer tells is counted before
    it is sent, and is 0 where the owner's budget does not allow it. `limits` is None in a simulation.

    Raises:
        UnknownTask: If the task does not wait, or answers no further offer.
        DeviceError: If the device disclosed no node of this prompt, or not the one of the offer, or if the vector has
            another length.
    """
    task = device.prompts.begin_offer(offer.task_id)
    disclosed = disclosed_nodes(task, disclosure.atlas)
    if not disclosed:
        raise DeviceError(Failure.ORDER_REFUSED, "an offer for a prompt of which no node was disclosed")
    put_adapters(device.pipe, None, None)
    vector = disclosure.vector(device.pipe, task.prompt)
    if offer.node == NO_NODE:
        if offer.vector.shape != vector.shape:
            raise DeviceError(
                Failure.ORDER_REFUSED, f"a vector of {len(offer.vector)} values: expected {len(vector)}"
            )
        taken = disclosure.handoff(distance(vector, offer.vector), offer.ladder)
    else:
        nodes = offer.nodes or (offer.node,) * len(offer.ladder)
        if not disclosed.issuperset(nodes):
            raise DeviceError(
                Failure.ORDER_REFUSED, "an offer for a node that was not disclosed of this prompt"
            )
        taken = disclosure.handoff_along(
            [disclosure.to_caption(vector, node) for node in nodes], offer.ladder
        )
    if disclosure.calibration is None:
        # the same for every prompt
        return taken
    return Discloser(device.prompts, limits).answer(task, offer, taken, disclosure)


def disclosed_nodes(task: Task, atlas: Atlas) -> set[int]:
    """Return the nodes at which the task may be grouped by what was disclosed of it, with or without noise."""
    found: set[int] = set()
    for text in task.disclosed:
        try:
            told = read_signature(text)
        except (TypeError, ValueError):
            continue
        if isinstance(told, NodeSignature) and told.atlas == atlas.hash and told.node < len(atlas):
            found.update(atlas.lifted(told.node, told.highest))
    return found
