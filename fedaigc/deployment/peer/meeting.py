"""How two devices come together to pair: one waits at an address and shows a code, the other one connects."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

from fedaigc.deployment.peer.frames import Frames, PeerGone, PeerMistake, connected_to
from fedaigc.deployment.peer.paired import Card, Peers
from fedaigc.deployment.peer.pairing import MAX_CODE_ATTEMPTS, WrongCode, invite, join
from fedaigc.device.home.home import Home, note_error
from fedaigc.errors import UserError
from fedaigc.extras import require_extra

PATIENCE_S = 300.0
_FRAME_S = 10.0
_WRONG = "mistyped, or somebody else on this network takes part"


def wait_for_peer(
    home: Path,
    name: str,
    code: str,
    listening: socket.socket,
    say: Callable[[str], object],
    patience_s: float = PATIENCE_S,
) -> Card:
    """Wait for a device whose owner types the code, and keep it as a paired one.

    Args:
        home: Home of this device.
        name: The owner's name for the other device.
        code: The code that this device shows.
        listening: A socket that listens; it is left open.
        say: Called with each line for the owner.
        patience_s: Seconds after which the code ends.

    Raises:
        UserError: If the code ends, by time or by tries.
    """
    require_extra("peer", "pairings of devices")
    peers = Peers(Home.open(home))
    peers.check_name(name)
    own, found = peers.own(), []
    tries = 0

    def begin() -> None:
        nonlocal tries
        tries += 1

    def keep(card: Card) -> None:
        peers.add(name, card)
        found.append(card)

    until = time.monotonic() + patience_s
    while tries < MAX_CODE_ATTEMPTS:
        listening.settimeout(max(0.01, until - time.monotonic()))
        try:
            connection, (host, *_) = listening.accept()
        except TimeoutError:
            raise UserError(
                f"nobody paired within {patience_s:g} s: the code ends, start over on both"
            ) from None
        before = tries
        with connection:
            try:
                invite(Frames(connection, _FRAME_S), code, own, keep, begin)
            except (WrongCode, PeerGone, PeerMistake) as error:
                if tries == before:
                    continue
                wrong = isinstance(error, WrongCode)
                text = (
                    f"a wrong code from {host}: {_WRONG}"
                    if wrong
                    else f"{host} did not end the pairing: {error}"
                )
                note_error(home, f"pairing with {name!r}: {text}\n")
                say(f"{text} (try {tries} of {MAX_CODE_ATTEMPTS} with this code)")
            else:
                return found[0]
    raise UserError(
        f"{MAX_CODE_ATTEMPTS} tries with this code failed, so it ends and nothing is kept: start over with a new one; "
        "if nobody mistyped it, somebody else on this network tried"
    )


def join_peer(home: Path, name: str, code: str, address: str) -> Card:
    """Connect to a device that shows a code, and keep it as a paired one.

    Args:
        home: Home of this device.
        name: The owner's name for the other device.
        code: The code as its owner typed it here.
        address: host:port of the other device.

    Raises:
        UserError: If the codes differ, or the other device does not answer.
    """
    require_extra("peer", "pairings of devices")
    peers = Peers(Home.open(home))
    peers.check_name(name)
    own, found = peers.own(), []

    def keep(card: Card) -> None:
        peers.add(name, card)
        found.append(card)

    try:
        with connected_to(address, "--to", _FRAME_S) as connection:
            join(Frames(connection, _FRAME_S), code, own, keep)
    except WrongCode:
        text = f"the device at {address} does not have this code: {_WRONG}"
        note_error(home, f"pairing with {name!r}: {text}\n")
        raise UserError(f"{text}. Nothing is kept") from None
    except (PeerGone, PeerMistake) as error:
        if found:
            # the other owner sees whether it arrived
            return found[0]
        raise UserError(f"no pairing with {address}: {error}") from None
    return found[0]
