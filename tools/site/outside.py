"""Links from pages to files of the repository outside of docs/, which are pages of the site under repository/.

On GitHub such a link opens the file; on the site it opens a page with its content. Records (JSON) are copied.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

NAME = "repository"
_LINK = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_FENCE = re.compile(r"^(```.*?^```$)", flags=re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".toml": "toml", ".yml": "yaml"}


def linked_files(docs: Path, root: Path) -> list[Path]:
    """Return the files outside of docs/ that pages link to, and that these link to, relative to the root."""
    found: dict[Path, None] = {}
    waiting = sorted(docs.rglob("*.md"))
    for page in waiting:  # grows during the loop
        for target in _targets(page.read_text(encoding="utf-8")):
            path = Path(os.path.normpath(page.parent / target))
            if path.is_relative_to(docs) or not path.is_relative_to(root) or not path.is_file():
                continue
            if path.relative_to(root) not in found:
                found[path.relative_to(root)] = None
                if path.suffix == ".md":
                    waiting.append(path)
    return list(found)


def links_outside(text: str, name: str, docs: Path, root: Path) -> tuple[str, list[str]]:
    """Return a page with links to its place in the site, and the targets that do not exist.

    Args:
        text: The page.
        name: Its name in the site.
        docs: The folder docs/.
        root: The root of the repository.
    """
    copied = name.startswith(f"{NAME}/")
    here = root / name.removeprefix(f"{NAME}/") if copied else docs / name
    missing = []

    def rewritten(link: re.Match[str]) -> str:
        before, target, after = link.groups()
        path = Path(os.path.normpath(here.parent / target))
        if not _is_local(target) or (not copied and path.is_relative_to(docs)):
            return link[0]
        if not path.is_file():
            missing.append(target)
            return link[0]
        place = path.relative_to(docs) if path.is_relative_to(docs) else _place(path.relative_to(root))
        return f"{before}{os.path.relpath(place, Path(name).parent)}{after}"

    parts = _FENCE.split(text)
    parts[::2] = [_LINK.sub(rewritten, part) for part in parts[::2]]
    return "".join(parts), missing


def as_page(path: Path, root: Path) -> tuple[str, str]:
    """Return the name in the site and the content of a file: Markdown as it is, other text as code."""
    text = (root / path).read_text(encoding="utf-8")
    if path.suffix != ".md":
        language = _LANGUAGES.get(path.suffix, "text")
        text = f"# {path}\n\n````{language}\n{text}\n````\n"
    return str(_place(path)), text


def _place(path: Path) -> Path:
    name = path if path.suffix in (".md", ".json") else path.with_name(f"{path.name}.md")
    return Path(NAME) / name


def _targets(text: str) -> Iterator[str]:
    for part in _FENCE.split(text)[::2]:
        for link in _LINK.finditer(part):
            if _is_local(link[2]):
                yield link[2]


def _is_local(target: str) -> bool:
    return not re.match(r"[a-z]+:", target)
