"""Devices of this process as the peers of a session."""

from collections.abc import Mapping, Sequence

from fedaigc.collaboration.session import FinishOrder, ShareOrder
from fedaigc.device.device import Device
from fedaigc.device.replies import Failure, FinishReport, SharedSteps, failure_of


class LocalPeers:
    """Asks the devices one after the other; a client that is not there is unreachable.

    Attributes:
        orders: All orders to finish so far.
    """

    def __init__(self, devices: Mapping[int, Device]) -> None:
        self._devices = devices
        self.orders: list[FinishOrder] = []

    def share(self, orders: Sequence[ShareOrder]) -> list[SharedSteps | Failure]:
        """Return the packets of the helpers."""
        return [self._share(order) for order in orders]

    def finish(self, orders: Sequence[FinishOrder]) -> list[FinishReport | Failure]:
        """The members' reports."""
        self.orders += orders
        return [self._finish(order) for order in orders]

    def _share(self, order: ShareOrder) -> SharedSteps | Failure:
        if order.client not in self._devices:
            return Failure.UNREACHABLE
        assert isinstance(order.client, int)
        try:
            return self._devices[order.client].share(
                order.task_id, order.group_prompt, order.plan, order.stop, noise_seed=order.noise_seed
            )
        except Exception as error:
            return failure_of(error)

    def _finish(self, order: FinishOrder) -> FinishReport | Failure:
        if order.client not in self._devices:
            return Failure.UNREACHABLE
        device = self._devices[order.client]
        try:
            if order.packet is None:
                return device.alone(order.task_id, order.noise_seed, order.plan)
            return device.finish(order.task_id, order.packet, order.plan, noise_seed=order.noise_seed)
        except Exception:
            # as the handler of the order does: what fails there may depend on the prompt
            return Failure.NOT_FINISHED
