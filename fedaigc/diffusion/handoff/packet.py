"""Packet version 1: the bytes that carry a denoising state between two machines.

    offset  size  content
    0       4     magic "FAGC"
    4       2     version, little-endian like all numbers here
    6       4     h, the length of the header
    10      32    SHA-256 of bytes 0 to 10 and of the header
    42      h     header, see `header.PacketHeader`
    42 + h  ...   body: the latents, then the tensors of the scheduler's history, as the header lists them

Nothing in a packet is executable.

Each tensor of the body is stored in one of two forms: with the bits of its own dtype, row by row, or in a
number format for the air, as bit planes. The first plane holds the most significant bits of all values, and
the last byte is padded. A contiguous part of the body can thus be protected better than the rest.

The header holds the length and the SHA-256 of the body. It also holds the small values of a history
(counters, step sizes), so that bit errors in the body can change the image but not how the sampler proceeds.
The checksums detect damage, not forgery: they are no signature. Nor is a packet encrypted: TLS does it between a
device and a server, and `collaboration.sealing` where other machines or devices forward packets.
"""

import hashlib
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fedaigc.bounds import (
    MAX_DIMENSIONS,
    MAX_HISTORY_TENSORS,
    MAX_PACKET_HEADER_BYTES,
    MAX_SMALL_VALUES,
)
from fedaigc.diffusion.handoff.header import PacketHeader
from fedaigc.errors import PacketError, UserError
from fedaigc.storage.tensor_file import aligned
from fedaigc.wireless.number_format import FormatName, NumberFormat

VERSION = 1
_MAGIC = b"FAGC"
_PREFIX = struct.Struct("<4sHI")
_CHECKSUM_BYTES = 32
_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32)
}


@dataclass(frozen=True)
class PacketLayout:
    """Byte ranges of the parts of a packet, each as (first, one past the last).

    Attributes:
        header: Everything before the body.
        latents: The latents.
        history: The tensors of the scheduler's history.
    """

    header: tuple[int, int]
    latents: tuple[int, int]
    history: tuple[int, int]


@dataclass(frozen=True)
class BodyTensor:
    """One tensor of a packet's body.

    Attributes:
        span: Its bytes in the packet, as (first, one past the last).
        number_format: Its number format. None if it is stored with the bits of its own dtype.
        values: Number of values.
    """

    span: tuple[int, int]
    number_format: NumberFormat | None
    values: int


def write_packet(
    header: PacketHeader,
    latents: Tensor,
    history: dict[str, Any],
    number_format: NumberFormat | None = None,
) -> bytes:
    """Write a packet with these header entries, latents and scheduler history.

    Args:
        header: The header; what describes the body is filled in.
        latents: The latents.
        history: Running values of the scheduler, by name.
        number_format: The number format of the latents. Large floating-point tensors of the history use the
            same format, each with its own largest magnitude as the limit. None stores everything bit for bit.

    Raises:
        TypeError: If a history value is not a number, string, tensor, None or list of these.
        UserError: If a value to be stored in a number format is not finite.
    """
    body = [_tensor_bytes(latents, number_format)]
    name = number_format.name if number_format is not None else None
    entries = {key: _encoded(key, history[key], body, name) for key in sorted(history)}
    joined = b"".join(body)
    text = replace(
        header,
        latents=_form(latents, number_format),
        history=entries,
        body_bytes=len(joined),
        body_sha256=hashlib.sha256(joined).hexdigest(),
    ).to_json()
    prefix = _PREFIX.pack(_MAGIC, VERSION, len(text))
    return prefix + hashlib.sha256(prefix + text).digest() + text + joined


def read_header(packet: bytes) -> tuple[PacketHeader, int]:
    """Verify and return the header.

    Returns:
        The header, and the offset of the body.

    Raises:
        PacketError: If anything outside of the body is damaged, or as `PacketHeader.from_json`.
    """
    start = _PREFIX.size + _CHECKSUM_BYTES
    if len(packet) < start or packet[:4] != _MAGIC:
        raise PacketError(
            f"not a packet: expected {start} bytes or more that begin with {_MAGIC!r}, got {len(packet)}"
        )
    _, version, length = _PREFIX.unpack_from(packet)
    if version != VERSION:
        raise PacketError(f"packet version {version}, this build reads version {VERSION}")
    if length > MAX_PACKET_HEADER_BYTES:
        raise PacketError(f"a header of {length} bytes: at most {MAX_PACKET_HEADER_BYTES}")
    text = packet[start : start + length]
    checksum = hashlib.sha256(packet[: _PREFIX.size] + text).digest()
    if len(text) != length or checksum != packet[_PREFIX.size : start]:
        raise PacketError(
            f"damaged header: its checksum is {packet[_PREFIX.size : start].hex()[:16]}..., "
            f"of {len(text)} of its {length} bytes it is {checksum.hex()[:16]}..."
        )
    return PacketHeader.from_json(text), start + length


