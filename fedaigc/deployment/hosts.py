"""Names and addresses of servers: what users write, as certificates and connections need it."""

import ipaddress
import re

import idna

from fedaigc.errors import UserError

_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_MOST_CHARACTERS = 253
_LAST_PORT = 65535


def host_name(text: str, what: str, *, wildcard: bool = False) -> str:
    """Return a name or an address in the form that certificates contain.

    Brackets around an IPv6 address, a final dot and capitals are removed, and other alphabets are written as
    DNS has them (IDNA): müller.example is xn--mller-kva.example.

    Args:
        text: A name, an IPv4 address, or an IPv6 address with or without brackets.
        what: What the text is, for the message, such as "--host".
        wildcard: Whether the name may begin with `*.`, for all hosts of a domain.

    Raises:
        UserError: If it is neither, for instance a URL, a network, or a name with a port.
    """
    given = f"{what} {text!r}"
    expected = "expected a name or an address, for example server.example, 192.0.2.7 or 2001:db8::7"
    host = text.strip()
    if not host:
        raise UserError(f"{given} is empty: {expected}")
    if "://" in host:
        raise UserError(f"{given} is a URL: {expected}")
    if "/" in host:
        raise UserError(f"{given} is a network or a path: {expected}")
    bracketed = host.startswith("[") and host.endswith("]")
    address = _address(host[1:-1] if bracketed else host)
    if address is not None:
        return address
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit() and (":" not in name or name.endswith("]")):
        raise UserError(f"{given} has a port: give {name} alone, and the port with `server start --port`")
    ascii_name = _ascii(host)
    # a separator of other alphabets may have become a dot
    address = _address(ascii_name) if ascii_name is not None else None
    if address is not None:
        return address
    if ascii_name is None or not _is_name(ascii_name.removeprefix("*.") if wildcard else ascii_name):
        raise UserError(f"{given} is no host: {expected}")
    return ascii_name


def host_and_port(text: str, what: str) -> str:
    """Return host:port with the host as `host_name` returns it; an IPv6 address is in brackets.

    Raises:
        UserError: If the text is something else.
    """
    host, colon, port = text.strip().rpartition(":")
    bare = bool(host) and ":" in host and not (host.startswith("[") and host.endswith("]"))
    if not colon or not host or bare or not re.fullmatch(r"[0-9]{1,5}", port):
        raise UserError(
            f"{what} {text!r}: expected host:port, for example server.example:9443 or [2001:db8::7]:9443"
        )
    if not 1 <= int(port) <= _LAST_PORT:
        raise UserError(f"{what} {text!r}: expected a port from 1 to {_LAST_PORT}")
    name = host_name(host, what)
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"


def host_of(server: str) -> str:
    """Return the host of host:port, without brackets."""
    return server.rpartition(":")[0].strip("[]")


def _address(text: str) -> str | None:
    try:
        # a zone is of one machine, and no part of a certificate
        return str(ipaddress.ip_address(text.partition("%")[0] if ":" in text else text))
    except ValueError:
        return None


def _ascii(name: str) -> str | None:
    """Return a name as DNS has it, in lower case; None if no such name exists."""
    name = name.removesuffix(".")
    if name.isascii():
        return name.lower()
    try:
        return idna.encode(name, uts46=True).decode()
    except idna.IDNAError:
        return None


def _is_name(name: str) -> bool:
    labels = name.split(".")
    return (
        len(name) <= _MOST_CHARACTERS
        and all(_LABEL.fullmatch(label) for label in labels)
        # an address with an error, such as 192.0.2.256
        and not labels[-1].isdigit()
    )
