"""The figures of docs/how-to/topologies.md."""

from experiments.pages.markdown import markdown
from experiments.pages.records import estimate, record
from experiments.pages.registry import figure, table
from fedaigc.metrics.intervals import Estimate
from fedaigc.study.results.table_files import shown

RECORD = "topologies/compare"
_NAMES = {
    "alone": "each alone",
    "edge": "one edge",
    "edges": "four edges",
    "pair": "pairs",
    "cluster": "cluster",
}
_FOLLOWS = ", K follows the link"


@table
def topologies() -> str:
    """What a prompt takes in the mean, by topology."""
    columns = (
        ("shared", 2),
        ("steps_devices", 1),
        ("steps_edges", 1),
        ("joules_devices", 0),
        ("joules_edges", 0),
        ("seconds", 0),
        ("kbit", 0),
        ("kbit_messages", 0),
    )
    rows = [
        [told, *(shown(estimate(_way(name)[column]), digits) for column, digits in columns)]
        for name, told in _NAMES.items()
    ]
    header = [
        "topology",
        "share that shares",
        "steps, devices",
        "steps, edges",
        "J, devices",
        "J, edges",
        "seconds",
        "kbit of packets",
        "kbit of messages",
    ]
    return markdown(header, rows)


@table
def topologies_that_follow() -> str:
    """What executors gain that run further steps while a member is out of reach."""
    columns = (("shared_steps", 1), ("lost", 2), ("shared", 2), ("steps_devices", 1))
    rows = [
        [told, "follows" if follows else "fixed", *(shown(estimate(way[column]), d) for column, d in columns)]
        for name, told in _NAMES.items()
        if name != "alone"
        for follows in (False, True)
        for way in (_way(name + _FOLLOWS if follows else name),)
    ]
    header = ["topology", "K", "shared steps", "packets refused", "share that shares", "steps, devices"]
    return markdown(header, rows)


@figure
def topology(name: str, column: str) -> Estimate:
    """One value of one topology."""
    return estimate(_way(name)[column])


def _way(name: str) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = record(RECORD)["ways"][name]
    return found
