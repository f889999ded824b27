"""A public atlas: a tree over public captions in the space of the sharing distance.

Every node is a set of captions, and every inner node divides its own by a hyperplane. The way of a prompt leads from
the root to the side of each hyperplane on which its vector lies. A device discloses the last node of this way that it
reaches under a rule:

    go from a node to a child only while both children hold at least m captions

If only the child on the way had to be large enough, the node would be disclosed by the captions of the other, small
child alone [Wong07]. With this rule all captions of a node, at least m, disclose it, and the node for a larger m lies
on the way to the one for a smaller m, so answers for several m cannot be intersected.

m counts public captions, not people. A node says at most log2(number of nodes) bits about a prompt, and every further
prompt says as much again.

References:
    [Wong07] Wong et al., "Minimality attack in privacy preserving data publishing", VLDB 2007.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from fedaigc.errors import DamagedFile, UserError
from fedaigc.storage.tensor_file import read_parts, tensor_digest, write_parts

_FORMAT = "atlas 1"
LEAF = -1


@dataclass(frozen=True, eq=False)
class Atlas:
    """A tree over captions; node 0 is the root, and children have larger numbers than their parent.

    Attributes:
        space: Hash of the space of the vectors: see `DenoiserSpace.hash`.
        about: What a person should know: model, source and licence of the captions.
        captions: The public captions.
        vectors: Vector of each caption.
        children: Both children of each node, or LEAF twice.
        directions: Normal vector of each node's hyperplane; zero for a leaf.
        thresholds: The second child is for vectors whose product with the direction is above the threshold.
    """

    space: str
    about: dict[str, str]
    captions: tuple[str, ...]
    vectors: Float[np.ndarray, "captions d"]
    children: Int[np.ndarray, "nodes 2"]
    directions: Float[np.ndarray, "nodes d"]
    thresholds: Float[np.ndarray, " nodes"]

    def __len__(self) -> int:
        return len(self.children)

    def way(self, vector: Float[np.ndarray, " d"]) -> list[int]:
        """Return the nodes from the root to the leaf of a vector.

        Raises:
            UserError: If the vector has another length than those of the atlas.
        """
        if vector.shape != self.directions.shape[1:]:
            raise UserError(
                f"the vector has shape {vector.shape}: this atlas needs {self.directions.shape[1:]}"
            )
        found = [0]
        while self.children[found[-1], 0] != LEAF:
            node = found[-1]
            second = float(self.directions[node] @ vector) > float(self.thresholds[node])
            found.append(int(self.children[node, int(second)]))
        return found

    def disclosed(self, vector: Float[np.ndarray, " d"], minimum: int) -> int | None:
        """Return the node that a device discloses for a vector; None if the atlas has too few captions.

        Args:
            vector: Vector of the prompt.
            minimum: m, the number of public captions that disclose the same node.

        Raises:
            UserError: If `minimum` is below 1.
        """
        if minimum < 1:
            raise UserError(f"the minimum of public captions is {minimum}: expected at least 1")
        if len(self.captions) < minimum:
            return None
        node = 0
        for below in self.way(vector)[1:]:
            if min(self.counts[child] for child in self.children[node]) < minimum:
                break
            node = below
        return node

    def ends(self, minimum: int, depth: int | None = None) -> tuple[int, ...]:
        """Return the nodes that can be disclosed, ascending; none if the atlas has too few captions.

        Args:
            minimum: As for `disclosed`.
            depth: Number of levels below the root after which every way ends; None: no such end.

        Raises:
            UserError: If `minimum` is below 1.
        """
        return tuple(sorted(node for node, _, last in self._pruned(minimum, depth) if last))

    def answers(self, minimum: int, *, lifted: bool) -> int:
        """Return how many different signatures devices can send: the base of the bits of one.

        Args:
            minimum: As for `disclosed`.
            lifted: Whether a signature names any node on a way, and a highest one above it.

        Raises:
            UserError: If `minimum` is below 1.
        """
        return sum(level + 1 if lifted else last for _, level, last in self._pruned(minimum, None))

    def _pruned(self, minimum: int, depth: int | None) -> list[tuple[int, int, bool]]:
        """The nodes of all ways up to the disclosed ones: node, level, and whether a way ends there."""
        if minimum < 1:
            raise UserError(f"the minimum of public captions is {minimum}: expected at least 1")
        waiting = [(0, 0)] if len(self.captions) >= minimum else []
        found = []
        for node, level in waiting:
            pair = [int(child) for child in self.children[node]]
            last = pair[0] == LEAF or level == depth or min(self.counts[child] for child in pair) < minimum
            found.append((node, level, last))
            if not last:
                waiting += [(child, level + 1) for child in pair]
        return found

    @cached_property
    def members(self) -> list[Int[np.ndarray, " n"]]:
        """The captions of each node, counted anew from their vectors: a file cannot claim others."""
        found: list[list[int]] = [[] for _ in range(len(self))]
        for number, vector in enumerate(self.vectors):
            for node in self.way(vector):
                found[node].append(number)
        return [np.asarray(each, dtype=int) for each in found]

    @cached_property
    def counts(self) -> list[int]:
        """Number of captions of each node."""
        return [len(each) for each in self.members]

    @cached_property
    def parents(self) -> list[int]:
        """Parent of each node; LEAF for the root."""
        found = [LEAF] * len(self)
        for node, pair in enumerate(self.children):
            for child in pair:
                if child != LEAF:
                    found[child] = node
        return found

    def lifted(self, node: int, highest: int) -> tuple[int, ...]:
        """Return the nodes from one up to another above it, both included; only the first if that is not above it."""
        found = [node]
        while found[-1] != highest:
            above = self.parents[found[-1]]
            if above == LEAF:
                return (node,)
            found.append(above)
        return tuple(found)

    def medoid(self, node: int) -> int:
        """Return the caption of a node that is nearest to the mean of its vectors; the first if several are."""
        if node not in self._medoids:
            rows = self.members[node]
            away = np.linalg.norm(self.vectors[rows] - self.vectors[rows].mean(0), axis=1)
            self._medoids[node] = int(rows[int(away.argmin())])
        return self._medoids[node]

    @cached_property
    def _medoids(self) -> dict[int, int]:
        return {}

    def radius(self, node: int) -> float:
        """Return the mean distance of a node's captions to its medoid."""
        rows = self.members[node]
        return float(np.linalg.norm(self.vectors[rows] - self.vectors[self.medoid(node)], axis=1).mean())

    @cached_property
    def hash(self) -> str:
        """SHA-256, in hex, of all that the atlas is."""
        return tensor_digest(json.dumps(self._header(), sort_keys=True), self._tensors())

    def _header(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "space": self.space,
            "about": self.about,
            "captions": list(self.captions),
        }

    def _tensors(self) -> dict[str, torch.Tensor]:
        named = {
            "children": self.children,
            "directions": self.directions,
            "thresholds": self.thresholds,
            "vectors": self.vectors,
        }
        return {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in named.items()}

    def write(self, path: Path) -> None:
        """Write the atlas to a file, atomically; equal atlases are equal files."""
        write_parts(path, self._header(), {"atlas": self._tensors()})

    @classmethod
    def read(cls, path: Path) -> "Atlas":
        """Read an atlas.

        Raises:
            UserError: If there is no such file.
            DamagedFile: If the file is no atlas, or no tree: a way must end, and every caption must count.
        """
        header, parts = read_parts(path)
        if header.get("format") != _FORMAT:
            raise DamagedFile(f"{path} is no atlas of this version: build it with `fedaigc atlas build`")
        try:
            arrays = {name: tensor.numpy() for name, tensor in parts["atlas"].items()}
            found = cls(header["space"], header["about"], tuple(header["captions"]), **arrays)
            _check(found)
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedFile(f"{path} is no sound atlas: {error}") from None
        return found


