"""The relay that simulates distance: delayed, complete, in order."""

import asyncio
import time
from pathlib import Path

import pytest

from fedaigc.deployment.processes import free_port
from tools.deployment.delay import serve

SECONDS = 0.15


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
        await writer.drain()
    writer.close()


async def round_trip(size: int, folder: Path | None = None) -> tuple[bytes, bytes, float]:
    target, port = free_port(), free_port()
    async with await asyncio.start_server(echo, "127.0.0.1", target):
        relay = asyncio.create_task(serve(("127.0.0.1", port), ("127.0.0.1", target), SECONDS, folder))
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent = bytes(i % 251 for i in range(size))
        began = time.monotonic()
        writer.write(sent)
        writer.write_eof()
        received = await reader.read(-1)
        seconds = time.monotonic() - began
        relay.cancel()
    return sent, received, seconds


@pytest.mark.parametrize("size", [1, 3_000_000])
def test_bytes_come_late_complete_and_in_order(size: int) -> None:
    sent, received, seconds = asyncio.run(round_trip(size))
    assert received == sent
    # there and back; no upper limit: this machine may be busy
    assert seconds >= 2 * SECONDS


def test_what_it_forwards_is_kept(tmp_path: Path) -> None:
    sent, _, _ = asyncio.run(round_trip(100_000, tmp_path))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"0.to": sent, "0.from": sent}


def test_nobody_there_ends_the_connection() -> None:
    async def refused() -> None:
        port = free_port()
        relay = asyncio.create_task(serve(("127.0.0.1", port), ("127.0.0.1", free_port()), SECONDS))
        await asyncio.sleep(0.1)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        relay.cancel()

    asyncio.run(refused())