def read_body(
    packet: bytes, *, verify: bool, shape: tuple[int, ...] | None = None
) -> tuple[Tensor, dict[str, Any]]:
    """Verify the header and return the latents and the history of a packet.

    A body of another length than the header states is always refused. With bytes missing, every later value
    would be read from the wrong position, which yields a different image rather than bit errors.

    Args:
        packet: The packet.
        verify: Whether to verify the checksum of the body.
        shape: The expected shape of the latents and of all history tensors in the body. A larger tensor would
            make the remaining steps as much more expensive as it is larger. None accepts any shape.

    Returns:
        The latents, and the history by name.

    Raises:
        PacketError: If the header is damaged, if the body has another length, if its checksum differs and
            `verify` is set, or if a tensor does not have the expected shape.
    """
    header, start = read_header(packet)
    body = packet[start:]
    if len(body) != header.body_bytes:
        raise PacketError(f"the body has {len(body)} bytes, the header says {header.body_bytes}")
    found = hashlib.sha256(body).hexdigest()
    if verify and found != header.body_sha256:
        raise PacketError(f"damaged body: SHA-256 {found}, the header says {header.body_sha256}")
    _check_forms(header, shape)
    reader = _Reader(body)
    try:
        latents = reader.tensor(header.latents)
        history = {name: reader.value(entry) for name, entry in header.history.items()}
    except PacketError:
        raise
    except (AttributeError, KeyError, RecursionError, TypeError, ValueError) as error:
        # the checksum is valid, but `write_packet` did not write this header
        raise PacketError(f"the header describes an invalid history ({type(error).__name__})") from error
    if reader.position != len(body):
        raise PacketError(f"the tensors take {reader.position} bytes, the body has {len(body)}")
    return latents, history


def packet_layout(packet: bytes) -> PacketLayout:
    """Return the byte ranges of header, latents and history, e.g. to count them or to insert bit errors."""
    header, start = read_header(packet)
    middle = start + _size(header.latents)
    return PacketLayout((0, start), (start, middle), (middle, start + header.body_bytes))


def body_tensors(packet: bytes) -> list[BodyTensor]:
    """Return the tensors of a packet's body in order, e.g. to send them through a channel."""
    header, position = read_header(packet)
    found = []
    for form in _forms([header.latents, *(header.history[key] for key in sorted(header.history))]):
        size = _size(form)
        found.append(BodyTensor((position, position + size), _number_format(form), math.prod(form["shape"])))
        position += size
    return found


class _Reader:
    """Reads tensors from a body in order. Raises PacketError for invalid forms."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.position = 0

    def tensor(self, form: Any) -> Tensor:
        size = _size(form)
        raw = self.body[self.position : self.position + size]
        self.position += size
        return _tensor(form, raw)

    def value(self, entry: Any) -> Any:
        if isinstance(entry, list):
            return [self.value(item) for item in entry]
        if not isinstance(entry, dict):
            return entry
        if entry.keys() == {"float"}:
            return float(entry["float"])
        if entry.keys() == {"small", "bytes"}:
            if _size(entry["small"]) > 8 * MAX_SMALL_VALUES:
                raise PacketError(
                    "a value in the header is too large: tensors of this size belong into the body"
                )
            return _tensor(entry["small"], bytes.fromhex(entry["bytes"]))
        return self.tensor(entry)


def _forms(entry: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the forms of tensors in the body from header entries, in order."""
    if isinstance(entry, list):
        for item in entry:
            yield from _forms(item)
    elif isinstance(entry, dict) and "shape" in entry:
        yield entry


