"""TLS 1.3 between paired devices: each side shows its certificate, and takes only one that it was paired with."""

import socket
import ssl
from collections.abc import Sequence

from fedaigc.deployment.peer.frames import PeerGone
from fedaigc.deployment.peer.paired import Card, Peers


def secured_to(connection: socket.socket, peers: Peers, card: Card, patience_s: float) -> ssl.SSLSocket:
    """Return a connection that this device opened, over TLS.

    The other device may still refuse this one's certificate: then the first frame from it never comes.

    Args:
        connection: The TCP connection.
        peers: The keys of this device.
        card: The paired device that must be at the other end.
        patience_s: Seconds for the handshake.

    Raises:
        PeerGone: If another device answers, or none that speaks TLS 1.3.
    """
    return _secured(connection, peers, [card], patience_s, server=False)[0]


def secured_from(
    connection: socket.socket, peers: Peers, patience_s: float
) -> tuple[ssl.SSLSocket, str, Card]:
    """Return a connection that another device opened, over TLS, and which paired device it is.

    Args:
        connection: The TCP connection.
        peers: The keys of this device, and of those that may connect.
        patience_s: Seconds for the handshake.

    Raises:
        PeerGone: If the other device is not a paired one, or does not speak TLS 1.3.
    """
    known = peers.all()
    secured, number = _secured(connection, peers, [card for _, card in known], patience_s, server=True)
    return secured, *known[number]


def _secured(
    connection: socket.socket, peers: Peers, cards: Sequence[Card], patience_s: float, *, server: bool
) -> tuple[ssl.SSLSocket, int]:
    peers.own()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    if server:
        context.num_tickets = 0
    context.load_cert_chain(peers.tls_file)
    allowed = [card.der for card in cards]
    if not allowed:
        raise PeerGone("this device is not paired with any other one")
    context.load_verify_locations(cadata=b"".join(allowed))
    try:
        connection.settimeout(patience_s)
        secured = context.wrap_socket(connection, server_side=server)
    except (OSError, ValueError) as error:
        raise PeerGone(f"not a paired device: {error}") from error
    shown = secured.getpeercert(binary_form=True)
    # a certificate that a paired device signed for another one is not that of the paired device
    if shown not in allowed:
        secured.close()
        raise PeerGone("the other device shows another certificate than a paired one")
    return secured, allowed.index(shown)
