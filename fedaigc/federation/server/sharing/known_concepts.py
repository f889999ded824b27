"""Tasks of which concepts, or whole prompts, were disclosed."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from fedaigc.federation.server.sharing.known_tasks import Common, KnownTasks, Rules, Way
from fedaigc.semantics.concepts.parser import ParsedPrompt
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Relation, Role, drawn_nouns, render_prompt
from fedaigc.semantics.grouping import common_prompt
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import OpenSignature, Signature, disclose

Vectors = Callable[[Sequence[str]], Float[np.ndarray, "n d"]]
"""Returns the vectors of prompts in the space of the sharing distance."""


class ConceptTasks(KnownTasks):
    """Tasks that may share if they have the same relation, on the public prompt above their concepts.

    Args:
        signatures: Task id -> what its device disclosed. None: it runs alone.
        taxonomy: The knowledge graph.
        vectors: The space of the sharing distance.
        rules: By what devices decide.
        min_public_prompts: How many objects share a signature.
    """

    def __init__(
        self,
        signatures: Mapping[str, Signature | None],
        taxonomy: Taxonomy,
        vectors: Vectors,
        rules: Rules,
        min_public_prompts: int,
    ) -> None:
        told = {task: each for task, each in signatures.items() if each is not None}
        super().__init__(told, rules)
        self._told = [told[task] for task in self.tasks]
        self._taxonomy = taxonomy
        self._vectors_of = vectors
        self._minimum = min_public_prompts

    def guessed(self, key: Hashable) -> Float[np.ndarray, "guesses d"]:
        """Return the vectors of the public prompts of which the same would have been disclosed."""
        assert isinstance(key, Signature)
        if isinstance(key, OpenSignature):
            return self._vectors_of([key.prompt])
        alike = _public_prompts(key.policy, self._minimum, self._taxonomy).get(key)
        # a place that Scenes does not draw has its general word alone
        return self._vectors_of(alike or [key.words])

    def families(self) -> list[list[int]]:
        """Return the rows by relation, and open signatures by themselves."""
        found: dict[tuple[bool, str], list[int]] = {}
        for row, told in enumerate(self._told):
            found.setdefault((isinstance(told, OpenSignature), told.relation), []).append(row)
        return [found[kind] for kind in sorted(found)]

    def divided(
        self, rows: Sequence[int], ways: Callable[[int], Way], rungs: Sequence[int]
    ) -> list[tuple[Common, list[int]]]:
        """Divide tasks: from all of them the farthest ones leave, as long as that saves more steps."""
        found: list[tuple[Common, list[int]]] = []
        rest = sorted(rows, key=lambda row: (self._told[row].to_json(), row))
        while True:
            best: tuple[int, Common, list[int]] | None = None
            inside = rest
            while len(inside) > 1:
                common = self._common(inside)
                saved, sharing = self.saved(inside, ways, rungs, common)
                if len(sharing) > 1 and (best is None or saved > best[0]):
                    best = (saved, common, sharing)
                far = max(inside, key=lambda row: (self._away(row, common), self._told[row].to_json()))
                # equal signatures leave together
                inside = [row for row in inside if self._told[row] != self._told[far]]
            if best is None:
                return found
            found.append((best[1], sorted(best[2])))
            rest = [row for row in rest if row not in best[2]]

    def _away(self, row: int, common: Common) -> float:
        return float(np.linalg.norm(self.guesses(row) - common.vector, axis=1).mean())

    def _common(self, rows: Sequence[int]) -> Common:
        cluster = list(dict.fromkeys(self._told[row] for row in rows))
        prompt, signature = common_prompt(cluster, self._taxonomy)
        return Common(prompt, None, self._vectors_of([prompt])[0], signature)


@lru_cache(maxsize=8)
def _public_prompts(policy: Policy, minimum: int, taxonomy: Taxonomy) -> dict[Signature, list[str]]:
    """Return the public prompts by what is disclosed of them under a policy."""
    found: dict[Signature, list[str]] = {}
    for relation in Relation:
        for thing in drawn_nouns(Role.OBJECT):
            for place in drawn_nouns(Role.PLACE):
                prompt = render_prompt(thing, relation, place)
                parsed = ParsedPrompt(prompt, thing, relation, place, ())
                told = disclose(parsed, policy, taxonomy, minimum)
                if told is not None:
                    found.setdefault(told, []).append(prompt)
    return found
