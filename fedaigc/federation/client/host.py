"""What a device's handlers need of the process in which it answers."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from fedaigc.device.device import Device
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError, Failure
from fedaigc.device.scoring import Scorer
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.policy import Policy


@runtime_checkable
class Host(Protocol):
    """The process in which a device answers.

    Attributes:
        client: Number of the client in the federation.
        scores: Whether reports may hold the judge's coarse scores. Anyone with a model and a judge could use
            them to search for the private prompt.
        limits: Limits of the device's owner; None where the same party runs the server and owns the devices.
        trusted_keys: Node keys, in the OpenSSH format, of the devices that the owner sums conditionings with; None: of
            any.
    """

    client: int
    scores: bool
    limits: OwnerLimits | None
    trusted_keys: frozenset[bytes] | None

    def base_hash(self) -> str:
        """Return the fingerprint of the base model."""
        ...

    def open_device(self, scorer: Scorer | None = None) -> Device:
        """Open the device. DeviceError if it has no home."""
        ...

    def permitted(self, policy: Policy, min_public_prompts: int) -> tuple[Policy, int]:
        """Return what the device's owner permits to disclose of a prompt.

        Args:
            policy: The policy that the server asks for.
            min_public_prompts: The number of public prompts that the server asks for.

        Returns:
            The permitted policy and the permitted number of public prompts.
        """
        ...

    def node_disclosure(self, config: FederationConfig) -> NodeDisclosure:
        """Return how this device discloses nodes of an atlas, as far as its owner permits it.

        Raises:
            UserError: If atlas or calibration is missing, damaged, or for another model or plan.
        """
        ...

    def signer(self) -> tuple[bytes, Callable[[bytes], bytes]] | None:
        """Return the device's public node key in the OpenSSH format, and what signs a text with it; None: no key."""
        ...

    def note(self, text: str) -> None:
        """Keep the text of an error where only the owner can read it."""
        ...


def check_discloses(host: Host, config: FederationConfig) -> None:
    """Check that the device discloses anything at all of its prompts.

    Raises:
        DeviceError: If its owner, or the run, lets it be silent.
    """
    settings = config.generation
    if host.permitted(settings.policy, settings.min_public_prompts)[0] is Policy.SILENT:
        raise DeviceError(Failure.ORDER_REFUSED, "a question about a prompt of a device that is silent")
