"""uvicorn's HTTP protocol, extended to report the progress of each connection to an `Admission`."""

import asyncio
import time

from uvicorn.protocols.http.h11_impl import H11Protocol

from fedaigc.deployment.server.admission import Admission, Arrival, Stage

_BUFFER_BYTES = 1 << 16


def door_protocol(admission: Admission) -> type[asyncio.Protocol]:
    """Return the protocol class for the connections that `admission` has admitted."""

    class DoorProtocol(H11Protocol):
        arrival: Arrival

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.arrival = admission.of(transport.get_extra_info("peername"))
            # no longer by the socket: a paused transport would not notice that
            self.arrival.close = transport.abort
            transport.set_write_buffer_limits(_BUFFER_BYTES)
            if hasattr(transport, "set_read_buffer_limits"):
                # TLS only: data that has arrived and cannot be passed on yet
                transport.set_read_buffer_limits(_BUFFER_BYTES)
            self.arrival.ours = lambda: self.flow.read_paused
            if self.arrival.closed:
                transport.abort()

        def data_received(self, data: bytes) -> None:
            if self.arrival.stage is Stage.IDLE:
                self.arrival.enter(Stage.ARRIVING)
            super().data_received(data)
            self._tell(len(data))

        def pause_writing(self) -> None:
            super().pause_writing()
            self.arrival.reading_stalls = time.monotonic()

        def resume_writing(self) -> None:
            super().resume_writing()
            self.arrival.reading_stalls = None

        def on_response_complete(self) -> None:
            self.arrival.enter(Stage.IDLE)
            super().on_response_complete()
            self._tell(0)

        def _tell(self, num_bytes: int) -> None:
            """Update the stage and the progress of the connection."""
            arrival, cycle = self.arrival, self.cycle
            if cycle is None or cycle.response_complete:
                return
            if arrival.stage in (Stage.ARRIVING, Stage.IDLE):
                arrival.enter(Stage.SENDING)
            if arrival.stage is Stage.SENDING:
                arrival.progress(num_bytes)
                if not cycle.more_body:
                    arrival.enter(Stage.SERVED)

    return DoorProtocol
