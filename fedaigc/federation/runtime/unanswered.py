"""Deletion of unanswered orders, whose content the SuperLink would otherwise keep until the run ends.

A device confirms what it received, and the SuperLink then deletes the content. An order to a device that
crashed or was offline is never confirmed: in a run of days with many devices, the database would grow by one
shared state for each such round.
"""

from flwr.serverapp.grid import Grid

from fedaigc.flower_private import ConfirmMessageReceivedRequest, HttpGrid, runtime_client


def forget(grid: Grid, message_id: str) -> None:
    """Delete the content of an order that no device will fetch any more; not needed in a simulation."""
    if not isinstance(grid, HttpGrid):
        return
    request = ConfirmMessageReceivedRequest(
        node=grid.node, run_id=grid.run.run_id, message_object_id=message_id
    )
    # the SuperLink accepts the confirmation from any node; Flower's grid confirms replies by the same call
    runtime_client(grid).ConfirmMessageReceived(request)
