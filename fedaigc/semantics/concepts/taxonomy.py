"""The knowledge graph: concrete nouns of WordNet 3.1, each below the more general ones.

A concept id is WordNet's synset offset with the prefix "n", e.g. n07755101, apple the fruit. The root is
n00001930, physical entity. experiments/knowledge/build_nouns.py trims the graph and describes the file.

References:
    Miller, "WordNet: a lexical database for English", CACM 38 (11), 1995.
"""

import gzip
import json
import re
from collections.abc import Container, Mapping, Sequence
from functools import cache
from itertools import accumulate

from fedaigc import assets

ROOT = "n00001930"
# WordNet's root, "entity", lies above physical entity and counts in published depths
ROOT_DEPTH = 2


class Taxonomy:
    """Concepts, their hypernyms, and the words for them.

    Args:
        hypernyms: Concept -> the concepts directly above it. Every path ends in ROOT.
        senses: Lemma (lower case, words separated by blanks) -> its concepts, the most frequent first.

    Attributes:
        graph: The directed graph from each concept to the concepts directly above it.
    """

    def __init__(self, hypernyms: Mapping[str, Sequence[str]], senses: Mapping[str, Sequence[str]]) -> None:
        # imported here because importing networkx takes longer than reading the graph
        from networkx import DiGraph

        self.graph: DiGraph[str] = DiGraph()
        self.graph.add_nodes_from(hypernyms)
        self.graph.add_edges_from((low, high) for low, above in hypernyms.items() for high in above)
        self._senses = dict(senses)
        self._closures: dict[str, frozenset[str]] = {}
        self._depths: dict[str, int] = {ROOT: ROOT_DEPTH}

    @staticmethod
    @cache
    def load() -> "Taxonomy":
        """Return the graph that ships with the package. It is read once per process."""
        table = json.loads(gzip.decompress(assets.path("nouns.json.gz").read_bytes()))
        concepts = [f"n{offset:08d}" for offset in accumulate(table["offsets"])]
        hypernyms = {
            concept: [concepts[i + step] for step in steps]
            for i, (concept, steps) in enumerate(zip(concepts, table["parents"], strict=True))
        }
        senses: dict[str, Sequence[str]] = {
            lemma: (concept,)
            for concept, lemmas in zip(concepts, table["lemmas"], strict=True)
            for lemma in lemmas.split("|")
            if lemma
        }
        senses |= {lemma: tuple(concepts[i] for i in indices) for lemma, indices in table["senses"].items()}
        return Taxonomy(hypernyms, senses)

    def __contains__(self, concept: object) -> bool:
        return concept in self.graph

    def senses(self, phrase: str) -> tuple[str, ...]:
        """Return the concepts that a noun may mean, the most frequent first. Unknown nouns have none.

        Upper case, hyphens and underscores do not matter. The noun must be in the singular.
        """
        return tuple(self._senses.get(re.sub(r"[\s_-]+", " ", phrase).strip().lower(), ()))

    def nouns(self) -> list[str]:
        """Return all nouns of the graph, in lower case."""
        return list(self._senses)

    def lineage(self, concept: str) -> frozenset[str]:
        """Return the concept and all concepts above it, up to the root.

        Raises:
            ValueError: If the concept is unknown.
        """
        if concept not in self._closures:
            self._require(concept)
            above = (self.lineage(parent) for parent in self.graph.successors(concept))
            self._closures[concept] = frozenset({concept}).union(*above)
        return self._closures[concept]

    def ancestors(self, concept: str) -> frozenset[str]:
        """Return all concepts above this one.

        Raises:
            ValueError: If the concept is unknown.
        """
        return self.lineage(concept) - {concept}

    def is_a(self, concept: str, general: str) -> bool:
        """Return whether `concept` is `general` or a kind of it.

        Raises:
            ValueError: If the concept is unknown.
        """
        return general in self.lineage(concept)

    def depth(self, concept: str) -> int:
        """Return the number of concepts from WordNet's "entity" down to this one, both counted.

        The longest path over all parents counts. With the first parent only, a common ancestor could be
        deeper than the concepts below it, and Wu and Palmer's similarity could exceed 1.

        Raises:
            ValueError: If the concept is unknown.
        """
        if concept not in self._depths:
            self._require(concept)
            self._depths[concept] = 1 + max(self.depth(parent) for parent in self.graph.successors(concept))
        return self._depths[concept]

    def lowest_common_ancestor(self, first: str, *others: str, among: Container[str] | None = None) -> str:
        """Return the deepest concept that equals or lies above every given one. Ties go to the smallest id.

        Args:
            first: A concept.
            others: Further concepts.
            among: The concepts to choose from, which must include the root. None allows all.

        Raises:
            ValueError: If a concept is unknown.
        """
        common = self.lineage(first).intersection(*(self.lineage(other) for other in others))
        allowed = common if among is None else {concept for concept in common if concept in among}
        return min(allowed, key=lambda concept: (-self.depth(concept), concept))

    def wu_palmer(self, a: str, b: str, *, among: Container[str] | None = None) -> float:
        """Return Wu and Palmer's similarity of two concepts, in (0, 1].

            2 depth(c) / (depth(a) + depth(b)),   c the lowest common ancestor of a and b.

        The similarity is symmetric, and 1 for a concept and itself.

        Args:
            a: A concept.
            b: A concept.
            among: The concepts from which c is chosen (see `lowest_common_ancestor`). The similarity of a
                concept and itself is then 1 only if the concept is one of them.

        Raises:
            ValueError: If a concept is unknown.

        References:
            Wu and Palmer, "Verb semantics and lexical selection", ACL 1994.
        """
        common = self.lowest_common_ancestor(a, b, among=among)
        return 2 * self.depth(common) / (self.depth(a) + self.depth(b))

    def _require(self, concept: str) -> None:
        if concept not in self.graph:
            raise ValueError(f"the knowledge graph has no concept {concept!r}")
