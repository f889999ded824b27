"""Iterated Krum: the selection with which Bulyan starts."""

from flwr.app import RecordDict
from flwr.serverapp.strategy.multikrum import select_multikrum


def iterated_krum(contents: list[RecordDict], num_malicious_nodes: int, count: int) -> list[RecordDict]:
    """Return `count` updates: Krum's choice, then Krum's choice among the others, and so on.

    Source: El Mhamdi et al. 2018, arXiv:1802.07927. A score counts the distances to the m - f - 2 nearest of
    the m remaining updates, and to at least one: the last updates have fewer neighbours than Krum requires.

    Args:
        contents: The updates.
        num_malicious_nodes: f, the number of attackers.
        count: Number of updates to select.

    Returns:
        The selected updates, in the order of selection.
    """
    left, chosen = list(contents), list[RecordDict]()
    while len(chosen) < count:
        (best,) = select_multikrum(left, num_malicious_nodes, 1)
        chosen.append(best)
        left = [content for content in left if content is not best]
    return chosen
