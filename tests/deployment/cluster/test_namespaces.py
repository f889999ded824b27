"""Four devices in separate network namespaces, over slow links with delay and packet loss, and no server."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedaigc.bounds import MAX_PEER_MESSAGE
from tests.deployment.cluster.devices import cluster_homes, name
from tests.deployment.cluster.one_process import drawn_in_one_process, offers_in
from tests.deployment.peer.devices import TERMS, pictures
from tools.deployment.namespaces import address, device, inside, namespaces, possible

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not possible(), reason="needs root, ip and tc to make network namespaces"),
]
# fruit on a table on 0 and 1, animals near a river on 0, 2 and 3
PROMPTS = (
    ("a zorblax apple on a table", "a horse near a river"),
    ("a shiny lemon on a table",),
    ("a quuxdown dog near a river",),
    ("a frobnik cat near a river",),
)
WORDS = (b"zorblax", b"quuxdown", b"frobnik", b"shiny", b"apple", b"lemon", b"horse")
COSTS = (50, 0, 50, 10)
# one way, to each device: others reach it through a relay that delays
DELAY_S = (0.01, 0.02, 0.03, 0.04)
PORT, RELAY = "7411", "7412"


def test_four_devices_over_slow_links_draw_the_pictures_of_one_process(
    tmp_path: Path, small_model: Path
) -> None:
    homes = cluster_homes(tmp_path / "homes", PROMPTS)
    copies = [Path(shutil.copytree(home, tmp_path / "copies" / home.name)) for home in homes]
    relays: list[subprocess.Popen[bytes]] = []
    members: list[subprocess.Popen[bytes]] = []
    with namespaces(len(homes), among=True):
        try:
            for number in range(len(homes)):
                delay = [
                    sys.executable,
                    "-m",
                    "tools.deployment.delay",
                    address(number),
                    RELAY,
                    "127.0.0.1",
                    PORT,
                ]
                relays.append(subprocess.Popen(inside(device(number), *delay, str(DELAY_S[number]))))
            for number, home in enumerate(homes):
                words = ["device", "cluster", home, "--at", f"127.0.0.1:{PORT}", "--round", 1, "--prompts", 2]
                for other in range(len(homes)):
                    if other != number:
                        words += ["--with", f"{name(other)}={address(other)}:{RELAY}"]
                words += ["--model", small_model, "--size", TERMS.height, "--cost", COSTS[number]]
                words += ["--steps", TERMS.steps, "--shared-steps", TERMS.shared_steps]
                # four processes that start at once may take long on a busy machine
                words += ["--collect-seconds", 600, "--commit-seconds", 120]
                program = [sys.executable, "-m", "tests.deployment.cluster.recorded_device"]
                command = [*program, *map(str, [tmp_path / f"{number}.sent", *words])]
                with (tmp_path / f"{number}.log").open("wb") as log:
                    members.append(subprocess.Popen(inside(device(number), *command), stdout=log, stderr=log))
            spaces = {os.readlink(f"/proc/{process.pid}/ns/net") for process in members}
            assert len(spaces | {os.readlink("/proc/self/ns/net")}) == len(homes) + 1
            assert len({process.pid for process in members}) == len(homes)
            codes = [process.wait(1200) for process in members]
        finally:
            for process in [*members, *relays]:
                process.kill()
                process.wait()
    logs = [(tmp_path / f"{number}.log").read_text() for number in range(len(homes))]
    assert codes == [0] * len(homes), logs
    sent = [
        [bytes.fromhex(line) for line in (tmp_path / f"{number}.sent").read_text().split()]
        for number in range(len(homes))
    ]
    groups = drawn_in_one_process(homes, copies, offers_in(sent, homes), small_model)
    for home, copy, shared, said, prompts in zip(homes, copies, groups, logs, PROMPTS, strict=True):
        assert pictures(home) == pictures(copy)
        assert len(pictures(home)) == len(prompts)
        for task, chosen in shared.items():
            assert f"{task}: shared by {len(chosen.devices)} devices" in said
    assert {len(chosen.devices) for shared in groups for chosen in shared.values()} == {2, 3}
    # no word of a prompt, one size of message, and one packet for all of a group
    frames = [frame for own in sent for frame in own]
    assert not [word for word in WORDS for frame in frames if word in frame]
    assert {len(frame) for frame in frames if not frame.startswith(b"FAGS")} == {MAX_PEER_MESSAGE}
    assert len({frame for frame in frames if frame.startswith(b"FAGS")}) == 2
