"""Pages that are complete for closed lists, and the messages that the page of refusals quotes."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from fedaigc.deployment.agent import connection
from fedaigc.deployment.server import clocks
from fedaigc.device.replies import Failure
from fedaigc.federation.wire.messages import Ask

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "how-to" / "refusals.md"
ROW = re.compile(r"^\| `(?P<message>[^`]+)` \| (?P<cause>.+) \| (?P<remedy>.+) \|$")
# where a value stands in a message
_GAP = "…"


def rows() -> list[re.Match[str]]:
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    found = [ROW.match(line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if match is None]
    return [match for match in found if match is not None]


MESSAGES = [row["message"] for row in rows()]


@cache
def texts() -> frozenset[str]:
    """Every string of the package, with values replaced by the sign of a gap."""
    found = []
    for file in (ROOT / "fedaigc").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(
                        str(part.value) if isinstance(part, ast.Constant) else _GAP for part in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return frozenset(found)


def test_every_code_of_a_device_has_its_row() -> None:
    codes = {message for message in MESSAGES if re.fullmatch("[a-z_]+", message)}
    assert codes == {failure.value for failure in Failure}


def test_every_reply_of_a_device_has_its_row_on_the_page_of_threats() -> None:
    page = (ROOT / "docs" / "threats.md").read_text(encoding="utf-8")
    section = page.partition("## What a device sends\n")[2].partition("\n## ")[0]
    named = re.findall(r"^\| `([a-z]+)` \|", section, re.MULTILINE)
    assert sorted(named) == sorted(ask.value.removeprefix("query.") for ask in Ask)


@pytest.mark.parametrize(
    "state",
    [
        connection.LOST,
        connection.TURNED_AWAY,
        connection.OTHER_AUTHORITY,
        connection.WRONG_CLOCK,
        connection.PROXY,
        connection.FAILED,
        clocks.told(8.0),
    ],
)
def test_every_state_of_a_connection_has_its_row(state: str) -> None:
    assert any(all(part in state for part in message.split(_GAP)) for message in MESSAGES), state


@pytest.mark.parametrize("status", [400, 413, 503])
def test_every_refusal_of_the_door_has_its_row(status: int) -> None:
    """400 is that of a clock; the texts of the others are in the module."""
    door = ast.parse((ROOT / "fedaigc" / "deployment" / "server" / "door.py").read_text(encoding="utf-8"))
    statuses = {
        node.value for node in ast.walk(door) if isinstance(node, ast.Constant) and type(node.value) is int
    } & set(range(400, 600))
    # 404: a path that no device asks for
    assert statuses == {400, 404, 413, 503}
    page = PAGE.read_text(encoding="utf-8")
    assert status == 400 or f"({status})" in page


@pytest.mark.parametrize("message", MESSAGES)
def test_a_quoted_message_is_one_of_the_sources(message: str) -> None:
    parts = message.split(_GAP)
    wanted, longest = re.compile(".*".join(map(re.escape, parts)), re.DOTALL), max(parts, key=len)
    # most texts lack the longest part, which is seen much faster
    assert any(longest in text and wanted.search(text) for text in texts()), message


def test_every_row_quotes_a_message() -> None:
    """What stands there in other words could go out of date unnoticed."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    heads = ("| message |", "| code |", "| ---")
    others = [line for line in lines if line.startswith("| ") and not line.startswith(("| `", *heads))]
    # pydantic's own words
    assert [line.split(" | ")[0] for line in others] == ["| Input should be a finite number, got inf"]


def test_no_message_is_listed_twice() -> None:
    assert sorted(MESSAGES) == sorted(set(MESSAGES))


def test_the_page_is_in_the_navigation() -> None:
    assert "how-to/refusals.md" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert "(refusals.md)" in PAGE.with_name("index.md").read_text(encoding="utf-8")
