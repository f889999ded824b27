"""The commands of paired devices: what they print and refuse."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from fedaigc.cli.main import app
from fedaigc.cli.peer.sharing import _told
from fedaigc.deployment.peer.paired import Peers
from fedaigc.deployment.peer.sharing import Outcome
from fedaigc.device.home.home import Home
from fedaigc.errors import UserError
from tests.deployment.peer.test_pairing import CODE, Invitation


def device(*words: object, typed: str = "") -> str:
    """Return what `fedaigc device ...` prints; raises what it refuses."""
    done = CliRunner().invoke(app, ["device", *map(str, words)], input=typed)
    if isinstance(done.exception, UserError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def homes(tmp_path: Path) -> tuple[Path, Path]:
    for name in ("a", "b"):
        Home.open(tmp_path / name, 0)
    return tmp_path / "a", tmp_path / "b"


def test_pair_list_and_forget(homes: tuple[Path, Path]) -> None:
    a, b = homes
    invitation = Invitation(a)
    told = device("pair", b, "kitchen", "--to", invitation.address, typed=f"{CODE[:3]} {CODE[3:]}\n")
    assert invitation.end().error is None
    own = [Peers(Home.open(home)).own().fingerprint[:16] for home in homes]
    assert f"paired with kitchen, key {own[0]}" in told
    assert device("peers", b).splitlines() == [f"this device: key {own[1]}", f"kitchen: key {own[0]}"]
    assert device("peers", b, "--remove", "kitchen") == "kitchen is forgotten\n"
    assert len(device("peers", b).splitlines()) == 1


def test_what_the_commands_refuse(homes: tuple[Path, Path], tmp_path: Path) -> None:
    a, _ = homes
    there = ("--to", "127.0.0.1:1")
    refused = {
        ("pair", a, "kitchen"): "--listen HOST:PORT on one device",
        ("pair", a, "kitchen", *there, "--listen", "127.0.0.1:1"): "--listen HOST:PORT on one device",
        ("pair", tmp_path / "none", "kitchen", *there): "not a device's home",
        ("pair", a, "kitchen", "--listen", "192.0.2.1:1"): "cannot be used",
        ("peers", a, "--remove", "kitchen"): "paired: none",
        ("share", a, "kitchen", *there, "--atlas", "x"): "are for --nodes",
        ("listen", tmp_path / "none", "--at", "127.0.0.1:1"): "not a device's home",
    }
    for words, message in refused.items():
        with pytest.raises(UserError, match=message):
            device(*words)


@pytest.mark.parametrize(
    ("outcome", "told"),
    [
        (Outcome("k", "1" * 16, None, "own"), "k: shared, the first steps run by this device: "),
        (Outcome("k", "1" * 16, None, "other"), "k: shared, the first steps run by k: "),
        (Outcome("k", "1" * 16, None, "own", "gone"), "run by this device (gone): "),
        (Outcome("k", "1" * 16, None, "", "gone"), "k: not shared: gone; drawn alone: "),
        (Outcome("k", None, None, "", "gone"), "k: not shared, nothing drawn: gone"),
    ],
)
def test_an_outcome_in_a_line(outcome: Outcome, told: str) -> None:
    line = _told(outcome, Path("gallery"), "k")
    assert told in line
    assert line.endswith(f"gallery/{'1' * 16}.png") is (outcome.task_id is not None)
