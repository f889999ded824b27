"""The command of a cluster: what it refuses, and what it prints."""

from pathlib import Path

import pytest

from fedaigc.cli.peer.cluster import told
from fedaigc.deployment.cluster.member import Outcome
from fedaigc.deployment.peer.paired import Peers
from fedaigc.device.home.home import Home
from fedaigc.device.replies import FinishReport
from fedaigc.errors import UserError
from tests.deployment.peer.test_commands import device


def test_what_the_command_refuses(tmp_path: Path) -> None:
    home = tmp_path / "a"
    Home.open(home, 0)
    Peers(Home.open(home)).own()
    at = ("--at", "127.0.0.1:1", "--round", 1)
    refused = {
        (tmp_path / "none", *at, "--with", "b=127.0.0.1:2"): "not a device's home",
        (home, *at, "--with", "127.0.0.1:2"): "expected NAME=HOST:PORT",
        (home, *at, "--with", "b="): "expected NAME=HOST:PORT",
        (home, *at, "--with", "b=127.0.0.1:2", "--with", "b=127.0.0.1:3"): "twice",
        (home, *at, "--with", "b=127.0.0.1:2", "--atlas", "x"): "are for --nodes",
    }
    for words, message in refused.items():
        with pytest.raises(UserError, match=message):
            device("cluster", *words)


REPORT = FinishReport(1, 2, 3, 6, None, None, None)


@pytest.mark.parametrize(
    ("outcome", "line"),
    [
        (
            Outcome("1", REPORT, "own", 3),
            "1: shared by 3 devices, the first steps run by this device: g/1.png",
        ),
        (Outcome("1", REPORT, "ben", 2), "1: shared by 2 devices, the first steps run by ben: g/1.png"),
        (Outcome("1", REPORT, why="gone"), "1: drawn alone (gone): g/1.png"),
        (Outcome("1", why="the prompt waits no longer"), "1: not drawn: the prompt waits no longer"),
    ],
)
def test_an_outcome_in_a_line(outcome: Outcome, line: str) -> None:
    assert told(outcome, Path("g")) == line
