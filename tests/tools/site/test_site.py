"""The site: its strict build, what it loads, notebooks, and links that leave docs/."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import fedaigc
from fedaigc.cli.main import app
from tools.site.markdown import as_mkdocs_reads_it
from tools.site.notebooks import notebook_pages, notebook_section
from tools.site.outside import as_page, linked_files, links_outside

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
# attributes by which a browser loads something
LOADS = re.compile(r'<(?:script|img|iframe|source)\b[^>]*?\bsrc="([^"]+)"|<link\b[^>]*?\bhref="([^"]+)"')


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_every_public_name_has_its_place_in_the_built_reference(site: Path) -> None:
    built = (site / "reference" / "api.html").read_text(encoding="utf-8")
    for name in fedaigc.__all__:
        if name != "__version__":
            assert f'id="fedaigc.{name}"' in built
    assert 'id="fedaigc.AveragingRule.add"' in built


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = [source or href for source, href in LOADS.findall(text)]
        assert loaded
        assert [each for each in loaded if re.match(r"(https?:)?//", each)] == [], page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?https?:", style.read_text(encoding="utf-8")), style


def test_every_picture_and_file_that_a_page_names_is_there(site: Path) -> None:
    """Also those of HTML in a page, which MkDocs does not check."""
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue  # its paths count from the root of a server
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r'(?:src|href)="([^"#?]+)', text):
            if not re.match(r"[a-z]+:", target):
                assert (page.parent / target).exists(), f"{page.relative_to(site)}: {target}"


def test_marks_of_the_pages_do_not_reach_the_site(site: Path) -> None:
    text = (site / "strategies.html").read_text(encoding="utf-8")
    assert text.count("<table>") > 5
    assert "&lt;!--" not in text
    assert "/table --" not in text


def test_notebooks_are_pages_in_the_order_of_reading(tmp_path: Path) -> None:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for name in ("zebra", "two_processes", "first_pictures"):
        cells: list[dict[str, Any]] = [
            {"cell_type": "markdown", "source": [f"# About {name}\n", "\n", "Some words."]},
            {
                "cell_type": "code",
                "source": "print(1 + 1)",
                "outputs": [
                    {"output_type": "stream", "text": ["2\n"]},
                    {"output_type": "display_data", "data": {"image/png": "aGk=\n", "text/plain": "<Image>"}},
                ],
            },
            {"cell_type": "code", "source": "pass", "outputs": []},
        ]
        (folder / f"{name}.ipynb").write_text(json.dumps({"cells": cells}), encoding="utf-8")
    assert notebook_section(tmp_path) == [
        {"About first_pictures": "notebooks/first_pictures.md"},
        {"About two_processes": "notebooks/two_processes.md"},
        {"About zebra": "notebooks/zebra.md"},
    ]
    page = notebook_pages(tmp_path)["notebooks/zebra.md"]
    assert page.startswith("# About zebra\n\n[Download this notebook](zebra.ipynb)\n")
    assert "```python\nprint(1 + 1)\n```\n\n````text\n2\n````" in page
    assert 'src="data:image/png;base64,aGk="' in page
    assert "<Image>" not in page
    assert notebook_section(tmp_path / "none") == []


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A small repository with links out of docs/ and back."""
    (tmp_path / "docs" / "sub").mkdir(parents=True)
    (tmp_path / "rules").mkdir()
    (tmp_path / "docs" / "sub" / "page.md").write_text("[a](../../rules/README.md#one) [b](../../gone.py)\n")
    (tmp_path / "docs" / "other.md").write_text("[c](sub/page.md) [d](https://flower.ai)\n")
    (tmp_path / "rules" / "README.md").write_text("[rule](rule.py) [back](../docs/other.md)\n")
    (tmp_path / "rules" / "rule.py").write_text("x = 1\n")
    return tmp_path


def test_files_outside_of_the_pages_are_pages_of_the_site(repository: Path) -> None:
    docs = repository / "docs"
    assert linked_files(docs, repository) == [Path("rules/README.md"), Path("rules/rule.py")]
    text = (docs / "sub" / "page.md").read_text()
    assert links_outside(text, "sub/page.md", docs, repository) == (
        "[a](../repository/rules/README.md#one) [b](../../gone.py)\n",
        ["../../gone.py"],
    )
    inside = (docs / "other.md").read_text()
    assert links_outside(inside, "other.md", docs, repository) == (inside, [])
    name, copied = as_page(Path("rules/README.md"), repository)
    assert links_outside(copied, name, docs, repository) == (
        "[rule](rule.py.md) [back](../../other.md)\n",
        [],
    )
    name, code = as_page(Path("rules/rule.py"), repository)
    assert name == "repository/rules/rule.py.md"
    assert code == "# rules/rule.py\n\n````python\nx = 1\n\n````\n"


def test_a_page_loses_its_marks_and_keeps_its_code() -> None:
    code = "\n```sh\nls # <!-- no mark -->\nx\n- y\n```\n"
    text = "Of 3<!-- = count x --> rows:\n- one\n\n<!-- table: x -->\n| a |\n"
    assert as_mkdocs_reads_it(text + code) == "Of 3 rows:\n\n- one\n\n| a |\n" + code


def printed_commands() -> list[tuple[str, list[str]]]:
    """Return the commands of fedaigc in the shell examples of all pages, with their page."""
    found = []
    for page in PAGES:
        for block in re.findall(
            r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        ):
            for line in re.sub(r"\\\n", " ", block).splitlines():
                for part in re.split(r"&& ", line):
                    words = shlex.split(part.partition(" > ")[0], comments=True)
                    if words and words[0].rpartition("/")[2] == "fedaigc":
                        found.append((str(page.relative_to(ROOT)), words[1:]))
    return found


def named_commands() -> list[tuple[str, list[str]]]:
    """Return the commands of fedaigc in the sentences and tables of all pages, with their page."""
    found = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for command in re.findall(r"`fedaigc\s([^`]+)`", text):
            words = shlex.split(command)
            # `fedaigc atlas build | show` names both
            while "|" in words:
                bar = words.index("|")
                found.append((str(page.relative_to(ROOT)), words[:bar]))
                words = [*words[: bar - 1], *words[bar + 1 :]]
            if words[0] != "COMMAND":
                found.append((str(page.relative_to(ROOT)), words))
    return found


def test_every_printed_command_exists_with_its_options() -> None:
    assert len(printed_commands()) > 40
    assert len(named_commands()) > 40
    for page, words in printed_commands() + named_commands():
        command: Any = get_command(app)
        while getattr(command, "commands", None) and words:
            assert words[0] in command.commands, f"{page}: fedaigc {' '.join(words)}"
            command, words = command.commands[words[0]], words[1:]
        known = {
            name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)
        }
        options = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert options <= known | {"--help"}, page
