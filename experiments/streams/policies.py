"""Who shares what in a window of waiting prompts: one function a policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from torch import Tensor

from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import RISK
from fedaigc.semantics.denoiser.node_groups import expected_handoff, node_groups
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.sharing_distance import distance
from fedaigc.semantics.grouping import Group, group
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose

if TYPE_CHECKING:
    from experiments.streams.drawing import Studio

FIXED = 3
LADDER = (1, 2, 3, 4, 5, 6, 8, 10)
MIN_CAPTIONS = 8
CAUTIOUS = 0.2


@dataclass(frozen=True, eq=False)
class GroupPlan:
    """A group of prompts of a window.

    Attributes:
        members: Places in the window.
        conditioning: Embedding that the shared steps run on; None for a prompt alone.
        handoffs: K of each member.
    """

    members: tuple[int, ...]
    conditioning: Tensor | None
    handoffs: dict[int, int]


Groups = Sequence[GroupPlan]


@dataclass(frozen=True, eq=False)
class Formed:
    """A group before its members decide.

    Attributes:
        members: Places in the window.
        conditioning: Embedding that the shared steps run on.
        middle: Its vector.
    """

    members: tuple[int, ...]
    conditioning: Float[Tensor, "tokens d"]
    middle: Float[np.ndarray, " d"]


class Policies:
    """The policies by their names.

    Args:
        studio: Model, atlas and calibration.
        tolerance: The largest damage of a picture that a device accepts.
        risk: The largest share of pictures beyond it.
    """

    def __init__(self, studio: Studio, tolerance: float, risk: float = RISK) -> None:
        self._studio, self._tolerance, self._risk = studio, tolerance, risk
        self._taxonomy = Taxonomy.load()
        self.named: dict[str, Callable[[Sequence[str]], Groups]] = {
            "alone": lambda window: [_alone(i) for i in range(len(window))],
            "concepts, K = 3": self.concepts,
            "equal prompts": self.equal,
            "nodes, K = 3, any distance": self.any_distance,
            "ladder, public caption": lambda window: self.nodes(window, LADDER),
            "ladder, mean": lambda window: self.nodes(window, LADDER, mean=True),
            "ladder, mean, risk .2": lambda window: Policies(studio, tolerance, CAUTIOUS).nodes(
                window, LADDER, mean=True
            ),
            "equality test, ladder, mean": self.tested,
            "equality test, ladder, mean, risk .2": lambda window: Policies(
                studio, tolerance, CAUTIOUS
            ).tested(window),
            "ladder, mean, m = 1": lambda window: self.nodes(window, LADDER, mean=True, m=1),
        }

    def concepts(self, window: Sequence[str]) -> Groups:
        """Groups by the knowledge graph under the default policy, all at K = 3."""
        signatures = {
            f"{i:03d}": disclose(parse(text, self._taxonomy), Policy.KIND, self._taxonomy, 3)
            for i, text in enumerate(window)
        }
        return [self._fixed(each) for each in group(signatures, self._taxonomy)]

    def equal(self, window: Sequence[str]) -> Groups:
        """Equal prompts share all steps but the last; what a cache of exact prompts could do, without privacy."""
        places: dict[str, list[int]] = {}
        for i, text in enumerate(window):
            places.setdefault(text, []).append(i)
        last = self._studio.plan.num_steps - 1
        found: list[GroupPlan] = []
        for text, members in places.items():
            if len(members) == 1:
                found.append(_alone(members[0]))
                continue
            found.append(
                GroupPlan(tuple(members), self._studio.embeddings([text])[0], dict.fromkeys(members, last))
            )
        return found

    def any_distance(self, window: Sequence[str]) -> Groups:
        """Groups at nodes of the atlas at K = 3, whatever the distance."""
        atlas, vectors = self._studio.atlas, self._studio.vectors(window)
        signatures = {}
        for i, vector in enumerate(vectors):
            node = atlas.disclosed(vector, MIN_CAPTIONS)
            assert node is not None
            signatures[f"{i:03d}"] = NodeSignature(atlas.hash, node, 0)
        owners = {task: int(task) for task in signatures}
        return [self._fixed(each) for each in node_groups(signatures, owners, atlas, 2)]

    def nodes(
        self, window: Sequence[str], ladder: tuple[int, ...], *, mean: bool = False, m: int = MIN_CAPTIONS
    ) -> Groups:
        """Groups at nodes of the atlas; each device takes the last hand-off that its tolerance allows.

        With `mean`, groups of three and more run on the mean of their members' embeddings. A node is disclosed by at
        least m captions; m = 1 discloses the prompt itself.
        """
        vectors = self._studio.vectors(window)
        found: list[GroupPlan] = []
        for each in self.formed(window, ladder, mean=mean, m=m):
            steps = {i: self.taken(distance(vectors[i], each.middle), ladder) for i in each.members}
            found += [_alone(i) for i, k in steps.items() if not k]
            sharing = {i: k for i, k in steps.items() if k}
            if len(sharing) == 1:
                found += [_alone(i) for i in sharing]
            elif sharing:
                found.append(GroupPlan(tuple(sharing), each.conditioning, sharing))
        grouped = {i for plan in found for i in plan.handoffs}
        return found + [_alone(i) for i in range(len(window)) if i not in grouped]

    def formed(
        self, window: Sequence[str], ladder: tuple[int, ...], *, mean: bool = False, m: int = MIN_CAPTIONS
    ) -> list[Formed]:
        """The groups of `nodes` before their members decide; without those that are alone."""
        studio = self._studio
        atlas = self._atlas(m)
        told = self._disclosed(window, ladder, m)
        signatures = {f"{i:03d}": signature for i, signature in enumerate(told)}
        expected = expected_handoff(atlas, studio.calibration, self._tolerance, ladder, self._risk)
        owners = {task: int(task) for task in signatures}
        found: list[Formed] = []
        for each in node_groups(signatures, owners, atlas, 2, expected):
            members = tuple(map(int, each.members))
            if len(members) == 1:
                continue
            if mean and len(members) > 2:
                found.append(self._around_mean(window, members))
            else:
                found.append(self._around_caption(members, each.prompt))
        return found

    def _around_mean(self, window: Sequence[str], members: tuple[int, ...]) -> Formed:
        conditioning = self._studio.embeddings([window[i] for i in members]).mean(0)
        return Formed(members, conditioning, self._studio.vector_of(conditioning))

    def _around_caption(self, members: tuple[int, ...], caption: str) -> Formed:
        (conditioning,), (middle,) = self._studio.embeddings([caption]), self._studio.vectors([caption])
        return Formed(members, conditioning, middle)

    def _disclosed(
        self, window: Sequence[str], ladder: tuple[int, ...], m: int
    ) -> list[NodeSignature | None]:
        """Return what the device of each prompt discloses: the deepest of its nodes at which it would share."""
        atlas = self._atlas(m)
        found: list[NodeSignature | None] = []
        for vector in self._studio.vectors(window):
            deepest = atlas.disclosed(vector, m)
            assert deepest is not None
            way = atlas.way(vector)
            way = way[: way.index(deepest) + 1]
            captions = [atlas.vectors[atlas.medoid(node)] for node in way]
            fits = [bool(self.taken(distance(vector, each), ladder[:1])) for each in captions]
            if not any(fits):
                found.append(None)
                continue
            last = max(place for place, fit in enumerate(fits) if fit)
            first = last
            while first and fits[first - 1]:
                first -= 1
            found.append(NodeSignature(atlas.hash, way[last], way[first]))
        return found

    def _atlas(self, m: int) -> Atlas:
        return self._studio.atlas if m == MIN_CAPTIONS else self._studio.finest

    def taken(self, apart: float, offered: Sequence[int]) -> int:
        """Return the last of the offered hand-offs that a device takes at a distance; 0: none."""
        return self._studio.calibration.last_handoff(apart, self._tolerance, offered, risk=self._risk)

    def tested(self, window: Sequence[str]) -> Groups:
        """Devices that disclose the same find out whose prompts are equal; these share all steps but the last.

        So do those that disclose nothing. All others are grouped by `nodes`.
        """
        classes = [each for each in self.equal(window) if len(each.members) > 1]
        equal = {i for each in classes for i in each.members}
        others = [i for i in range(len(window)) if i not in equal]
        return classes + [
            replace(
                each,
                members=tuple(others[i] for i in each.members),
                handoffs={others[i]: k for i, k in each.handoffs.items()},
            )
            for each in self.nodes([window[i] for i in others], LADDER, mean=True)
        ]

    def _fixed(self, each: Group) -> GroupPlan:
        members = tuple(map(int, each.members))
        if len(members) == 1:
            return _alone(members[0])
        conditioning = self._studio.embeddings([each.prompt])[0]
        return GroupPlan(members, conditioning, dict.fromkeys(members, FIXED))


def _alone(member: int) -> GroupPlan:
    return GroupPlan((member,), None, {member: 0})
