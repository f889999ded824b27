"""Records of pictures: estimates by target object, comparisons, and recomputation without the model."""

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import pytest

from experiments.paper import fig2, fig3, fig5, fig6, near_pairs
from experiments.paper.record import Comparison, Record, dumps, report, summarise
from experiments.quality import shared_prompts
from experiments.wireless import handoffs, protection, waiting

RECORDS = Path(__file__).parents[3] / "experiments" / "records"
COMMANDS = {
    "paper/fig2.json": fig2,
    "paper/fig3.json": fig3,
    "paper/fig5.json": fig5,
    "paper/fig6.json": fig6,
    "paper/near_pairs.json": near_pairs,
    "shared_prompts.json": shared_prompts,
    "wireless/handoffs.json": handoffs,
    "wireless/protection.json": protection,
    "wireless/waiting.json": waiting,
}
# the others are from before single pictures were kept
WITH_VALUES = [
    name
    for name in COMMANDS
    if any("each" in row for row in json.loads((RECORDS / name).read_text(encoding="utf-8"))["rows"])
]


def record() -> Record:
    """Two runs of six pictures with three objects; the first is right where the second is, and twice more."""
    return {
        "rows": [
            {"run": "a", "each": {"judge": {"object": [1, 1, 1, 1, 1, 0]}, "ssim": [0.5] * 3 + [1.0] * 3}},
            {"run": "b", "each": {"judge": {"object": [1, 0, 1, 0, 1, 0]}, "ssim": [0.5] * 6}},
            {"run": "c", "each": {"judge": {"object": [1] * 6}, "ssim": [1.0] * 6}},
        ],
        "prompt pairs": {"near": {"object": ["cat", "cat", "dog", "dog", "bus", "bus"]}},
    }


def never(_: argparse.Namespace) -> Record:
    raise AssertionError("the model was run")


def options(**given: Any) -> argparse.Namespace:
    return argparse.Namespace(**({"record": None, "images": None, "recompute": False} | given))


def test_estimates_are_by_object() -> None:
    """The objects have 2 of 2, 2 of 2 and 1 of 2, so every draw of three objects has a mean from one half to one."""
    found = record()
    summarise(found, ())
    row = found["rows"][0]
    assert row["judge"]["object"]["mean"] == pytest.approx(5 / 6)
    assert (row["judge"]["object"]["low"], row["judge"]["object"]["high"]) == (0.5, 1.0)
    assert row["ssim"]["mean"] == pytest.approx(0.75)
    # all of 6: Wilson, 6 / (6 + 3.8415); but equal measurements are no outcomes
    assert found["rows"][2]["judge"]["object"]["low"] == pytest.approx(0.6097, abs=1e-4)
    assert (found["rows"][2]["ssim"]["low"], found["rows"][2]["ssim"]["high"]) == (1.0, 1.0)


def test_rows_of_the_same_pairs_are_compared_picture_by_picture() -> None:
    """Two of three objects differ, by one picture each: two of four sign swaps are as extreme, so p = .5."""
    found = record()
    summarise(found, [Comparison({"run": "a"}, {"run": "b"}, ("judge", "object"))])
    (one,) = found["comparisons"]
    assert (one["of"], one["minus"], one["by"]) == ({"run": "a"}, {"run": "b"}, "pictures")
    assert one["difference"]["mean"] == pytest.approx(2 / 6)
    assert one["difference"]["p"] == pytest.approx(0.5)
    assert one["difference"]["clusters"] == 3


def test_rows_of_other_pairs_are_compared_object_by_object() -> None:
    """cat 1 - 0 and dog 1 - .5; the bus has no counterpart."""
    found = record()
    found["rows"][0]["pairs"] = "near"
    far = {"run": "far", "pairs": "far", "each": {"judge": {"object": [0, 1, 0, 1]}}}
    found["rows"].append(far)
    found["prompt pairs"]["far"] = {"object": ["cat", "dog", "dog", "man"]}
    summarise(found, [Comparison({"run": "a"}, {"run": "far"}, ("judge", "object"))])
    (one,) = found["comparisons"]
    assert one["by"] == "means of objects"
    assert (one["difference"]["n"], one["difference"]["mean"]) == (2, pytest.approx(0.75))
    found["prompt pairs"]["far"] = {"object": ["man", "bird", "bird", "man"]}
    summarise(found, [Comparison({"run": "a"}, {"run": "far"}, ("judge", "object"))])
    assert found["comparisons"] == []


def test_a_comparison_needs_exactly_one_row_of_each() -> None:
    with pytest.raises(ValueError, match="0 rows have"):
        summarise(record(), [Comparison({"run": "x"}, {"run": "a"}, ("ssim",))])


def test_a_record_is_recomputed_without_measuring(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "record.json"
    comparisons = [Comparison({"run": "a"}, {"run": "b"}, ("ssim",))]
    report(options(record=path), lambda _: record(), comparisons)
    first = path.read_text()
    spoiled = json.loads(first)
    spoiled["rows"][0]["ssim"]["mean"] = 0.1
    spoiled["comparisons"] = []
    path.write_text(json.dumps(spoiled))

    drawn = []
    report(
        options(record=path, recompute=True, images=tmp_path),
        never,
        comparisons,
        draw=lambda rows, folder: drawn.append((len(rows), folder)),
    )
    assert path.read_text() == first
    assert drawn == [(3, tmp_path)]
    assert capsys.readouterr().err == ""


def test_what_was_measured_is_kept_when_computing_fails(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with pytest.raises(ValueError, match="0 rows have"):
        report(options(record=path), lambda _: record(), [Comparison({"run": "x"}, {"run": "a"}, ("ssim",))])
    assert json.loads(path.read_text()) == record()


def test_a_row_without_values_keeps_its_estimate_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record.json"
    row = {"run": "old", "ssim": {"mean": 0.5, "low": 0.4, "high": 0.6, "n": 6}}
    path.write_text(json.dumps({"intervals": "of before", "rows": [row]}))
    report(
        options(record=path, recompute=True), never, [Comparison({"run": "old"}, {"run": "old"}, ("ssim",))]
    )
    assert "1 of 1 rows have no values of single pictures" in capsys.readouterr().err
    assert json.loads(path.read_text()) == {"intervals": "of before", "comparisons": [], "rows": [row]}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "cannot be read"),
        (lambda path: path.write_text("{"), "is not valid JSON"),
    ],
)
def test_what_cannot_be_recomputed_is_said_in_one_line(tmp_path: Path, make: Any, message: str) -> None:
    path = tmp_path / "record.json"
    make(path)
    with pytest.raises(SystemExit, match=message):
        report(options(record=path, recompute=True), never)
    with pytest.raises(SystemExit, match="give both"):
        report(options(recompute=True), never)


def test_compact_json_is_the_same_json() -> None:
    odd = {"a": [1, 2, [3, 4]], "b": ["x [1,\n 2] y", "{}"], "c": [], "d": [{"e": [0.5, None]}]}
    text = dumps(odd)
    assert json.loads(text) == odd
    assert '"e": [0.5, null]' in text


@pytest.mark.parametrize("name", WITH_VALUES)
def test_a_committed_record_says_what_its_command_computes_from_its_values(name: str) -> None:
    kept = json.loads((RECORDS / name).read_text())
    again = copy.deepcopy(kept)
    summarise(again, COMMANDS[name].COMPARISONS)
    for derive in ("add_energy", "add_expected"):
        getattr(COMMANDS[name], derive, lambda _: None)(again)
    assert json.loads(dumps(again)) == kept
