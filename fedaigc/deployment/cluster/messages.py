"""The messages of a cluster: a closed list, all of one size, with nothing of a prompt but its signature.

Offered    an offer: one's own, or that of another device, passed on
Commit     the groups that the sender has committed to, once in a round
GivenUp    the executor of a group says that no packet will come
Decided    another device of a group tells its executor that it waits for it no longer
a sealed packet (no message of this list), from the executor to the others of a group
"""

import json
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import ConfigDict, Field, with_config

from fedaigc.bounds import MAX_CLUSTER, MAX_CLUSTER_PROMPTS, MAX_PEER_MESSAGE, MAX_ROUND
from fedaigc.deployment.peer.frames import PeerMistake
from fedaigc.deployment.peer.messages import Digest
from fedaigc.storage.bounded_json import read_json
from fedaigc.validation import typed_json

# lists in a message in a pair
_DEPTH = 3
_STRICT = ConfigDict(extra="forbid")
_MAX_HEX = 1024
Round = Annotated[int, Field(ge=1, le=MAX_ROUND)]


@with_config(_STRICT)
@dataclass(frozen=True)
class Offered:
    """An offer, see `offers.SignedOffer`."""

    text: Annotated[str, Field(max_length=MAX_PEER_MESSAGE)]
    by: Annotated[str, Field(max_length=_MAX_HEX, pattern=r"^([0-9a-f]{2})+$")]


@with_config(_STRICT)
@dataclass(frozen=True)
class Commit:
    """What the sender has committed to. It never commits to anything else in this round.

    Attributes:
        round: The round.
        view: Digests of the offers from which it elected, ascending.
        groups: Digests of the groups with prompts of its own.
    """

    round: Round
    view: Annotated[tuple[Digest, ...], Field(max_length=MAX_CLUSTER)]
    groups: Annotated[tuple[Digest, ...], Field(max_length=MAX_CLUSTER_PROMPTS)]


@with_config(_STRICT)
@dataclass(frozen=True)
class GivenUp:
    """No packet of this group will come from the sender.

    Attributes:
        group: Digest of the group.
    """

    group: Digest


@with_config(_STRICT)
@dataclass(frozen=True)
class Decided:
    """The sender has the packet of this group, or will draw without it: its executor need not stay for it.

    Attributes:
        group: Digest of the group.
    """

    group: Digest


Message = Offered | Commit | GivenUp | Decided
_KINDS: dict[str, type[Message]] = {
    kind.__name__.lower(): kind for kind in (Offered, Commit, GivenUp, Decided)
}


def encoded(message: Message) -> bytes:
    """Return a message as a frame."""
    return json.dumps([type(message).__name__.lower(), asdict(message)]).encode().ljust(MAX_PEER_MESSAGE)


def decoded(data: bytes) -> Message:
    """Read a frame.

    Raises:
        PeerMistake: If it is no message.
    """
    try:
        if len(data) != MAX_PEER_MESSAGE:
            raise ValueError(f"a message of {len(data)} bytes: expected {MAX_PEER_MESSAGE}")
        found = read_json(data.decode(), max_characters=MAX_PEER_MESSAGE, max_depth=_DEPTH)
        if not isinstance(found, list) or len(found) != 2 or found[0] not in list(_KINDS):
            raise ValueError("a message of an unknown kind")
        return typed_json(_KINDS[found[0]], json.dumps(found[1]))
    except (ValueError, TypeError) as error:
        raise PeerMistake(f"the other device sent what this version does not know: {error!s:.300}") from error
