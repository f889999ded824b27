"""Proxies from the environment: none between processes of this machine, and at most one to a server.

HTTP_PROXY, HTTPS_PROXY and ALL_PROXY are meant for other machines, but libraries follow them to 127.0.0.1 as well
unless NO_PROXY names it. Some fail as soon as they see a proxy of a kind that they do not know, also where they
would not use it.
"""

import ipaddress
import os
import urllib.request
from collections.abc import Mapping
from importlib.util import find_spec
from urllib.parse import urlsplit

from fedaigc.errors import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_KINDS = ("http", "https", "all")
_SOCKS = ("socks5", "socks5h")


def without_proxy_to_loopback(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment whose processes reach loopback without a proxy, and other machines as before.

    Proxies of a kind that no process could use are left out.
    """
    found = {
        name: value
        for name, value in environment.items()
        if not (_kind(name) in _KINDS and value and _unusable(value) is not None)
    }
    known = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    # where it is set, gRPC reads a variable of its own
    grpc = {name: environment[name] for name in ("no_grpc_proxy",) if environment.get(name)}
    for name, value in ({"no_proxy": known, "NO_PROXY": known} | grpc).items():
        listed = [host.strip() for host in value.split(",") if host.strip()]
        found[name] = ",".join(dict.fromkeys([*listed, *LOOPBACK]))
    return found


def proxy_to(host: str, *, tls: bool) -> str | None:
    """Return the proxy that the environment names for a server; None if it is reached directly.

    Args:
        host: Name or address of the server.
        tls: Whether it is reached by https.

    Raises:
        UserError: If the proxy is of a kind that cannot be used.
    """
    if host in LOOPBACK or _is_loopback(host):
        return None
    proxies = urllib.request.getproxies()
    url = proxies.get("https" if tls else "http") or proxies.get("all")
    if not url or urllib.request.proxy_bypass(host) or _in_network(host, proxies.get("no", "")):
        return None
    reason = _unusable(url)
    if reason is not None:
        raise UserError(
            f"the environment names the proxy {shown(url)} for {host}, which {reason}; or set NO_PROXY={host} to reach "
            "the server directly"
        )
    return url if "://" in url else f"http://{url}"


def through(proxy: str | None, *, tls: bool, environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which exactly this proxy leads to other machines, and none to loopback.

    Args:
        proxy: As `proxy_to` returns it.
        tls: Whether the other machine is reached by https.
        environment: What to start from; None: that of this process.
    """
    given = os.environ if environment is None else environment
    found = {name: value for name, value in given.items() if not name.lower().endswith("_proxy")}
    if proxy is not None:
        found["https_proxy" if tls else "http_proxy"] = proxy
    return without_proxy_to_loopback(found)


def shown(url: str) -> str:
    """Return the address of a proxy without the user name and password that it may contain."""
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme or 'http'}{separator or '://'}{rest.rpartition('@')[2].partition('/')[0]}"


def _kind(name: str) -> str:
    """Return "http" of http_proxy and HTTP_PROXY; "" of other variables."""
    kind, _, suffix = name.lower().rpartition("_")
    return kind if suffix == "proxy" else ""


def _unusable(url: str) -> str | None:
    """Return why a proxy cannot be used, and what to do; None if it can."""
    try:
        scheme = urlsplit(url).scheme.lower() if "://" in url else "http"
    except ValueError:
        return "is no URL: expected http://host:port"
    if scheme in _SOCKS and find_spec("socksio") is None:
        return 'needs the package socksio: run `pip install "httpx[socks]"`'
    if scheme not in ("http", "https", *_SOCKS):
        return f"is of the kind {scheme}: expected http, https, socks5 or socks5h"
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _in_network(host: str, exceptions: str) -> bool:
    """Return whether a host is an address in a network such as 10.0.0.0/8 among the exceptions."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    for entry in exceptions.split(","):
        try:
            if address in ipaddress.ip_network(entry.strip(), strict=False):
                return True
        except ValueError:
            continue
    return False
