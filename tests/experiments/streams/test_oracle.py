"""What an oracle takes, with the drawing of groups replaced by a judge that is content up to some hand-off."""

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments.streams import popular
from experiments.streams.drawing import Drawn
from experiments.streams.policies import GroupPlan

N = 11
# the last hand-off at which the judge finds what it finds in the picture drawn alone
CONTENT = {0: 4, 1: 10, 2: 0, 3: 7, 4: 10}


def test_each_prompt_takes_the_last_handoff_at_which_nothing_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []

    def draw(studio: Any, window: Any, groups: Sequence[GroupPlan], seed: Any) -> list[Drawn]:
        found = {}
        for group in groups:
            for member, k in group.handoffs.items():
                drawn.append((member, k))
                found[member] = Drawn(k, 0, int(k <= CONTENT[member]), 1, len(group.members))
        return [found[member] for member in sorted(found)]

    monkeypatch.setattr(popular, "draw_groups", draw)
    groups = [GroupPlan((0, 1, 2, 3), None, {0: 3, 1: 3, 2: 3, 3: 3}), GroupPlan((4,), None, {4: 0})]
    alone = [Drawn(0, N, 1, 1, 1) for _ in CONTENT]
    studio: Any = SimpleNamespace(plan=SimpleNamespace(num_steps=N))
    taken = popular.told_by_judge(studio, ["a prompt"] * 5, groups, (0, 0), alone)
    # 7 is on no rung, and who is alone in its group stays alone
    assert [row.K for row in taken] == [4, 10, 0, 6, 0]
    # the first member also pays the ten shared steps
    assert [row.evaluations for row in taken] == [N - 4 + 10, N - 10, N, N - 6, N]
    assert all(row.object for row in taken)
    # nobody is drawn again whose picture is found
    assert drawn.count((1, 10)) == 1
    assert (1, 8) not in drawn
    assert not [k for member, k in drawn if member == 4]


def test_what_is_lost_alone_costs_nothing_to_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        popular,
        "draw_groups",
        lambda studio, window, groups, seed: [
            Drawn(k, 0, 0, 0, 2) for group in groups for k in group.handoffs.values()
        ],
    )
    studio: Any = SimpleNamespace(plan=SimpleNamespace(num_steps=N))
    group = GroupPlan((0, 1), None, {0: 1, 1: 1})
    alone = [Drawn(0, N, 0, 1, 1), Drawn(0, N, 1, 1, 1)]
    taken = popular.told_by_judge(studio, ["a prompt"] * 2, [group], (0, 0), alone)
    assert [row.K for row in taken] == [10, 0]


def test_a_record_has_each_list_in_one_line(tmp_path: Path) -> None:
    record = {"K": [1, 2, 3], "names": ["a b", "c"], "nested": {"rows": [[1, 2], [3]], "share": [0.5, None]}}
    popular.write_record(tmp_path / "record.json", record)
    text = (tmp_path / "record.json").read_text()
    assert json.loads(text) == record
    assert '"K": [1,2,3]' in text
