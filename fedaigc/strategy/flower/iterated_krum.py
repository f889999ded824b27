"""Krum, repeated: the selection that Bulyan starts with."""

from flwr.app import RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum


def iterated_krum(contents: list[RecordDict], num_malicious_nodes: int, count: int) -> list[RecordDict]:
    """`count` of the updates, in the order of their choice: Krum's, then Krum's among the others, and so on.

    El Mhamdi et al. 2018, arXiv:1802.07927. A score counts the distances to the m - f - 2 nearest of the m
    updates that are left, and to one at least: the last ones have fewer neighbours than Krum asks for.
    """
    left, chosen = list(contents), list[RecordDict]()
    while len(chosen) < count:
        (best,) = select_multikrum(left, num_malicious_nodes, 1)
        chosen.append(best)
        left = [content for content in left if content is not best]
    return chosen
