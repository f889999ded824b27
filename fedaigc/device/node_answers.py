"""What a device answers about a prompt in the denoiser's space."""

from fedaigc.device.device import Device
from fedaigc.device.replies import DeviceError, Failure
from fedaigc.device.training.local_round import put_adapters
from fedaigc.semantics.denoiser.node_signature import NodeDisclosure, NodeSignature
from fedaigc.semantics.denoiser.offer import NO_NODE, Offer
from fedaigc.semantics.denoiser.sharing_distance import distance


def node_signature(device: Device, task_id: str, disclosure: NodeDisclosure) -> NodeSignature | None:
    """Return the node that may be disclosed of a prompt, as the base model sees it; None: it runs alone."""
    put_adapters(device.pipe, None, None)
    disclosed = disclosure.disclose(device.pipe, device.prompts.get(task_id).prompt)
    device.prompts.note_disclosed(task_id, disclosed)
    return disclosed


def handoff(device: Device, offer: Offer, disclosure: NodeDisclosure) -> int:
    """Return the hand-off that the device takes of an offer; 0: it runs alone. Without a calibration it is the first.

    The offer is counted, durably, before anything is computed from the prompt.

    Raises:
        UnknownTask: If the task does not wait, or answers no further offer.
        DeviceError: If the offer is for a node that the device did not disclose of this prompt, or a vector of another
            length.
    """
    task = device.prompts.begin_offer(offer.task_id)
    put_adapters(device.pipe, None, None)
    vector = disclosure.vector(device.pipe, task.prompt)
    if offer.node == NO_NODE:
        if offer.vector.shape != vector.shape:
            raise DeviceError(
                Failure.ORDER_REFUSED, f"a vector of {len(offer.vector)} values: expected {len(vector)}"
            )
        return disclosure.handoff(distance(vector, offer.vector), offer.ladder)
    disclosed = disclosure.disclose(device.pipe, task.prompt)
    if disclosed is None or offer.node not in disclosure.atlas.lifted(disclosed.node, disclosed.highest):
        raise DeviceError(Failure.ORDER_REFUSED, "an offer for a node that was not disclosed of this prompt")
    return disclosure.handoff(disclosure.to_caption(vector, offer.node), offer.ladder)
