"""A relay that delays every byte, to simulate propagation delay where the kernel cannot.

    python -m tools.deployment.delay LISTEN_HOST LISTEN_PORT HOST PORT SECONDS

It writes all bytes SECONDS after it read them, in both directions, in order and without limiting the rate.
"""

import asyncio
import sys


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, seconds: float) -> None:
    """Forward bytes `seconds` after their arrival, until the sender closes the connection."""
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
            held.put_nowait((loop.time() + seconds, data))
        held.put_nowait((loop.time() + seconds, b""))
        await delivering
    except OSError:
        delivering.cancel()
        writer.close()


async def serve(listen: tuple[str, int], target: tuple[str, int], seconds: float) -> None:
    """Relay every connection to `target`, without end."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(*target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(carry(reader, far_writer, seconds), carry(far_reader, writer, seconds))
        for each in (writer, far_writer):
            each.close()

    server = await asyncio.start_server(connected, *listen)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    host, port, target_host, target_port, delay = sys.argv[1:]
    asyncio.run(serve((host, int(port)), (target_host, int(target_port)), float(delay)))
