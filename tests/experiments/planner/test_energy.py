"""Energy against group size: whose joules are counted, and what a tree and an edge server change."""

from pathlib import Path

import pytest
from PIL import Image

from experiments.planner.energy.group_size import groups, machine, measure, scenes
from experiments.planner.energy.picture import draw
from experiments.planner.judged import LADDER
from fedaigc import assets
from fedaigc.planning.curve import DamageCurve
from fedaigc.planning.setting import Machines
from fedaigc.semantics.denoiser.calibration import TOLERANCE, Calibration
from fedaigc.semantics.denoiser.shipped import SCENES_CALIBRATION
from fedaigc.wireless.profiles import EDGE_SERVER, PHONE


def test_joules_go_down_by_sharing_and_a_member_that_shares_spends_what_it_would_alone(
    tmp_path: Path,
) -> None:
    curve = DamageCurve.of_risk(Calibration.read(assets.path(SCENES_CALIBRATION)), TOLERANCE, LADDER)
    rows = measure(Machines(machine(EDGE_SERVER), (machine(PHONE),)), curve, (4,), 2)
    found = {(row["size"], row["planner"], row["executor"]): row for row in rows}
    alone = PHONE.image_j(11)
    for size in (4,):
        assert found[size, "none", "edge"]["joules"]["mean"] == pytest.approx(alone)
        for executor in ("edge", "member"):
            tree, two = (
                found[size, name, executor]["joules"]["mean"] for name in ("greedy_tree", "two_levels")
            )
            assert tree <= two + 1e-9 < alone
        # the one that shares runs as many steps as alone, and all wait for it
        helped = found[size, "greedy_tree", "member"]
        assert helped["busiest device"]["mean"] == pytest.approx(alone)
        assert helped["seconds"]["mean"] == pytest.approx(PHONE.image_s(11), rel=0.01)
    draw(rows, tmp_path / "energy.png")
    assert Image.open(tmp_path / "energy.png").size[0] > 1000


def test_a_group_is_a_caption_and_its_nearest_others() -> None:
    vectors = scenes()
    small, large = (next(groups(size, 1, vectors)).vectors for size in (2, 4))
    assert (large[:2] == small).all()
    away = ((large - large[0]) ** 2).sum(1)
    assert away[0] == 0
    assert (away[1:] >= away[:-1]).all()
    nearer = ((vectors - large[0]) ** 2).sum(1) < away[-1] - 1e-9
    assert nearer.sum() <= 3
