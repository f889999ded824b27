"""CITATION.cff says what the package and the README say."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
CITATION: dict[str, Any] = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_version_is_that_of_the_package() -> None:
    assert CITATION["version"] == version("fedaigc")


def test_it_has_what_the_format_requires() -> None:
    """CFF 1.2: these keys, and names of persons or entities as authors, also of references."""
    assert CITATION["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= CITATION.keys()
    for work in (CITATION, *CITATION["references"]):
        assert work["title"]
        assert all("name" in author or "family-names" in author for author in work["authors"])


def test_the_method_is_cited_as_in_the_readme() -> None:
    (paper,) = CITATION["references"]
    (preprint,) = paper["identifiers"]
    names = ", ".join(
        " ".join([*(f"{given[0]}." for given in author["given-names"].split()), author["family-names"]])
        for author in paper["authors"]
    )
    shown = " ".join(README.split())
    assert f'{names}, "{paper["title"]}", {paper["journal"]}, {paper["year"]}, {preprint["value"]}' in shown
    assert f"title = {{{CITATION['title']}}}" in shown
