"""Tasks of which a node of an atlas was disclosed."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np
from jaxtyping import Float

from fedaigc.federation.server.sharing.known_tasks import MOST_GUESSES, Common, KnownTasks, Rules, Way
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.node_signature import NodeSignature

# a server that goes on serving meets the same signatures again
_GUESSED: WeakKeyDictionary[NodeDisclosure, dict[NodeSignature, Float[np.ndarray, "guesses d"]]] = (
    WeakKeyDictionary()
)


class NodeTasks(KnownTasks):
    """Tasks that may share on the caption of a node which each of them disclosed, or may be lifted to.

    Args:
        signatures: Task id -> what its device disclosed. Those of another atlas run alone.
        owners: Task id -> its device.
        disclosure: How devices disclose nodes.
        rules: By what devices decide.
        minimum_devices: The number of devices with tasks on a node's caption.
    """

    def __init__(
        self,
        signatures: Mapping[str, NodeSignature | None],
        owners: Mapping[str, int],
        disclosure: NodeDisclosure,
        rules: Rules,
        minimum_devices: int,
    ) -> None:
        atlas = disclosure.atlas
        told = {
            task: each
            for task, each in signatures.items()
            if each is not None and each.atlas == atlas.hash and each.node < len(atlas)
        }
        super().__init__(told, rules)
        self._disclosure = disclosure
        self._minimum = minimum_devices
        self._owners = [owners[task] for task in self.tasks]
        self._may = [frozenset(atlas.lifted(told[task].node, told[task].highest)) for task in self.tasks]

    def guessed(self, key: Hashable) -> Float[np.ndarray, "guesses d"]:
        """Return the vectors of the captions of which the same would have been disclosed."""
        assert isinstance(key, NodeSignature)
        kept = _GUESSED.setdefault(self._disclosure, {})
        if key not in kept:
            kept[key] = self._guessed(key)
        return kept[key]

    def _guessed(self, key: NodeSignature) -> Float[np.ndarray, "guesses d"]:
        disclosure = self._disclosure
        vectors = disclosure.atlas.vectors
        members = disclosure.atlas.members[key.node]
        rows = members[:: max(1, -(-len(members) // MOST_GUESSES))].tolist()
        if disclosure.epsilon is None:
            rows = [row for row in rows if disclosure.of_vector(vectors[row]) == key]
        # a prompt may lie where no caption does
        return vectors[rows or [disclosure.atlas.medoid(key.node)]]

    def families(self) -> list[list[int]]:
        """Return the rows of tasks that chains of common nodes connect."""
        found: list[tuple[set[int], list[int]]] = []
        for row, nodes in enumerate(self._may):
            joined, rows = set(nodes), [row]
            for other in [each for each in found if each[0] & nodes]:
                found.remove(other)
                joined |= other[0]
                rows = [*other[1], *rows]
            found.append((joined, rows))
        return sorted(sorted(rows) for _, rows in found)

    def divided(
        self, rows: Sequence[int], ways: Callable[[int], Way], rungs: Sequence[int]
    ) -> list[tuple[Common, list[int]]]:
        """Divide tasks by the nodes that they may be grouped at: most saved steps first, then the nearest caption."""
        rest = list(rows)
        found: list[tuple[Common, list[int]]] = []
        while True:
            best: tuple[tuple[int, float, int], Common, list[int]] | None = None
            for node in sorted(set().union(*(self._may[row] for row in rest))):
                common = self._common(node)
                may = [row for row in rest if node in self._may[row]]
                saved, inside = self.saved(may, ways, rungs, common)
                if len({self._owners[row] for row in inside}) < self._minimum:
                    continue
                away = sum(
                    float(np.linalg.norm(self.guesses(row) - common.vector, axis=1).mean()) for row in inside
                )
                rank = (saved, -away, node)
                if best is None or rank > best[0]:
                    best = (rank, common, inside)
            if best is None:
                return found
            found.append((best[1], best[2]))
            rest = [row for row in rest if row not in best[2]]

    def _common(self, node: int) -> Common:
        atlas = self._disclosure.atlas
        caption = atlas.medoid(node)
        return Common(atlas.captions[caption], node, atlas.vectors[caption])
