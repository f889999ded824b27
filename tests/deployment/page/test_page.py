"""The device's page over real sockets: what it shows and takes, and the effect of a damaged file."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from fedaigc.deployment.agent.agent_socket import STATUS, AgentUnreachable, Request, ask_agent
from fedaigc.deployment.page.serving import PAGE_URL, serving_page
from fedaigc.device.device import Device
from fedaigc.device.home.budget import Budget, set_home_budget
from fedaigc.device.home.gallery import Gallery
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.device.shared_work import SharedWork, SharedWorkLog
from fedaigc.wireless.profiles import PHONE
from tests.deployment.page.pages import finished, parts, state

SCRIPT = '<script>document.title = "in"</script><img src=x onerror=alert(1)>'


def test_a_prompt_is_added_for_good(home: Home, url: str) -> None:
    reply = httpx.post(f"{url}prompts", json={"text": f"  a dog\n {SCRIPT} "})
    assert reply.status_code == 201
    (task,) = PromptQueue(Home.open(home.root)).all()
    assert (task.task_id, task.prompt) == (reply.json()["id"], f"a dog {SCRIPT}")
    shown = httpx.get(f"{url}state.json")
    assert shown.headers["content-type"] == "application/json"
    assert shown.json()["tasks"] == [
        {
            "id": task.task_id,
            "prompt": f"a dog {SCRIPT}",
            "state": "waiting",
            "disclosed": "Nothing so far.",
            "picture": False,
            "begun": None,
        }
    ]
    # the page itself is the same whatever the home holds
    assert "dog" not in httpx.get(url).text


@pytest.mark.parametrize(
    ("content", "status", "told"),
    [
        (b'{"text": ""}', 422, "the text is empty"),
        (b'{"text": " \\n "}', 422, "the text is empty"),
        (json.dumps({"text": "a" * 1001}).encode(), 422, "1,001 characters"),
        (b'{"text": "a \\ud83d"}', 422, "invalid character"),
        (b'{"text": 5}', 422, "not valid text"),
        (b'{"words": "a dog"}', 422, "not valid text"),
        (b"text=a+dog", 422, "not valid text"),
        (b"\xff", 400, "parsing"),
        (b"", 422, "not valid text"),
        (json.dumps({"text": "a" * 70_000}).encode(), 413, "too large"),
    ],
)
def test_what_is_no_prompt_is_refused_with_the_reason(
    home: Home, url: str, content: bytes, status: int, told: str
) -> None:
    reply = httpx.post(f"{url}prompts", content=content, headers={"content-type": "application/json"})
    assert reply.status_code == status
    assert told in reply.text
    assert PromptQueue(home).all() == []


def test_a_body_without_a_length_and_a_form_are_refused(home: Home, url: str) -> None:
    assert httpx.post(f"{url}prompts", content=iter([b'{"text": "a dog"}'])).status_code == 411
    # what a form of another page could send
    plain = {"content-type": "text/plain"}
    assert httpx.post(f"{url}prompts", content=b'{"text": "a dog"}', headers=plain).status_code == 422
    assert PromptQueue(home).all() == []


def test_a_damaged_file_is_named_and_all_else_is_shown(home: Home, url: str) -> None:
    whole = finished(home, "an apple on a table")
    cut = finished(home, "a dog on a bed")
    no_entry = finished(home, "a cat near a river")
    no_part = finished(home, "a lemon on a table")
    lost_prompt = finished(home, "a bird above a lake")
    gallery = Gallery(home)
    SharedWorkLog(home).add(SharedWork(whole, 3))
    picture = gallery.path(cut)
    picture.write_bytes(picture.read_bytes()[:-20])
    (home.gallery / f"{no_entry}.json").write_bytes(b"{")
    gallery.path(no_part, 1).unlink()
    (prompt_file,) = home.prompts.glob(f"*-{lost_prompt}.json")
    prompt_file.write_bytes(b"\xff")
    (home.prompts / "000009-0123456789abcdef.json").write_text('{"prompt": "\\ud800"}')
    (home.root / "shared_work" / "000000.json").write_text("[]")
    (home.root / "profile.json").write_text('{"step_j": 1}')
    found = state(url)
    assert sorted(found["damaged"]) == sorted(
        [
            f"prompts/{prompt_file.name}",
            "prompts/000009-0123456789abcdef.json",
            f"gallery/{cut}.png",
            f"gallery/{no_entry}.json",
            f"gallery/{no_part}.strip01.png",
            "shared_work/000000.json",
            "profile.json",
        ]
    )
    assert [task["id"] for task in found["tasks"]] == [no_part, no_entry, cut, whole]
    shown = {entry["id"]: entry for entry in found["pictures"]}
    # in the order of the queue, and last the one that is in no queue
    assert list(shown) == [no_part, cut, whole, lost_prompt]
    assert shown[cut]["version"] is None
    assert [len(shown[name]["strip"]) for name in (no_part, cut, whole)] == [1, 2, 2]
    assert found["sums"]["pictures"] == 4
    assert httpx.get(f"{url}pictures/{cut}.png").status_code == 404
    assert httpx.get(f"{url}pictures/{whole}.png").content == gallery.path(whole).read_bytes()
    assert httpx.get(f"{url}pictures/{no_part}/0.png").content == gallery.path(no_part, 0).read_bytes()
    assert httpx.get(f"{url}pictures/{no_part}/1.png").status_code == 404


def test_characters_that_cannot_be_sent_do_not_stop_the_page(home: Home, url: str) -> None:
    task_id = finished(home, "an apple on a table")
    (path,) = home.prompts.glob("*.json")
    home.write(path, path.read_bytes().replace(b"an apple", b"\\ud800"))
    assert [task["id"] for task in state(url)["tasks"]] == [task_id]


def test_an_error_is_noted_at_home_and_told_to_nobody(home: Home) -> None:
    def broken() -> dict[str, int]:
        raise RuntimeError("an apple on a table")

    with serving_page(home, broken) as url:
        reply = httpx.get(f"{url}state.json")
        assert reply.status_code == 500
        assert "apple" not in reply.text
        assert httpx.get(url).status_code == 200
    assert "apple" in (home.root / "errors.log").read_text()


def test_the_devices_own_profile_is_used_and_the_phones_is_called_assumed(home: Home, url: str) -> None:
    finished(home, "an apple on a table", strip=())
    # 8 steps of 24.6 J and a decoding of 35 J
    assert state(url)["sums"]["energy_j"] == pytest.approx(231.8)
    assert state(url)["sums"]["source"].startswith("Assumed, not measured here")
    values = json.loads(PHONE.to_json()) | {"step_j": 2.0, "model": "embedded"}
    values["sources"]["step_j"] = "measured: the processor's counter"
    (home.root / "profile.json").write_text(json.dumps(values))
    assert state(url)["sums"]["energy_j"] == pytest.approx(51.0)
    assert "2 J a step of embedded (measured: the processor's counter)" in state(url)["sums"]["source"]
    wrongs: list[dict[str, object]] = [
        {"step_j": float("inf")},
        {"step_j": "2"},
        {"step_j": -1},
        {"sources": []},
    ]
    for wrong in wrongs:
        (home.root / "profile.json").write_text(json.dumps(values | wrong))
        assert state(url)["damaged"] == ["profile.json"]
        assert state(url)["sums"]["energy_j"] == pytest.approx(231.8)


@pytest.mark.slow
def test_the_command_line_serves_the_page_and_prints_its_address(home: Home, small_model: Path) -> None:
    command = [sys.executable, "-m", "fedaigc.cli.main", "device"]

    def said() -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, "page", str(home.root)], capture_output=True, text=True, check=False)

    def start(*options: str) -> "subprocess.Popen[bytes]":
        process = subprocess.Popen([*command, "start", str(home.root), "--model", str(small_model), *options])
        deadline = time.monotonic() + 120
        while True:
            try:
                ask_agent(home.root, Request(STATUS), timeout_s=5)
                return process
            except AgentUnreachable:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)

    process = start()
    try:
        url = said().stdout.strip()
        assert state(url)["client"] == 0
        # nothing of the page is told over the socket
        status = ask_agent(home.root, Request(STATUS), timeout_s=5).status
        assert parts(url)[1] not in json.dumps(status)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        # its address is left, and leads nowhere
        assert (home.root / PAGE_URL).exists()
        assert said().returncode == 2
        process = start("--no-page")
        assert not (home.root / PAGE_URL).exists()
        refused = said()
        assert refused.returncode == 2
        assert "--no-page" in refused.stderr
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_the_ledger_and_the_budget_are_shown_before_and_after_a_disclosure(home: Home, url: str) -> None:
    set_home_budget(home, Budget(bits_a_day=10.0))
    found = state(url)["ledger"]
    assert found == {
        "disclosures": 0,
        "bits": 0,
        "words": "Within 24 hours prompts disclosed at most 0.0 bits of 10.",
    }
    device = Device(home.root, None, base_hash="")  # type: ignore[arg-type]
    assert device.signature(device.add_prompt("an apple on a table")) is not None
    assert device.signature(device.add_prompt("a dog near a river")) is None
    found = state(url)["ledger"]
    assert (found["disclosures"], found["bits"]) == (1, 7.7)
    assert "The budget is used up since" in found["words"]
    (home.root / "budget.json").write_text("{")
    broken = state(url)
    assert "cannot be read" in broken["ledger"]["words"]
    assert broken["damaged"] == ["budget.json"]
