"""Group signatures that can share their first denoising steps, and choose the public prompt of each group.

The distance of two signatures in the same relation, with objects a, b and places p, q, is

    d = (1 - sim(a, b)) + place_weight (1 - sim(p, q)),   sim(a, b) = 2 depth(c) / (depth(a) + depth(b))

sim is Wu and Palmer's similarity, where c is the lowest common ancestor *that has a public word*, i.e. that a
group prompt can express. Plain Wu-Palmer puts an animal closer to a plant (both organisms, 0.86) than to a
mammal (0.82), but no caption contains "an organism", and the nearest public word for both is "a thing". Open
signatures, whose group prompt is a member's own, are compared by plain Wu-Palmer.

Groups are the clusters of complete linkage: no two members are further apart than `max_distance`. Signatures
in different relations never share a group, and neither do open and other signatures. The first steps fix the
layout, so the default place_weight separates any two different places (the closest, desk and table, by 0.53).
The result depends only on the set of signatures, so the waiting tasks are regrouped when another task
arrives. The method is step 3 of the framework in [Du23].

The cost is quadratic in the number of different signatures in a relation, and independent of the number of
tasks. There are at most a few hundred different signatures that are not open. Open signatures can be as
numerous as tasks, so they are compared within runs of `MAX_COMPARED` in the order of their content.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import combinations

from fedaigc.bounds import MAX_COMPARED
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.concepts.vocabulary import Role, public_nouns, render_prompt
from fedaigc.semantics.signature import OpenSignature, Signature

# distances: mammal and animal 0.18, vehicle and device 0.29, dog and bird in open signatures 0.25
MAX_DISTANCE = 0.25
PLACE_WEIGHT = 10.0
Similarity = Callable[[str, str], float]


@dataclass(frozen=True)
class Group:
    """Tasks that share their first steps.

    Attributes:
        members: Task ids, ascending.
        prompt: The public prompt of the shared steps. Under the policy open it is the prompt of one member.
            It is empty if nothing was disclosed.
        signature: The prompt as concepts. None for a task that runs alone because nothing was disclosed.
        node: The node of an atlas whose caption the prompt is; None: the prompt is no caption.
    """

    members: tuple[str, ...]
    prompt: str
    signature: Signature | None
    node: int | None = None


def group(
    signatures: Mapping[str, Signature | None],
    taxonomy: Taxonomy,
    max_distance: float = MAX_DISTANCE,
    place_weight: float = PLACE_WEIGHT,
) -> list[Group]:
    """Group the tasks, in the order of the first task id of each group.

    Args:
        signatures: Task id -> the signature that its device disclosed. None makes a group of one.
        taxonomy: The knowledge graph.
        max_distance: The largest distance between two members. 0 groups equal signatures only.
        place_weight: Weight of the places in the distance.

    Raises:
        ValueError: If `max_distance` or `place_weight` is negative.
    """
    if max_distance < 0 or place_weight < 0:
        raise ValueError(f"max_distance is {max_distance}, place_weight {place_weight}: expected at least 0")
    tasks: defaultdict[Signature, list[str]] = defaultdict(list)
    groups = []
    for task_id in sorted(signatures):
        signature = signatures[task_id]
        if signature is None:
            groups.append(Group((task_id,), "", None))
        else:
            tasks[signature].append(task_id)
    mixable: defaultdict[tuple[bool, str], list[Signature]] = defaultdict(list)
    # sorted by content, so that ties are broken by signatures and not by task ids
    for signature in sorted(tasks, key=Signature.to_json):
        mixable[isinstance(signature, OpenSignature), signature.relation].append(signature)
    for candidates in mixable.values():
        run = MAX_COMPARED if isinstance(candidates[0], OpenSignature) else len(candidates)
        for start in range(0, len(candidates), run):
            compared = candidates[start : start + run]
            for cluster in _clusters(compared, taxonomy, max_distance, place_weight):
                members = tuple(sorted(task_id for signature in cluster for task_id in tasks[signature]))
                groups.append(_described(members, cluster, taxonomy))
    return sorted(groups, key=lambda group: group.members)


def distance(a: Signature, b: Signature, taxonomy: Taxonomy, place_weight: float = PLACE_WEIGHT) -> float:
    """Return the distance of two signatures in the same relation: >= 0, and 0 for the same concepts.

    The module documentation defines it.
    """
    both_open = isinstance(a, OpenSignature) and isinstance(b, OpenSignature)
    return _distance(a, b, _similarities(taxonomy, both_open), place_weight)


def _similarities(taxonomy: Taxonomy, both_open: bool) -> tuple[Similarity, Similarity]:
    """Return Wu and Palmer's similarity for objects and for places. Each pair is looked up only once."""

    def of(role: Role) -> Similarity:
        return cache(partial(taxonomy.wu_palmer, among=None if both_open else public_nouns(role)))

    return of(Role.OBJECT), of(Role.PLACE)


def _distance(
    a: Signature, b: Signature, similarities: tuple[Similarity, Similarity], place_weight: float
) -> float:
    objects, places = similarities
    return 1 - objects(a.object, b.object) + place_weight * (1 - places(a.place, b.place))


def _clusters(
    candidates: Sequence[Signature], taxonomy: Taxonomy, max_distance: float, place_weight: float
) -> list[list[Signature]]:
    if len(candidates) == 1:
        return [list(candidates)]
    # imported here because scipy loads slowly, and a device never groups
    from scipy.cluster.hierarchy import fcluster, linkage

    # either all or none of the candidates are open
    similar = _similarities(taxonomy, isinstance(candidates[0], OpenSignature))
    distances = [_distance(a, b, similar, place_weight) for a, b in combinations(candidates, 2)]
    labels = fcluster(linkage(distances, method="complete"), t=max_distance, criterion="distance")
    clusters: defaultdict[int, list[Signature]] = defaultdict(list)
    for signature, label in zip(candidates, labels, strict=True):
        clusters[int(label)].append(signature)
    return list(clusters.values())


def _described(members: tuple[str, ...], cluster: Sequence[Signature], taxonomy: Taxonomy) -> Group:
    return Group(members, *common_prompt(cluster, taxonomy))


def common_prompt(cluster: Sequence[Signature], taxonomy: Taxonomy) -> tuple[str, Signature]:
    """Return the public prompt of signatures in one relation, and the prompt as concepts.

    Args:
        cluster: The signatures, at least one. Of open signatures it is the prompt of the first.
        taxonomy: The knowledge graph.
    """
    first = cluster[0]
    if isinstance(first, OpenSignature):
        return first.prompt, first
    thing = taxonomy.lowest_common_ancestor(*(s.object for s in cluster), among=public_nouns(Role.OBJECT))
    place = taxonomy.lowest_common_ancestor(*(s.place for s in cluster), among=public_nouns(Role.PLACE))
    common = Signature(thing, first.relation, place, first.policy)
    return render_prompt(thing, first.relation, place), common
