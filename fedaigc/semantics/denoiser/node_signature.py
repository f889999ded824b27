"""What a device discloses of a prompt in the denoiser's space: a node of a public atlas, and how far it may be lifted.

`node_disclosure` says how a device comes to it.
"""

import json
import re
from dataclasses import asdict, dataclass

from fedaigc.bounds import MAX_ATLAS_NODES

_HASH = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class NodeSignature:
    """The part of a prompt that a device discloses in the denoiser's space.

    Attributes:
        atlas: Hash of the atlas.
        node: The disclosed node.
        highest: The highest node on the way to it up to which the device may be grouped.

    Raises:
        ValueError: If the content is invalid.
    """

    atlas: str
    node: int
    highest: int

    def __post_init__(self) -> None:
        if type(self.atlas) is not str or not _HASH.fullmatch(self.atlas):
            raise ValueError("the atlas of a signature must be a SHA-256 in hex")
        for number in (self.node, self.highest):
            if type(number) is not int or not 0 <= number < MAX_ATLAS_NODES:
                raise ValueError(f"a node of a signature must be 0 to {MAX_ATLAS_NODES - 1}")
        if self.highest > self.node:
            raise ValueError(
                "the highest node of a signature lies above its node, so its number is not larger"
            )

    @property
    def policy(self) -> str:
        """The name under which the disclosure log keeps it."""
        return "node"

    @property
    def words(self) -> str:
        """What is disclosed, in words."""
        lifted = f", or as far up as node {self.highest}" if self.highest != self.node else ""
        return f"node {self.node}{lifted} of atlas {self.atlas[:16]}"

    def to_json(self) -> str:
        """Return canonical JSON: sorted keys, no blanks."""
        return json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
