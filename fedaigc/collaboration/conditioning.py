"""What the shared steps of a group run on, and why it is not what was asked for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

Kind = Literal["public", "mean", "member", "own"]
FellBack = Literal["too few devices", "vanished", "unreadable"]


@dataclass(frozen=True, eq=False)
class GroupConditioning:
    """What the shared steps of a group run on.

    Attributes:
        kind: "public": the group's public prompt. "mean": the mean of its members' conditionings. "member": that of one
            member. "own": the executor's own prompt, which all members have and which is sent to nobody.
        tensors: The conditioning in float32; None: the public prompt, or the executor's own one.
        members: Number of members in the mean; 1 for that of one member, 0 for others.
        fell_back: Why it is "public" where something else was asked for: fewer than three devices gave a key, a member
            vanished after it had, or what was received is no conditioning.
    """

    kind: Kind = "public"
    tensors: Mapping[str, Tensor] | None = None
    members: int = 0
    fell_back: FellBack | None = None
