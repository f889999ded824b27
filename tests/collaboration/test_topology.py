"""Who computes where devices are among themselves."""

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from fedaigc.collaboration.election import cheapest, elect_executors
from fedaigc.collaboration.topology import executors_of, on_several_devices
from fedaigc.semantics.grouping import Group

# two tasks of each of eight devices, in groups of any sizes
OWNERS = {f"{number:02d}": number // 2 for number in range(16)}
GROUPS = st.lists(st.integers(0, 5), min_size=16, max_size=16).map(
    lambda places: [
        Group(tuple(task for task, place in zip(OWNERS, places, strict=True) if place == chosen), "", None)
        for chosen in sorted(set(places))
    ]
)
COSTS = st.lists(st.integers(0, 2), min_size=8, max_size=8).map(lambda found: dict(enumerate(found)))


@settings(max_examples=50)
@given(GROUPS, COSTS, st.randoms())
def test_a_cluster_elects_the_same_in_any_order_and_spreads_equal_costs(
    groups: list[Group], costs: dict[int, int], random: Random
) -> None:
    elected = elect_executors(groups, OWNERS, costs)
    random.shuffle(groups)
    assert elect_executors(groups, OWNERS, costs) == elected
    burden: Counter[int] = Counter()
    for each in elected:
        assert each.devices == tuple(sorted({OWNERS[task] for task in each.group.members}))
        lowest = [device for device in each.devices if costs[device] == min(costs[d] for d in each.devices)]
        assert each.executor in lowest
        assert burden[each.executor] == min(burden[device] for device in lowest)
        burden[each.executor] += 1
    several = on_several_devices(groups, OWNERS)
    assert {group.members for group in several if len(group.members) > 1} == {
        each.group.members for each in elected
    }
    assert sorted(task for group in several for task in group.members) == sorted(OWNERS)


def test_a_pair_goes_by_cost_alone_and_an_edge_elects_nobody() -> None:
    owners = {"a": 0, "b": 1, "c": 1, "d": 0, "e": 2}
    groups = [Group(("a", "b"), "", None), Group(("c", "d"), "", None), Group(("e",), "", None)]
    same = dict.fromkeys(range(3), 7)
    # two devices know nothing of the other pair
    assert executors_of("pair", groups, owners, same) == {"a": 0, "c": 0}
    assert executors_of("cluster", groups, owners, same) == {"a": 0, "c": 1}
    assert executors_of("pair", groups, owners, same | {0: 8}) == {"a": 1, "c": 1}
    assert executors_of("edge", groups, owners, same) is None
    assert cheapest(("b", "a"), {"a": 1, "b": 1}) == "a"
