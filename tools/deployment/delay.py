"""A relay that delays every byte, to simulate propagation delay where the kernel cannot.

    python -m tools.deployment.delay LISTEN_HOST LISTEN_PORT HOST PORT SECONDS [FOLDER]

It writes all bytes SECONDS after it read them, in both directions, in order and without limiting the rate. With FOLDER
it keeps what it forwards: of the connection number N, N.to has what went to HOST, and N.from what came from there.
"""

import asyncio
import sys
from collections.abc import Callable
from contextlib import ExitStack
from itertools import count
from pathlib import Path


async def carry(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    seconds: float,
    keep: Callable[[bytes], object] | None = None,
) -> None:
    """Forward bytes `seconds` after their arrival, until the sender closes the connection.

    Args:
        reader: Where they come from.
        writer: Where they go.
        seconds: How late they are forwarded.
        keep: Called with them as they arrive.
    """
    loop = asyncio.get_running_loop()
    held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def deliver() -> None:
        while True:
            due, data = await held.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not data:
                writer.write_eof() if writer.can_write_eof() else writer.close()
                return
            writer.write(data)
            await writer.drain()

    delivering = asyncio.create_task(deliver())
    try:
        while data := await reader.read(1 << 16):
            if keep is not None:
                keep(data)
            held.put_nowait((loop.time() + seconds, data))
        held.put_nowait((loop.time() + seconds, b""))
        await delivering
    except OSError:
        delivering.cancel()
        writer.close()


async def serve(
    listen: tuple[str, int], target: tuple[str, int], seconds: float, folder: Path | None = None
) -> None:
    """Relay every connection to `target`, without end; what is forwarded is kept in `folder`."""
    numbers = count()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(numbers)
        try:
            far_reader, far_writer = await asyncio.open_connection(*target)
        except OSError:
            writer.close()
            return
        with ExitStack() as stack:
            to = back = None
            if folder is not None:
                to, back = (
                    stack.enter_context((folder / f"{number}.{way}").open("wb", buffering=0)).write
                    for way in ("to", "from")
                )
            await asyncio.gather(
                carry(reader, far_writer, seconds, to), carry(far_reader, writer, seconds, back)
            )
        for each in (writer, far_writer):
            each.close()

    server = await asyncio.start_server(connected, *listen)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    host, port, target_host, target_port, delay, *kept = sys.argv[1:]
    asyncio.run(
        serve(
            (host, int(port)),
            (target_host, int(target_port)),
            float(delay),
            Path(kept[0]) if kept else None,
        )
    )
