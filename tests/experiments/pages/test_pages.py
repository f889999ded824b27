"""All pages compared with their records, as `make docs-check` does, and its output for differences."""

import re
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from experiments.pages import check
from experiments.pages.check import PAGES, check_page, main, pages_of
from experiments.pages.marks import Number, read_page
from experiments.pages.records import ROOT

ALL = [str(path) for path in pages_of(PAGES)]
MARKED = [page for page in ALL if "<!-- " in (ROOT / page).read_text(encoding="utf-8")]


def changed(text: str, number: Number) -> str:
    """Return the page with another last digit in a number."""
    at = max(i for i in range(number.start, number.end) if text[i].isdigit())
    return text[:at] + str((int(text[at]) + 1) % 10) + text[at + 1 :]


@pytest.mark.parametrize("page", ALL)
def test_the_page_says_what_its_records_say(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    status = main([page])
    assert status == 0, f"{capsys.readouterr().out}`make pages` writes tables and figures anew"


def test_the_pages_that_argue_have_marks() -> None:
    assert {"README.md", "docs/strategies.md", "docs/findings.md", "docs/threats.md", "docs/model.md"} <= {
        *MARKED
    }
    figures = sum(check_page(page, (ROOT / page).read_text(encoding="utf-8")).figures for page in MARKED)
    assert figures > 1000


def rendered(text: str) -> str:
    """Return a page as HTML, without comments and without invisible white space."""
    html = re.sub(r"<!--.*?-->", "", MarkdownIt("commonmark", {"html": True}).enable("table").render(text))
    return re.sub(r"\s*(<[^>]*>)\s*", r"\1", re.sub(r"\s+", " ", html))


@pytest.mark.parametrize("page", MARKED)
def test_marks_do_not_show(page: str) -> None:
    """Readers see the same page without its marks: no mark ends a paragraph or a table."""
    text = (ROOT / page).read_text(encoding="utf-8")
    bare = re.sub(r"^<!-- /?table.*-->\n", "", text, flags=re.MULTILINE)
    assert rendered(text) == rendered(re.sub(r"<!--.*?-->", "", bare))


@pytest.mark.parametrize("page", MARKED)
def test_each_changed_digit_of_a_marked_figure_is_found(page: str) -> None:
    """All errors are reported at once, with the line, the stated value and the value of the record."""
    text = (ROOT / page).read_text(encoding="utf-8")
    right = check_page(page, text)
    digits = [number for number in right.covered if number.text[-1].isdigit()]  # some are words
    assert digits
    wrong = text
    for number in digits:
        wrong = changed(wrong, number)
    found = check_page(page, wrong)
    assert not found.errors
    assert len(found.differences) >= len(digits)
    for number in digits:
        line = right.page.line_of(number.start)
        there = wrong[number.start : number.end]
        assert any(
            at == line and what.startswith(f"{there} stands there, the record gives {number.text} ")
            for at, what in found.differences
        ), f"{page}:{line}: {there} in place of {number.text}"
    assert found.text == text


def test_a_changed_digit_in_any_generated_table_is_found_and_written_back() -> None:
    page = "docs/strategies.md"
    text = (ROOT / page).read_text(encoding="utf-8")
    blocks = read_page(page, text).blocks
    assert len(blocks) > 5
    wrong = text
    places = {}
    for block in blocks:
        at = max(i for i in range(block.start, block.end) if text[i].isdigit())
        places[text[:at].count("\n") + 1] = block.words[0]
        wrong = changed(wrong, Number(at, at + 1, text[at]))
    found = check_page(page, wrong)
    assert not found.errors
    assert {line for line, _ in found.differences} == {*places}
    lines, right = wrong.splitlines(), text.splitlines()
    for line, what in found.differences:
        assert what == f"{lines[line - 1]!r} stands there, {places[line]} gives {right[line - 1]!r}"
    assert found.text == text


@pytest.fixture
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page with one wrong digit, in the folder where the command looks for pages."""
    monkeypatch.setattr(check, "ROOT", tmp_path)
    page = tmp_path / "docs" / "model.md"
    page.parent.mkdir()
    text = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    assert text.count("| object | .970 [.936, .986]<") == 1
    page.write_text(text.replace("| object | .970 [.936, .986]<", "| object | .970 [.935, .986]<"), "utf-8")
    return page


def test_the_command_names_page_line_and_both_values(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["docs/*.md"]) == 1
    shown = capsys.readouterr().out
    line = (
        copied.read_text(encoding="utf-8")
        .splitlines()
        .index('| object | .970 [.935, .986]<!-- = get solo "object accuracy" --> |')
    )
    assert f"docs/model.md:{line + 1}: .935 stands there, the record gives .936 (0.936106; get solo" in shown
    assert shown.splitlines()[-1].endswith("1 differ, 0 marks are wrong")


def test_the_command_writes_what_the_record_gives(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs/model.md", "--write"]) == 0
    assert "written: .935 stands there, the record gives .936" in capsys.readouterr().out
    assert copied.read_text("utf-8") == (ROOT / "docs" / "model.md").read_text("utf-8")
    assert main(["docs/model.md"]) == 0


def test_numbers_without_a_mark_are_counted_and_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "ROOT", tmp_path)
    (tmp_path / "page.md").write_text("Of 200<!-- = get solo prompts --> in 2026 prompts, .5 were far.\n")
    assert main(["page.md", "--others"]) == 0
    shown = capsys.readouterr().out
    assert "page.md:1: 2026 in: Of 200" in shown
    assert "page.md:1: .5 in: Of 200" in shown
    assert shown.splitlines()[-2].split() == ["page.md", "1", "0", "0", "0", "2", "(1)"]


def test_a_page_that_is_not_there_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["docs/no_such_page.md"]) == 2
    assert "no page is called docs/no_such_page.md" in capsys.readouterr().err


def test_the_functions_are_listed_with_their_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--functions"]) == 0
    assert "  loss STUDY ROW [MODE=EDGE] [SEEDS=0]\n" in capsys.readouterr().out
