import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate
from fedaigc.study.results.labels import Box, line_boxes, nearest_free, spread
from fedaigc.study.results.plots import Curve, plot_differences, plot_loss_by_bytes, plot_loss_by_round

HEIGHTS = st.lists(st.floats(0, 1), min_size=1, max_size=12)
PIXELS = st.floats(50, 450)


def estimate(mean: float) -> Estimate:
    return Estimate(mean, mean - 0.01, mean + 0.02, 5)


CURVES = [
    Curve(f"strategy {i}", (0.0, 5e6, 1e7 * (i + 1)), tuple(estimate(0.2 - 0.01 * i * x) for x in range(3)))
    for i in range(9)
]


def draw_all(folder: Path, suffix: str) -> list[Path]:
    paths = [folder / "deep" / f"{name}{suffix}" for name in ("rounds", "bytes", "points", "differences")]
    plot_loss_by_round(paths[0], CURVES)
    plot_loss_by_bytes(paths[1], CURVES)
    plot_loss_by_bytes(paths[2], [Curve(c.name, c.x[-1:], c.y[-1:]) for c in CURVES])
    plot_differences(paths[3], {f"rule {i}": estimate(0.01 * i - 0.03) for i in range(5)}, "FedIT")
    return paths


def test_pictures_are_written_with_something_in_them(tmp_path: Path) -> None:
    for path in draw_all(tmp_path, ".png"):
        with Image.open(path) as image:
            assert image.width == 1050
            assert len(image.convert("RGB").getcolors(2**24) or []) > 20


@pytest.mark.parametrize(
    "suffix", [".svg", *(pytest.param(each, marks=pytest.mark.slow) for each in (".png", ".pdf"))]
)
def test_the_same_comparison_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    first, second = draw_all(tmp_path / "a", suffix), draw_all(tmp_path / "b", suffix)
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_every_name_is_in_the_drawing_and_pyplot_is_not_touched(tmp_path: Path) -> None:
    before = set(sys.modules)
    path = tmp_path / "points.svg"
    plot_loss_by_bytes(path, CURVES)
    text = path.read_text(encoding="utf-8")
    assert all(f"<!-- {curve.name} -->" in text for curve in CURVES)
    assert "matplotlib.pyplot" not in set(sys.modules) - before


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to draw"):
        plot_loss_by_round(tmp_path / "a.png", [])
    with pytest.raises(UserError, match="nothing to draw"):
        plot_differences(tmp_path / "a.png", {}, "FedIT")
    with pytest.raises(UserError, match=r"\.png, \.pdf or \.svg"):
        plot_loss_by_round(tmp_path / "a.jpg", CURVES)
    with pytest.raises(ValueError, match="as many x as y"):
        Curve("a", (1.0,), ())


def test_without_matplotlib_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UserError, match=r"fedaigc\[plots\]"):
        plot_loss_by_round(tmp_path / "a.png", CURVES)


def test_names_spread_by_hand() -> None:
    """0.5 and 0.5 would overlap, so they are a quarter apart around this value. Both 0.0 cannot go below 0."""
    assert spread([0.5, 0.5], 0.25) == [0.375, 0.625]
    assert spread([0.0, 0.9, 0.0], 0.25) == [0.0, 0.9, 0.25]


@given(HEIGHTS, st.floats(0.01, 0.08))
def test_names_at_the_ends_never_touch_and_keep_their_order(wanted: list[float], gap: float) -> None:
    placed = spread(wanted, gap)
    heights = sorted(placed)
    assert all(b - a >= gap - 1e-9 for a, b in pairwise(heights))
    assert heights[0] >= -1e-9
    assert heights[-1] <= 1 + 1e-9
    for i, j in ((i, j) for i in range(len(wanted)) for j in range(len(wanted))):
        assert wanted[i] >= wanted[j] or placed[i] <= placed[j]


@settings(deadline=None)
@given(st.lists(st.tuples(PIXELS, PIXELS), min_size=1, max_size=6))
def test_names_beside_points_cover_nothing_while_there_is_room(points: list[tuple[float, float]]) -> None:
    inside = Box(0, 0, 500, 500)
    taken = [Box(x - 5, y - 5, x + 5, y + 5, i) for i, (x, y) in enumerate(points)]
    for i, (x, y) in enumerate(points):
        name = Box(x - 15, y - 6, x + 15, y + 6, i)
        place = name.moved(nearest_free(name, (x, y), taken, inside, nearest=8))
        assert sum(place.shared(other) for other in taken) == 0
        assert place.shared(inside) == pytest.approx(30 * 12)
        taken.append(place)


def test_a_line_is_covered_by_boxes_all_along() -> None:
    boxes = line_boxes([(0, 0), (30, 40), (30, 0)], owner=3)
    for x, y in ((0, 0), (15, 20), (30, 40), (30, 17)):
        assert any(box.x0 <= x <= box.x1 and box.y0 <= y <= box.y1 for box in boxes)
    assert {box.owner for box in boxes} == {3}
