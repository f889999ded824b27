"""GitHub's Markdown as MkDocs reads it."""

import re

_FENCE = re.compile(r"^([ ]*```.*?^[ ]*```$)", flags=re.MULTILINE | re.DOTALL)
_ITEM = r"(?:[-*]|\d+\.) "


def as_mkdocs_reads_it(text: str) -> str:
    """Return a page without comments, with an empty line before each list, and Markdown inside of details."""
    parts = _FENCE.split(text)
    parts[::2] = [_prose(part) for part in parts[::2]]
    return "".join(parts)


def _prose(text: str) -> str:
    # a comment on lines of its own would join the table below it to a block of HTML
    text = re.sub(r"^<!--.*?-->\n", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(rf"^(?!{_ITEM}| |$)(.+\n)(?={_ITEM})", r"\1\n", text, flags=re.MULTILINE)
    return text.replace("<details>", '<details markdown="1">')
