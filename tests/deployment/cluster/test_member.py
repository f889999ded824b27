"""Four devices without an edge, as processes over TLS: as one process would; a kill costs only the sharing."""

import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from fedaigc.deployment.cluster.member import claim_round
from fedaigc.deployment.peer.paired import Peers
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import TaskStatus
from fedaigc.errors import UserError
from fedaigc.semantics.policy import Policy
from tests.deployment.cluster.devices import COSTS, PROMPTS, check_frames, cluster_homes, member_of, name, run
from tests.deployment.cluster.one_process import drawn_in_one_process, elected_from, offers_in
from tests.deployment.peer.devices import TERMS, pictures, tasks
from tests.small_atlas import small_atlas

RIVER_EXECUTOR = 3


@pytest.fixture
def homes(tmp_path: Path) -> list[Path]:
    return cluster_homes(tmp_path / "homes", PROMPTS)


def test_the_pictures_are_those_of_one_process(tmp_path: Path, homes: list[Path], small_model: Path) -> None:
    copies = [Path(shutil.copytree(home, tmp_path / "copies" / home.name)) for home in homes]
    members = {number: member_of(home, small_model, COSTS[number]) for number, home in enumerate(homes)}
    # its packet is there before it is connected to one of those that wait for it
    ran = run(tmp_path, members, late=(RIVER_EXECUTOR, 2))
    assert len(set(ran.pids)) == 4
    offers = offers_in(ran.sent, homes)
    table, river = sorted(elected_from(offers), key=lambda found: len(found.devices))
    cards = [Peers(Home.open(home)).own() for home in homes]
    assert (len(table.members), table.executor) == (2, cards[1].fingerprint)
    assert (len(river.members), river.executor) == (3, cards[RIVER_EXECUTOR].fingerprint)
    for number, shared in enumerate(drawn_in_one_process(homes, copies, offers, small_model)):
        outcomes = ran.outcomes[number]
        assert outcomes is not None
        for task, chosen in shared.items():
            by = next(which for which, card in enumerate(cards) if card.fingerprint == chosen.executor)
            executor = "own" if by == number else name(by)
            assert (outcomes[task].executor, outcomes[task].devices) == (executor, len(chosen.devices))
    for home, copy, prompts in zip(homes, copies, PROMPTS, strict=True):
        assert pictures(home) == pictures(copy)
        assert len(pictures(home)) == len(prompts)
        assert {(task.status, task.attempts) for task in tasks(home)} == {(TaskStatus.FINISHED, 1)}
    check_frames([frame for sent in ran.sent for frame in sent])
    # a device commits once in a round: the number is used up
    with pytest.raises(UserError, match="took part in round 1"):
        claim_round(Home.open(homes[0]), 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("message", "times"), [(b'["offered"', 1), (b'["commit"', 1), (b"FAGS", 1), (b"FAGS", 2)]
)
def test_an_executor_that_is_killed_costs_only_its_group(
    tmp_path: Path, homes: list[Path], small_model: Path, message: bytes, times: int
) -> None:
    members = {number: member_of(home, small_model, COSTS[number]) for number, home in enumerate(homes)}
    ran = run(tmp_path, members, killed=(RIVER_EXECUTOR, message, times))
    assert ran.outcomes[RIVER_EXECUTOR] is None
    river = []
    for number, home in enumerate(homes[:RIVER_EXECUTOR]):
        outcomes = ran.outcomes[number]
        assert outcomes is not None
        assert {(task.status, task.attempts) for task in tasks(home)} == {(TaskStatus.FINISHED, 1)}
        assert len(pictures(home)) == len(PROMPTS[number])
        for place, task in enumerate(tasks(home)):
            if "table" in PROMPTS[number][place]:
                # the other group goes on: its own executor is there
                assert (outcomes[task.task_id].devices, outcomes[task.task_id].why) == (2, "")
            else:
                river.append(outcomes[task.task_id])
    shared = sum(outcome.executor == name(RIVER_EXECUTOR) for outcome in river)
    if message == b"FAGS":
        # what was sent arrives, unless the end of its sender overtakes it
        assert shared <= times - 1
    else:
        # before it offered, the two others of the group may share without it
        assert shared == 0
    (lost,) = tasks(homes[RIVER_EXECUTOR])
    assert (lost.status, lost.attempts) == (TaskStatus.WAITING, 0)


def test_any_words_by_nodes_and_one_that_compares_otherwise(tmp_path: Path, small_model: Path) -> None:
    atlas = small_atlas(tmp_path, small_model)
    prompts = ["zorblax dog, quuxdown", "a frobnik horse over wibbleton", "an apple on a table", "vexmoor"]
    homes = cluster_homes(tmp_path / "homes", [[prompt] for prompt in prompts])
    by_nodes: dict[str, Any] = {
        "atlas": atlas,
        "calibration": atlas.with_name("small.json"),
        "min_captions": 2,
    }
    members = {
        number: member_of(home, small_model, number, **({} if number == 2 else by_nodes))
        for number, home in enumerate(homes)
    }
    ran = run(tmp_path, members)
    found = [next(iter(outcomes.values())) for outcomes in ran.outcomes if outcomes is not None]
    assert [outcome.executor for outcome in found] == ["own", name(0), "", name(0)]
    assert [outcome.devices for outcome in found] == [3, 3, 0, 3]
    assert found[2].why == "no prompt of another device fits"
    assert all(len(pictures(home)) == 1 for home in homes)
    frames = b"".join(frame for sent in ran.sent for frame in sent)
    assert not [
        word for prompt in prompts for word in prompt.split() if len(word) > 4 and word.encode() in frames
    ]


def test_wrong_orders_of_the_owner_draw_nothing(homes: list[Path], small_model: Path) -> None:
    with pytest.raises(UserError, match="choose another"):
        member_of(homes[0], small_model, policy=Policy.OPEN)
    member = member_of(homes[0], small_model)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        for addresses, wrong in (
            ({}, "0 other devices"),
            ({"kitchen": "127.0.0.1:1"}, "no paired device"),
            ({"desk1": "nowhere"}, "host:port"),
        ):
            with pytest.raises(UserError, match=wrong):
                member.take_part(1, listening, addresses, TERMS)
        claim_round(Home.open(homes[0]), 7)
        with pytest.raises(UserError, match="8 or larger"):
            member.take_part(7, listening, {"desk1": "127.0.0.1:1"}, TERMS)
    assert {(task.status, task.attempts) for task in tasks(homes[0])} == {(TaskStatus.WAITING, 0)}
