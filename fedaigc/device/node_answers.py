"""What a device answers about a prompt in the denoiser's space."""

from fedaigc.device.device import Device
from fedaigc.device.training.local_round import put_adapters
from fedaigc.semantics.denoiser.node_signature import NodeDisclosure, NodeSignature


def node_signature(device: Device, task_id: str, disclosure: NodeDisclosure) -> NodeSignature | None:
    """Return the node that may be disclosed of a prompt, as the base model sees it; None: it runs alone."""
    put_adapters(device.pipe, None, None)
    disclosed = disclosure.disclose(device.pipe, device.prompts.get(task_id).prompt)
    device.prompts.note_disclosed(task_id, disclosed)
    return disclosed
