"""The knowledge graph: concrete nouns of WordNet 3.1, each below the more general ones.

A concept id is WordNet's synset offset with an "n" before it, e.g. n07755101, apple the fruit. The root is
n00001930, physical entity. The graph is trimmed by experiments/knowledge/build_nouns.py, which also describes
the file.

Source: Miller, "WordNet: a lexical database for English", CACM 38 (11), 1995.
"""

import gzip
import json
import re
from collections.abc import Container, Mapping, Sequence
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING

from fedaigc import assets

if TYPE_CHECKING:
    pass

ROOT = "n00001930"
# WordNet's single root, "entity", stands above physical entity, and counts in the depths that are published
ROOT_DEPTH = 2


class Taxonomy:
    """Concepts, what they are kinds of, and the words for them.

    hypernyms: concept -> the concepts directly above it; every path ends in ROOT.
    senses: lemma (lower case, words apart) -> its concepts, the most frequent first.
    """

    def __init__(self, hypernyms: Mapping[str, Sequence[str]], senses: Mapping[str, Sequence[str]]) -> None:
        # imported here: networkx takes longer to import than the graph to read
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
        """The graph that ships with the package; read once in a process."""
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
        """The concepts that a noun may mean, the most frequent first; empty when the graph lacks it.

        Upper case, hyphens and underscores do not matter; the noun must be in the singular.
        """
        return tuple(self._senses.get(re.sub(r"[\s_-]+", " ", phrase).strip().lower(), ()))

    def lineage(self, concept: str) -> frozenset[str]:
        """The concept and all that stand above it, up to the root. ValueError for an unknown concept."""
        if concept not in self._closures:
            self._require(concept)
            above = (self.lineage(parent) for parent in self.graph.successors(concept))
            self._closures[concept] = frozenset({concept}).union(*above)
        return self._closures[concept]

    def ancestors(self, concept: str) -> frozenset[str]:
        """All concepts above this one. ValueError for an unknown concept."""
        return self.lineage(concept) - {concept}

    def is_a(self, concept: str, general: str) -> bool:
        """Whether `concept` is `general` or a kind of it. ValueError for an unknown concept."""
        return general in self.lineage(concept)

    def depth(self, concept: str) -> int:
        """The number of concepts on the longest path from WordNet's "entity" down to this one, both counted.

        The longest over all parents: with the first parent, a common ancestor may lie deeper than what stands
        below it, and Wu and Palmer's similarity exceeds 1.
        """
        if concept not in self._depths:
            self._require(concept)
            self._depths[concept] = 1 + max(self.depth(parent) for parent in self.graph.successors(concept))
        return self._depths[concept]

    def lowest_common_ancestor(self, first: str, *others: str, among: Container[str] | None = None) -> str:
        """The deepest concept that is, or stands above, every one given; the smallest id among equals.

        among: the concepts to choose from, all of them by default; it must hold the root.
        """
        common = self.lineage(first).intersection(*(self.lineage(other) for other in others))
        allowed = common if among is None else {concept for concept in common if concept in among}
        return min(allowed, key=lambda concept: (-self.depth(concept), concept))

    def wu_palmer(self, a: str, b: str, *, among: Container[str] | None = None) -> float:
        """Similarity in (0, 1]: 2 depth(c) / (depth(a) + depth(b)), c the lowest common ancestor.

        1 for a concept and itself, and symmetric. among: the concepts that c is chosen from, see
        `lowest_common_ancestor`; then 1 for a concept and itself only if it is one of them. Source: Wu and
        Palmer, "Verb semantics and lexical selection", ACL 1994.
        """
        common = self.lowest_common_ancestor(a, b, among=among)
        return 2 * self.depth(common) / (self.depth(a) + self.depth(b))

    def _require(self, concept: str) -> None:
        if concept not in self.graph:
            raise ValueError(f"the knowledge graph has no concept {concept!r}")
