"""Extraction of encodings, compressed streams, archives and pictures that start at any position in bytes."""

import base64
import binascii
import io
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterator

import pyarrow as pa
from PIL import Image

_MAGIC = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")
_ZLIB_HEADERS = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_ZSTD_HEADER = b"\x28\xb5\x2f\xfd"
_ZIP_HEADER = b"PK\x03\x04"
MAX_UNPACKED = 1 << 20


def unpacked(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield form and content of everything in base64, hexadecimal, gzip, zlib, zstd or zip."""
    for run in re.findall(rb"[A-Za-z0-9+/_-]{8,}", data):
        standard = run.translate(bytes.maketrans(b"-_", b"+/"))
        for start in range(4):
            part = standard[start:]
            yield "base64", base64.b64decode(part[: len(part) // 4 * 4])
    for run in re.findall(rb"[0-9A-Fa-f]{12,}", data):
        for start in range(2):
            part = run[start:]
            yield "hexadecimal", binascii.unhexlify(part[: len(part) // 2 * 2])
    for form, header, window in (("gzip", b"\x1f\x8b\x08", 31), *(("zlib", h, 15) for h in _ZLIB_HEADERS)):
        for at in _positions(data, header):
            try:
                inner = zlib.decompressobj(window).decompress(data[at:])
            except zlib.error:
                continue
            if inner:
                yield form, inner
    for at in _positions(data, _ZSTD_HEADER):
        inner = _zstd(data[at:])
        if inner:
            yield "zstd", inner
    if _ZIP_HEADER in data:
        yield from (("zip", inner) for inner in _archived(data))


def pictures(data: bytes) -> Iterator[tuple[str, Image.Image]]:
    """Yield format and pixels of every picture file (PNG, JPEG, GIF, BMP, WebP) in the bytes."""
    for magic in _MAGIC:
        for at in _positions(data, magic):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    with Image.open(io.BytesIO(data[at:])) as image:
                        image.load()
                        yield image.format or "picture", image.convert("RGB")
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
                continue


def _positions(data: bytes, part: bytes) -> Iterator[int]:
    at = data.find(part)
    while at >= 0:
        yield at
        at = data.find(part, at + 1)


def _zstd(data: bytes) -> bytes:
    """Return the content of the first frame, or of the available part of it."""
    inner = bytearray()
    stream = pa.CompressedInputStream(pa.BufferReader(data), "zstd")
    try:
        # read byte by byte: arrow raises an error for bytes after the frame, and discards the current read
        while len(inner) < MAX_UNPACKED and (part := stream.read(1)):
            inner += part
    except OSError:
        pass
    return bytes(inner)


def _archived(data: bytes) -> Iterator[bytes]:
    """Yield names and contents of the files in an archive, which other bytes may precede and a comment may follow."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name in archive.namelist():
                yield name.encode()
                yield archive.read(name)
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError, zlib.error):
        return
