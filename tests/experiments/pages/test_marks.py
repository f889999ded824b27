"""Marks, by hand: the numbers that they cover, the comparison, and the errors for wrong marks."""

import json

import pytest

from experiments.pages import registry
from experiments.pages.check import check_page
from experiments.pages.marks import numbers_in, read_page
from experiments.pages.printed import flat, printed, same, stated
from experiments.pages.records import ROOT
from experiments.pages.registry import claim, figure, table
from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate


@pytest.fixture(autouse=True)
def functions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Register a few functions with known values, besides those of the pages."""
    for name in ("_figures", "_claims", "_tables"):
        monkeypatch.setattr(registry, name, dict(getattr(registry, name)))

    @figure
    def give(*values: float) -> list[float]:
        return [*values]

    @figure
    def interval() -> Estimate:
        return Estimate(0.631, 0.54, 0.7249, 100)

    @figure
    def broken(place: int) -> float:
        return {"a": 1.0}[f"{place}"]

    @claim
    def larger(one: float, other: float) -> bool:
        return one > other

    @table
    def rows(*cells: str) -> str:
        return "".join(f"| {cell} |\n" for cell in cells)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (".63 [.54, .72]", [".63", ".54", ".72"]),
        ("1,105.6 MB and 1,024, 2 of 3.", ["1,105.6", "1,024", "2", "3"]),
        ("-0.0073, −0.5 and [-1.2, 2.1]", ["-0.0073", "−0.5", "-1.2", "2.1"]),
        ("ranks 2-16, seeds 0 to 2", ["2", "16", "0", "2"]),
        ("1e-5, 3e38, 1.5e+3", ["1e-5", "3e38", "1.5e+3"]),
        ("rank8 W0 3GPP 16-QAM b8a6c4d x10 v1 1.125s", []),
        ("82 %, 5%, 4.0.", ["82", "5", "4.0"]),
        ("`K = 5` of [6](page7.md) at https://a.b/8, arXiv:2304.03446", ["6"]),
    ],
)
def test_what_is_a_number(text: str, found: list[str]) -> None:
    assert [number.text for number in read_page("page.md", text).others] == found


@pytest.mark.parametrize(
    ("page", "value", "there", "right"),
    [
        (".63", 0.634, True, ".63"),
        (".63", 0.6351, False, ".64"),
        (".95", 1.0, False, "1.00"),
        ("1.00", 0.9951, True, "1.00"),
        ("82 %", 0.8249, True, "82"),
        ("82 per cent", 0.826, False, "83"),
        ("1,105.6", 1105.64, True, "1,105.6"),
        ("999", 12345.2, False, "12,345"),
        ("-0.0073", -0.00734, True, "-0.0073"),
        ("0.0073", -0.00734, False, "-0.0073"),
        ("−1.2", -1.26, False, "−1.3"),
        ("0.000", -0.0001, True, "0.000"),
        (".1", 0.04, False, ".0"),
        ("3e38", 3.2e38, True, "3e38"),
        ("1e-5", 2.4e-5, False, "2e-5"),
        # halves go to the even digit, as in Python's format, and 0.285 is a little less than it says
        ("0.12", 0.125, True, "0.12"),
        ("29 %", 0.285, False, "28"),
    ],
)
def test_a_number_is_compared_as_it_is_printed(page: str, value: float, there: bool, right: str) -> None:
    (number,) = numbers_in(page)
    assert same(value, number) is there
    assert printed(value, number) == right


def test_what_a_page_states() -> None:
    assert [stated(number) for number in numbers_in("1,105.6, −2, 5 % and .5")] == [1105.6, -2.0, 0.05, 0.5]


def test_what_a_function_may_give() -> None:
    assert flat([Estimate(1.0, 0.5, 1.5, 3), 2]) == [1.0, 0.5, 1.5, 2]
    for wrong in ("text", None, True, {"mean": 1.0}):
        with pytest.raises(UserError, match="expected a number"):
            flat(wrong)
    with pytest.raises(UserError, match="gives nan"):
        flat(float("nan"))


def outcome(text: str) -> tuple[list[str], list[str], int]:
    """Return differences, errors and the number of figures of a page."""
    found = check_page("page.md", text)
    return [what for _, what in found.differences], [what for _, what in found.errors], found.figures


@pytest.mark.parametrize(
    ("text", "figures"),
    [
        ("Seen in .63 [.54, .72]<!-- = interval -->.", 3),
        ("In K = 5 of 11: .63 [.54,\n.72]<!-- = interval --> of them.", 3),
        ("Both, 4<!-- = give 4 --> and 5<!-- = give 5 -->.", 2),
        ("In six<!-- = give 6 --> rounds, **None**<!-- = give 0 --> failed.", 2),
        ("| row | .5 | 1<!-- = give .5 1 --> |", 2),
        ("A quarter<!-- about 1/4 = give .28 -->, fewer than half<!-- below 1/2 = give .49 -->.", 0),
        ("Less than 2 %<!-- below = give .019 -->, past 3<!-- above = give 3.1 -->.", 2),
        ("They differ<!-- holds larger 2 1 -->.", 0),
        ("<!-- note: 5 is no figure, and this no mark -->", 0),
        ("```\n7<!-- = give 8 -->\n```", 0),
    ],
)
def test_what_is_right_passes(text: str, figures: int) -> None:
    assert outcome(text) == ([], [], figures)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "Seen in .63 [.55, .72]<!-- = interval -->.",
            ".55 stands there, the record gives .54 (0.54; interval)",
        ),
        ("In five<!-- = give 6 --> rounds.", "five stands there, the record gives six (6; give 6)"),
        ("None<!-- = give 1.5 -->.", "None stands there, the record gives 1.5 (1.5; give 1.5)"),
        ("A quarter<!-- about 1/4 = give .29 -->.", "not about 0.25: the record gives 0.29 (give .29)"),
        ("Half<!-- below 1/2 = give .5 -->.", "not below 0.5: the record gives 0.5 (give .5)"),
        ("Past 3<!-- above = give 3 -->.", "not above 3: the record gives 3 (give 3)"),
        ("They differ<!-- holds larger 1 1 -->.", "the record does not say that larger 1 1 holds"),
        ("<!-- table: rows a b -->\n| a |\n<!-- /table -->", "'no line' stands there, rows gives '| b |'"),
    ],
)
def test_what_differs_is_said(text: str, said: str) -> None:
    differences, errors, _ = outcome(text)
    assert (differences, errors) == ([said], [])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5<!-- = no_such_function -->", "'no_such_function' is not one of the figures: expected one of "),
        ("so<!-- holds give 1 -->", "'give' is not one of the claims: expected one of "),
        ("<!-- table: give 1 -->\n<!-- /table -->", "'give' is not one of the tables: expected one of "),
        ("5<!-- = get no/such/record -->", "there is no record experiments/records/no/such/record.json"),
        ("5<!-- = get solo prompt -->", "solo has no 'prompt': it has what, fedaigc, prompts"),
        ("5<!-- = get solo prompts /x -->", "'/x': expected a number after the slash"),
        ("5<!-- = get shared_prompts rows K=3 both -->", "8 of 40 rows have K=3: expected one"),
        ("5<!-- = get solo what -->", "solo what is text: 'solo pictures of held-out"),
        (
            "<!-- note: first -->no figure<!-- = give 1 -->",
            "give 1 gives 1 numbers, and 0 stand before the mark",
        ),
        ("7, 8<!-- = give 8 --> and 9<!-- = give 8 9 -->", "give 8 9 gives 2 numbers, and 1 stand before"),
        ("7\n\n| x |\n\nalone<!-- = give 7 -->", "give 7 gives 1 numbers, and 0 stand before the mark"),
        ("none here<!-- below = give 7 -->", "below = give 7: no number stands before the mark"),
        ("2<!-- below = give 7 8 -->", "below: give 7 8 gives 2 numbers, expected one"),
        ("5<!-- = broken 3 -->", "the record is not of the form that was expected: KeyError('3')"),
        ("5<!-- = broken three -->", "broken three: expected broken PLACE"),
        ("5<!-- = broken -->", "broken: expected broken PLACE"),
        ("5<!-- = -->", "a mark without the name of a function"),
        ('5<!-- = give "5 -->', "cannot be split into words: No closing quotation"),
        ("5<!-- give 5 -->", "<!-- give 5 --> is no mark: expected = NAME, about|below|above"),
        ("5<!-- about x = give 5 -->", "<!-- about x = give 5 -->: expected e.g. <!-- about 1/4 = NAME -->"),
        ("5<!-- about 1/0 = give 5 -->", "expected e.g. <!-- about 1/4 = NAME -->"),
        ("It is 5\n<!-- = give 5 --> long.", "a mark that begins a line ends the paragraph"),
        ("It is 5<!-- = give\n5 --> long.", "a mark stands on one line"),
        ("It is 5<!-- = give 5 long.", "a comment without its -->"),
        ("<!-- table: rows a -->\n| a |", "the block of this mark has no <!-- /table --> below it"),
        ("| a |\n<!-- /table -->", "<!-- /table --> without a <!-- table: NAME --> before it"),
    ],
)
def test_a_wrong_mark_is_an_error(text: str, said: str) -> None:
    differences, errors, _ = outcome(text)
    assert len(errors) == 1
    assert said in errors[0]
    assert not differences


def test_lines_and_numbers_without_marks() -> None:
    found = check_page("page.md", "One 1.\n\n- two 2<!-- = give 2 -->\n- three 4<!-- = give 3 --> of 5\n")
    assert [(line, what[:14]) for line, what in found.differences] == [(4, "4 stands there")]
    assert [number.text for number in found.others] == ["1", "5"]
    assert found.text == "One 1.\n\n- two 2<!-- = give 2 -->\n- three 3<!-- = give 3 --> of 5\n"


def test_records_are_read_by_key_place_and_condition() -> None:
    text = (
        "200<!-- = get solo prompts --> .2<!-- = get solo prompts /1000 --> "
        "9 of 12<!-- = get solo 'by object' cup --> "
        "1.29 ± 0.04<!-- = get latency seconds 'in process' whole --> "
        "0.04<!-- = get latency seconds 'in process' whole 1 --> "
        "24<!-- = count fedaigc/assets/concepts.json objects --> "
        "0 of 25<!-- = hits privacy/prompt_extraction extraction -->"
    )
    cups = json.loads((ROOT / "experiments/records/solo.json").read_text(encoding="utf-8"))["by object"][
        "cup"
    ]
    assert outcome(text.replace("9 of 12", f"{cups[0]} of {cups[1]}")) == ([], [], 10)
