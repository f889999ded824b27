"""The Flower client app: a thin layer that opens the device and passes messages to the handlers.

It serves simulations, where the homes of all devices lie in one folder. On separate machines no Flower
process opens a home: `fedaigc.deployment.agent.relay` passes the same messages to the device's agent.
"""

import torch
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fedaigc.device.device import Device
from fedaigc.device.home.home import note_error
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError, Failure, refusing
from fedaigc.device.scoring import Scorer
from fedaigc.federation.client import handlers
from fedaigc.federation.config.run_config import FederationConfig, config_from_run
from fedaigc.federation.node_sharing import node_disclosure
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.wire.messages import Ask
from fedaigc.rng import derived_seed
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.policy import Policy

app = ClientApp()


class SimulatedHost:
    """The `Host` of a simulated client; its device is one of the homes in the run's configuration."""

    scores = True
    limits: OwnerLimits | None = None
    trusted_keys: frozenset[bytes] | None = None

    def __init__(self, client: int, config: FederationConfig) -> None:
        self.client = client
        self._config = config

    def base_hash(self) -> str:
        """Return the fingerprint of the configured base model."""
        return base_model(self._config.model)[1]

    def open_device(self, scorer: Scorer | None = None) -> Device:
        """Open the device whose home belongs to this client.

        Raises:
            DeviceError: If the home does not exist.
        """
        home = self._config.home(self.client)
        if not home.is_dir():
            raise DeviceError(Failure.STORAGE, f"the home {home} does not exist")
        pipe, base_hash = base_model(self._config.model)
        return Device(
            home,
            pipe,
            base_hash=base_hash,
            taxonomy=taxonomy(),
            scorer=scorer,
            run_seed=derived_seed(self._config.seed, "device", self.client),
        )

    def permitted(self, policy: Policy, min_public_prompts: int) -> tuple[Policy, int]:
        """Permit all that the run asks for: in a simulation one user owns all devices."""
        return policy, min_public_prompts

    def node_disclosure(self, config: FederationConfig) -> NodeDisclosure:
        """Return what the run's configuration asks for: in a simulation one user owns all devices."""
        return node_disclosure(config)

    def signer(self) -> None:
        """Return None: simulated devices have no node keys."""

    def note(self, text: str) -> None:
        """Append the text to errors.log in the home."""
        note_error(self._config.home(self.client), text)


def _register(kind: Ask) -> None:
    def reply(message: Message, context: Context) -> Message:
        try:
            with refusing(Failure.CONFIGURATION_REFUSED):
                config = config_from_run(context.run_config)
            host = SimulatedHost(int(context.node_config["partition-id"]), config)
        except Exception as error:
            return Message(handlers.refused(kind, error), reply_to=message)
        # results repeat only at equal numbers of threads, and single-threaded processes share the cores best
        torch.set_num_threads(config.threads)
        return Message(handlers.answer(kind, message.content, host, config), reply_to=message)

    category, _, action = kind.value.partition(".")
    decorator = app.query(action) if category == "query" else app.train()
    decorator(reply)


for _kind in Ask:
    _register(_kind)
