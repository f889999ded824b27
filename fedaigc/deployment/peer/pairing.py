r"""Pairing of two devices: two persons carry a short code, and the devices exchange their long-term keys.

One device invites and shows a code of six digits; the owner of the other one, which joins, types it. With SPAKE2
[RFC9382] both derive a key from the code that nobody learns who does not know it:

    joins -> invites     A = x G + code M
    invites -> joins     B = y G + code N
    joins -> invites     its card, encrypted: proves that it knows the code
    invites -> joins     its card, encrypted: the same
    joins -> invites     "kept", encrypted

Who guesses has one try for each connection and learns nothing that could be tried offline, so a code ends with
`MAX_CODE_ATTEMPTS` tries: with six digits, an attack succeeds in three of a million cases. Keys are new for each
connection: recorded messages are of no use. Who stands between the devices can only pass messages on unchanged.

SPAKE2 is taken from the package spake2, a small one in pure Python that magic-wormhole uses. Its last release is of
2024, and it does not run in constant time; a code lives for minutes and for three tries. The cards are encrypted with
ChaCha20-Poly1305 of the package cryptography.

References:
    [RFC9382] Ladd, Kaduk, "SPAKE2, a password-authenticated key exchange", 2023.
"""

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from fedaigc.deployment.peer.frames import Frames, PeerMistake
from fedaigc.deployment.peer.paired import Card
from fedaigc.errors import Error, UserError
from fedaigc.extras import require_extra
from fedaigc.storage.bounded_json import read_json
from fedaigc.validation import typed_json

CODE_DIGITS = 6
MAX_CODE_ATTEMPTS = 3
_LABEL = b"fedaigc pairing 1"
# side and point
_SPAKE_BYTES = 33
_MAX_CARD = 4096
_KEPT = b"kept"
# every key encrypts at most two texts
_FIRST, _SECOND = bytes(12), bytes(11) + b"\1"


class WrongCode(Error):
    """The two devices do not have the same code: mistyped, or somebody else takes part."""


def new_code() -> str:
    """Return a new code of six digits."""
    return f"{secrets.randbelow(10**CODE_DIGITS):0{CODE_DIGITS}d}"


def typed_code(text: str) -> str:
    """Return a code as a person types it, with blanks or a hyphen. UserError if it is none."""
    code = text.replace(" ", "").replace("-", "").strip()
    if len(code) != CODE_DIGITS or not (code.isascii() and code.isdigit()):
        raise UserError(
            f"{text!r:.40} is no code: expected the {CODE_DIGITS} digits that the other device shows"
        )
    return code


def join(frames: Frames, code: str, own: Card, keep: Callable[[Card], object]) -> None:
    """Pair as the device whose owner typed the code.

    Args:
        frames: Connection to the device that invites.
        code: The code.
        own: This device's card.
        keep: Called with the card of the other device, before that is told so.

    Raises:
        WrongCode: If the other device does not prove that it has the code.
        PeerGone: If the other device does not answer.
        PeerMistake: If it answers something else.
    """
    spake = _spake("SPAKE2_A", code)
    sent = spake.start()
    frames.send(_LABEL + sent)
    answer = frames.receive(_SPAKE_BYTES)
    joins, invites = _ciphers(spake, answer, sent + answer)
    frames.send(joins.encrypt(_FIRST, json.dumps(asdict(own)).encode(), _LABEL))
    keep(_card(invites, frames.receive(_MAX_CARD)))
    frames.send(joins.encrypt(_SECOND, _KEPT, _LABEL))


def invite(
    frames: Frames, code: str, own: Card, keep: Callable[[Card], object], begin: Callable[[], object]
) -> None:
    """Pair as the device that shows the code; see `join`.

    Args:
        frames: Connection to a device that joins.
        code: The code.
        own: This device's card.
        keep: Called with the card of the other device, once that has kept this one's.
        begin: Called before a try with the code is answered, to count it.
    """
    first = frames.receive(len(_LABEL) + _SPAKE_BYTES)
    sent = first.removeprefix(_LABEL)
    if len(sent) != _SPAKE_BYTES or sent == first:
        raise PeerMistake("the other side does not pair as this version does")
    begin()
    spake = _spake("SPAKE2_B", code)
    answer = spake.start()
    joins, invites = _ciphers(spake, sent, sent + answer)
    frames.send(answer)
    try:
        card = _card(joins, frames.receive(_MAX_CARD))
    except WrongCode:
        # so that the other owner learns it too
        frames.send(b"")
        raise
    frames.send(invites.encrypt(_FIRST, json.dumps(asdict(own)).encode(), _LABEL))
    if _opened(joins, _SECOND, frames.receive(_MAX_CARD)) != _KEPT:
        raise PeerMistake("the other side does not pair as this version does")
    keep(card)


def _spake(side: str, code: str) -> Any:
    require_extra("peer", "pairings of devices")
    import spake2

    return getattr(spake2, side)(code.encode(), idA=_LABEL + b" joins", idB=_LABEL + b" invites")


def _ciphers(spake: Any, received: bytes, sent: bytes) -> tuple[ChaCha20Poly1305, ChaCha20Poly1305]:
    """Return the ciphers of the device that joins and of the one that invites."""
    try:
        key = spake.finish(received)
    except (
        Exception
    ) as error:  # the package raises many kinds for bytes that are no message of the other side
        raise PeerMistake("the other side does not pair as this version does") from error
    joins, invites = (
        ChaCha20Poly1305(HKDF(SHA256(), 32, None, _LABEL + side + sent).derive(key)) for side in (b"A", b"B")
    )
    return joins, invites


def _opened(cipher: ChaCha20Poly1305, nonce: bytes, data: bytes) -> bytes:
    try:
        return cipher.decrypt(nonce, data, _LABEL)
    except InvalidTag:
        raise WrongCode("the other device does not have this code") from None


def _card(cipher: ChaCha20Poly1305, data: bytes) -> Card:
    text = _opened(cipher, _FIRST, data)
    try:
        # bounds the depth before types are checked
        read_json(text.decode(), max_characters=_MAX_CARD, max_depth=1)
        return typed_json(Card, text)
    except ValueError as error:
        raise PeerMistake(f"the other device sent no card: {type(error).__name__}") from error
