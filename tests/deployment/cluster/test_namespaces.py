"""Four devices in separate network namespaces, over slow links with delay and packet loss, and no server."""

import shutil
from pathlib import Path

import pytest

from tests.deployment.cluster.devices import COSTS, PROMPTS, WORDS, check_frames, cluster_homes, name
from tests.deployment.cluster.one_process import drawn_in_one_process, offers_in
from tests.deployment.peer.devices import TERMS, pictures
from tests.deployment.slow_links import HERE, NEEDS, PORT, apart, canaries_of, check_apart, check_captured

pytestmark = NEEDS


@pytest.mark.parametrize("announced", [False, True])
def test_four_devices_over_slow_links_draw_the_pictures_of_one_process(
    tmp_path: Path, small_model: Path, announced: bool
) -> None:
    """By addresses, through relays that delay; or found by multicast, without them."""
    if announced:
        pytest.importorskip("zeroconf", reason="needs the extra discovery")
    homes = cluster_homes(tmp_path / "homes", PROMPTS)
    copies = [Path(shutil.copytree(home, tmp_path / "copies" / home.name)) for home in homes]
    with apart(tmp_path, len(homes)) as devices:
        for number, home in enumerate(homes):
            at = ["--at", f"0.0.0.0:{PORT}", "--announce"] if announced else ["--at", HERE]
            words = ["cluster", home, *at, "--round", 1, "--prompts", 2]
            for other in range(len(homes)):
                if other != number:
                    where = "" if announced else f"={devices.address(other)}"
                    words += ["--with", f"{name(other)}{where}"]
            words += ["--model", small_model, "--size", TERMS.height, "--cost", COSTS[number]]
            words += ["--steps", TERMS.steps, "--shared-steps", TERMS.shared_steps]
            # four processes that start at once may take long on a busy machine
            devices.start(number, *words, "--collect-seconds", 600, "--commit-seconds", 120)
        check_apart(devices, homes)
        devices.end(range(len(homes)))
    sent = [devices.sent(number) for number in range(len(homes))]
    groups = drawn_in_one_process(homes, copies, offers_in(sent, homes), small_model)
    for number, (home, copy, shared) in enumerate(zip(homes, copies, groups, strict=True)):
        assert pictures(home) == pictures(copy)
        assert len(pictures(home)) == len(PROMPTS[number])
        for task, chosen in shared.items():
            assert f"{task}: shared by {len(chosen.devices)} devices" in devices.said(number)
    assert {len(chosen.devices) for shared in groups for chosen in shared.values()} == {2, 3}
    check_frames([frame for own in sent for frame in own])
    if not announced:
        check_captured(devices, canaries_of(WORDS, homes))
