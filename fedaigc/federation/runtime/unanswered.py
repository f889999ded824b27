"""Orders that nobody answered: the SuperLink keeps their content until the run ends, if not told otherwise.

A device confirms what it received, and the SuperLink then deletes the content. Nobody confirms an order to a
device that died or was away: in a run of days with many devices, the database would grow by a shared state
for each such round.
"""

from flwr.serverapp.grid import Grid

from fedaigc.flower_private import ConfirmMessageReceivedRequest, HttpGrid, runtime_client


def forget(grid: Grid, message_id: str) -> None:
    """Delete the content of an order that nobody will take any more. In a simulation nothing keeps it."""
    if not isinstance(grid, HttpGrid):
        return
    request = ConfirmMessageReceivedRequest(
        node=grid.node, run_id=grid.run.run_id, message_object_id=message_id
    )
    # the SuperLink deletes for whoever confirms; Flower's grid confirms replies by the same call
    runtime_client(grid).ConfirmMessageReceived(request)
