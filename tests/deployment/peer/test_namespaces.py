"""Two pairs of devices in separate network namespaces, over slow links with delay and packet loss, and no server."""

import shutil
import time
from pathlib import Path

from fedaigc.bounds import MAX_PEER_MESSAGE
from fedaigc.deployment.peer.paired import Peers
from fedaigc.device.home.home import Home
from tests.deployment.peer.devices import NAMES, TERMS, paired_homes, pictures
from tests.deployment.peer.one_process import drawn_in_one_process
from tests.deployment.slow_links import HERE, NEEDS, Apart, apart, canaries_of, check_apart, check_captured
from tests.small_atlas import small_atlas

pytestmark = NEEDS
# by concepts, and, of any words, by nodes of an atlas
PROMPTS = (
    ("a zorblax apple on a table", "a shiny lemon on a table"),
    ("quuxdown dog, vexmoor", "a frobnik horse over wibbleton"),
)
WORDS = {"zorblax", "apple", "shiny", "lemon", "quuxdown", "vexmoor", "frobnik", "horse", "wibbleton"}
# of the first pair the one that answers computes, of the second the one that calls
COSTS = ((50, 0), (10, 50))


def wait_until(devices: Apart, number: int, said: str) -> None:
    until = time.monotonic() + 1200
    while said not in devices.said(number):
        assert devices.running[number].poll() is None, devices.said(number)
        assert time.monotonic() < until, devices.said(number)
        time.sleep(0.2)


def test_two_pairs_over_slow_links_draw_the_pictures_of_one_process(
    tmp_path: Path, small_model: Path
) -> None:
    pairs = [paired_homes(tmp_path / f"pair{number}", prompts) for number, prompts in enumerate(PROMPTS)]
    copies = [
        [Path(shutil.copytree(home, tmp_path / f"copies{number}" / home.name)) for home in homes]
        for number, homes in enumerate(pairs)
    ]
    atlas = small_atlas(tmp_path, small_model)
    by_nodes = ["--nodes", "--atlas", atlas, "--calibration", atlas.with_name("small.json")]
    how: tuple[list[object], ...] = ([], [*by_nodes, "--min-captions", 2])
    # four processes that start at once may take long on a busy machine
    every = ["--model", small_model, "--compute-seconds", 600]
    terms = ["--size", TERMS.height, "--steps", TERMS.steps, "--shared-steps", TERMS.shared_steps]
    with apart(tmp_path, 4) as devices:
        for pair, (_, answerer) in enumerate(pairs):
            devices.start(
                2 * pair + 1, "listen", answerer, "--at", HERE, "--cost", COSTS[pair][1], *every, *how[pair]
            )
        for pair, (caller, _) in enumerate(pairs):
            wait_until(devices, 2 * pair + 1, "listening at")
            to = ["--to", devices.address(2 * pair + 1), "--cost", COSTS[pair][0]]
            devices.start(2 * pair, "share", caller, NAMES[1], *to, *every, *terms, *how[pair])
        check_apart(devices, [home for homes in pairs for home in homes])
        devices.end([0, 2])
        for answers in (1, 3):
            wait_until(devices, answers, "shared")
            devices.running[answers].terminate()
        devices.end([1, 3])
    for pair, homes in enumerate(pairs):
        sent = [devices.sent(2 * pair + side) for side in (0, 1)]
        agreed = drawn_in_one_process(homes, copies[pair], sent, small_model, atlas if pair else None)
        executor = min((0, 1), key=COSTS[pair].__getitem__)
        assert agreed.found.executor == Peers(Home.open(homes[executor])).own().fingerprint
        for side, (home, copy) in enumerate(zip(homes, copies[pair], strict=True)):
            assert pictures(home) == pictures(copy)
            assert len(pictures(home)) == 1
            ran = "this device" if side == executor else NAMES[1 - side]
            assert f"{NAMES[1 - side]}: shared, the first steps run by {ran}:" in devices.said(
                2 * pair + side
            )
        frames = [frame for own in sent for frame in own]
        (sealed,) = (frame for frame in frames if frame.startswith(b"FAGS"))
        assert {len(frame) for frame in frames if frame is not sealed} == {MAX_PEER_MESSAGE}
        assert agreed.packet[42:] not in b"".join(frames)
    check_captured(devices, canaries_of(WORDS, [home for homes in pairs for home in homes]))