def _check(atlas: Atlas) -> None:
    nodes, d = atlas.directions.shape
    shapes = (atlas.children.shape, atlas.thresholds.shape, atlas.vectors.shape)
    if not nodes or shapes != ((nodes, 2), (nodes,), (len(atlas.captions), d)):
        raise ValueError(f"its arrays have shapes that do not fit each other: {shapes} for {nodes} nodes")
    if not all(np.isfinite(x).all() for x in (atlas.directions, atlas.thresholds, atlas.vectors)):
        raise ValueError("it has values that are not finite")
    seen = {0}
    for node, (one, two) in enumerate(atlas.children.tolist()):
        if (one == LEAF) != (two == LEAF):
            raise ValueError(f"node {node} has one child")
        for child in (one, two):
            if child != LEAF and (not node < child < nodes or child in seen):
                raise ValueError(f"node {node} has the child {child}")
            seen.add(child)
    if len(seen - {LEAF}) != nodes:
        raise ValueError("it has nodes that no way reaches")
    if len(set(atlas.captions)) != len(atlas.captions):
        raise ValueError("it counts a caption twice")


def most_common(captions: Sequence[str]) -> str:
    """Return words that many of the captions contain, for a person who looks at a node.

    Example:
        >>> most_common(["an apple on a table", "a lemon on a table"])
        'table'
    """
    short = {"a", "an", "the", "of", "in", "on", "and", "with", "at", "to", "near", "above"}
    words: dict[str, int] = {}
    for caption in captions:
        for word in dict.fromkeys(caption.lower().replace(",", " ").replace(".", " ").split()):
            if word not in short:
                words[word] = words.get(word, 0) + 1
    often = sorted(words, key=lambda word: (-words[word], word))
    return ", ".join([word for word in often if 2 * words[word] > len(captions)][:4])