def _check_forms(header: PacketHeader, shape: tuple[int, ...] | None) -> None:
    """Raise PacketError for more tensors than any scheduler keeps, or for tensors of another shape."""
    forms = [header.latents, *_forms(list(header.history.values()))]
    if len(forms) > 1 + MAX_HISTORY_TENSORS:
        raise PacketError(f"a history of {len(forms) - 1} tensors: at most {MAX_HISTORY_TENSORS}")
    if shape is None:
        return
    for form in forms:
        _size(form)
        if tuple(form["shape"]) != shape:
            raise PacketError(f"a tensor of shape {form['shape']!r:.80}, the plan's latents have {shape}")


def _encoded(name: str, value: Any, body: list[bytes], format_name: FormatName | None) -> Any:
    """Return a history value as JSON. Large tensors are appended to `body`."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return {"float": repr(value)}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_encoded(name, item, body, format_name) for item in value]
    if isinstance(value, Tensor) and value.numel() <= MAX_SMALL_VALUES:
        return {"small": _form(value), "bytes": _tensor_bytes(value).hex()}
    if isinstance(value, Tensor):
        number_format = None
        if format_name is not None and value.is_floating_point():
            # a history of zeros has no range, so any limit serves
            number_format = NumberFormat(format_name, float(value.abs().max()) or 1.0)
        body.append(_tensor_bytes(value, number_format))
        return _form(value, number_format)
    raise TypeError(f"the scheduler keeps {name} as a {type(value).__name__}, which a packet cannot carry")


def _form(tensor: Tensor, number_format: NumberFormat | None = None) -> dict[str, Any]:
    form = {"shape": list(tensor.shape), "dtype": str(tensor.dtype).removeprefix("torch.")}
    if number_format is None:
        return form
    return form | {"format": number_format.name, "limit": number_format.limit}


def _number_format(form: Mapping[str, Any]) -> NumberFormat | None:
    """Return the number format of a form. Raises PacketError for an invalid one."""
    if "format" not in form:
        return None
    if type(form["limit"]) is not float or type(form["format"]) is not str:
        raise PacketError(f"the header has an invalid number format {form!r:.120}")
    try:
        return NumberFormat(form["format"], form["limit"])  # type: ignore[arg-type]
    except UserError as error:
        raise PacketError(f"the header has an invalid number format {form!r:.120}: {error}") from None


def _size(form: Any) -> int:
    """Return the bytes of a tensor of this form. Raises PacketError for an invalid form."""
    keys = form.keys() if isinstance(form, dict) else set()
    if (
        keys not in ({"shape", "dtype"}, {"shape", "dtype", "format", "limit"})
        or form["dtype"] not in _DTYPES
    ):
        raise PacketError(
            f"the header has an invalid tensor {form!r:.80}: expected a shape and one of {', '.join(_DTYPES)}"
        )
    shape = form["shape"]
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_DIMENSIONS
        or any(type(n) is not int or n < 1 for n in shape)
    ):
        raise PacketError(f"the header has a tensor of the invalid shape {shape!r:.80}")
    number_format = _number_format(form)
    if number_format is not None:
        return -(-math.prod(shape) * number_format.width // 8)
    return math.prod(shape) * _DTYPES[form["dtype"]].itemsize


def _tensor_bytes(tensor: Tensor, number_format: NumberFormat | None = None) -> bytes:
    """Return the values in row-major order, little-endian, or in bit planes for a number format."""
    if number_format is not None:
        bits = number_format.to_bits(tensor.detach().cpu().float().reshape(-1))
        return np.packbits(bits.T.reshape(-1)).tobytes()
    size = tensor.dtype.itemsize
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}[size]
    flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(integers).numpy()
    return flat.astype(f"<i{size}", copy=False).tobytes()


def _tensor(form: Any, raw: bytes) -> Tensor:
    if len(raw) != _size(form):
        raise PacketError(f"a tensor needs {_size(form)} bytes, the body has {len(raw)} left")
    dtype, shape, number_format = _DTYPES[form["dtype"]], form["shape"], _number_format(form)
    if number_format is not None:
        count = math.prod(shape) * number_format.width
        planes = np.unpackbits(np.frombuffer(raw, np.uint8), count=count).reshape(number_format.width, -1)
        return aligned(number_format.from_bits(planes.T).reshape(shape).to(dtype))
    size = dtype.itemsize
    # a copy: the bytes of a packet are read-only
    native = np.frombuffer(raw, dtype=f"<i{size}").astype(f"=i{size}", copy=True)
    return aligned(torch.from_numpy(native).view(dtype).reshape(shape))
