"""The page of all messages by which a user's mistake is refused, from the sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tools.site.commands import escaped

ROOT = Path(__file__).resolve().parents[2]
# the errors whose text a user reads; those of messages between machines become codes, see the page of refusals
KINDS = frozenset(
    [
        "BrokenPicture",
        "DamagedFile",
        "DeviceError",
        "Diverged",
        "NotFinite",
        "PacketError",
        "SealError",
        "UserError",
    ]
)
GAP = "…"
_HEAD = """# Messages

Every refusal that the code raises by a text of its own, by the part of the package that raises it; … stands for what
was given. Settings out of their range are refused with the key, the value and the range. The page of
[refusals](../how-to/refusals.md) has causes and remedies of those that users meet.
"""


def messages() -> dict[str, list[str]]:
    """Return the texts of all refusals, sorted, by the package that raises them."""
    found: dict[str, set[str]] = {}
    for file in sorted((ROOT / "fedaigc").rglob("*.py")):
        part = file.relative_to(ROOT / "fedaigc").parts[0].removesuffix(".py")
        for text in _raised(ast.parse(file.read_text(encoding="utf-8"))):
            found.setdefault(part, set()).add(text)
    return {part: sorted(texts) for part, texts in sorted(found.items())}


def messages_page() -> str:
    """Return the page."""
    parts = [_HEAD]
    for part, texts in messages().items():
        parts += [f"## {part}\n", *(f"- {escaped(text)}" for text in texts), ""]
    return "\n".join(parts)


def _raised(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in KINDS and node.args:
            # a device's error has its code first
            text = " ".join(_text(node.args[-1]).split())
            if text.replace(GAP, "").strip(" :"):
                yield text


def _text(node: ast.expr) -> str:
    """Return a text with a gap for each value."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text(node.left) + _text(node.right)
    return GAP
