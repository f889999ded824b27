import csv
import io
from pathlib import Path

import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedaigc.errors import UserError
from fedaigc.metrics.intervals import Estimate
from fedaigc.study.results.table_files import NONE, Column, Table

COLUMNS = (Column("strategy"), Column("loss", "right"), Column("note", "centre"))
TABLE = Table(
    COLUMNS,
    (
        ("FedIT", Estimate(-0.0123, -0.1, 0.0752, 5), "50 % & more"),
        ("a|b_c", "-", "[x]"),
        ("near zero", Estimate(-0.00001, -0.0004, 0.0004, 5), ""),
    ),
)
NUMBERS = st.floats(allow_nan=False)
ESTIMATES = st.builds(Estimate, NUMBERS, NUMBERS, NUMBERS, st.integers(1, 100))
CELLS = st.one_of(st.text(st.characters(codec="utf-8", exclude_characters="\0\r")), ESTIMATES)


def test_markdown_by_hand() -> None:
    assert TABLE.to_markdown() == (
        "| strategy  |                   loss |     note     |\n"
        "| :-------- | ---------------------: | :----------: |\n"
        "| FedIT     | -0.012 [-0.100, 0.075] | 50 % \\& more |\n"
        "| a\\|b\\_c   |                      - |     [x]      |\n"
        "| near zero |   0.000 [0.000, 0.000] |              |\n"
    )


def test_latex_by_hand() -> None:
    assert TABLE.to_latex() == (
        "\\begin{tabular}{lrc}\n"
        "\\toprule\n"
        "strategy & loss & note \\\\\n"
        "\\midrule\n"
        "FedIT & $-0.012$ [$-0.100$, $0.075$] & 50 \\% \\& more \\\\\n"
        "a\\textbar{}b\\_c & - & {[}x{]} \\\\\n"
        "near zero & $0.000$ [$0.000$, $0.000$] &  \\\\\n"
        "\\bottomrule\n"
        "\\end{tabular}\n"
    )


def test_every_special_character_of_latex_is_escaped() -> None:
    table = Table((Column("\\&%$#_{}~^<>|[]*"),), (("two\nlines",),))
    assert table.to_latex().splitlines()[2] == (
        r"\textbackslash{}\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}"
        r"\textbar{}{[}{]}{*} \\"
    )
    assert "two lines" in table.to_latex()


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_csv_gives_back_every_text_and_every_exact_number(rows: list[tuple[str | Estimate, ...]]) -> None:
    table = Table((Column("a, b"), Column('the "loss"')), tuple(rows))
    read = list(csv.DictReader(io.StringIO(table.to_csv(), newline="")))
    assert len(read) == len(rows)
    for row, found in zip(rows, read, strict=True):
        for column, cell in zip(table.columns, row, strict=True):
            name = column.header
            if isinstance(cell, Estimate):
                mean, low, high = (float(found[name + part]) for part in ("", " low", " high"))
                assert Estimate(mean, low, high, int(found[name + " n"])) == cell
            else:
                assert found[name] == cell
                assert not found.get(name + " low")


@given(st.lists(st.tuples(CELLS, CELLS), max_size=5))
def test_text_never_breaks_the_form_of_a_table(rows: list[tuple[str | Estimate, ...]]) -> None:
    table = Table((Column("a"), Column("b")), tuple(rows))
    lines = table.to_markdown().split("\n")
    assert len(lines) == len(rows) + 3
    for line in lines[:-1]:
        assert line.replace("\\\\", "").replace("\\|", "").count("|") == 3
    body = table.to_latex().split("\n")[4:-3]
    assert len(body) == len(rows)
    for line in body:
        assert line.endswith(" \\\\")
        assert line.replace("\\&", "").count("&") == 1


def test_a_data_frame_holds_numbers_and_text() -> None:
    frame = TABLE.to_pandas()
    assert list(frame) == ["strategy", "loss", "loss low", "loss high", "loss n", "note"]
    assert list(frame["loss"]) == [-0.0123, "-", -0.00001]
    assert list(frame["loss n"]) == [5, None, 5]


def test_a_gap_leaves_a_column_of_numbers(tmp_path: Path) -> None:
    table = Table((Column("row"), Column("MB up", "right")), (("FedIT", "1.25"), ("base", NONE)))
    table.write(tmp_path / "table.csv")
    read = pandas.read_csv(tmp_path / "table.csv")
    assert read["MB up"].dtype == float
    assert read["MB up"].tolist()[0] == 1.25
    assert read["MB up"].isna().tolist() == [False, True]


def test_the_suffix_chooses_the_format(tmp_path: Path) -> None:
    for suffix, text in ((".md", TABLE.to_markdown()), (".csv", TABLE.to_csv()), (".tex", TABLE.to_latex())):
        path = tmp_path / "deep" / f"table{suffix}"
        TABLE.write(path)
        assert path.read_text(encoding="utf-8") == text
    with pytest.raises(UserError, match=r"\.md, \.csv, \.tex"):
        TABLE.write(tmp_path / "table.xlsx")


def test_rows_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="row 0 has 1 cells for 3 columns"):
        Table(COLUMNS, (("FedIT",),))
    with pytest.raises(ValueError, match="the same header"):
        Table((Column("a"), Column("a")), ())
