"""The page of all commands with their arguments and options, from the command line itself."""

from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from fedaigc.cli.main import app

_HEAD = """# Command line

`fedaigc COMMAND --help` prints the same. A mistake ends with exit status 2 and one message that says what to do.
"""


def commands_page() -> str:
    """Return the page: every command with its usage, arguments and options."""
    return "\n".join([_HEAD, *_command(get_command(app), "fedaigc", None)])


def _command(command: Any, path: str, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=path.rpartition(" ")[2], parent=parent)
    children = getattr(command, "commands", {})
    yield f"## {path}\n"
    yield f"{escaped(command.help or '')}\n"
    if not children:
        yield f"```text\n{path} {' '.join(command.collect_usage_pieces(context))}\n```\n"
    records = [(each, _record(each, context)) for each in command.get_params(context)]
    for title, kind in (("argument", "argument"), ("option", "option")):
        rows = [record for each, record in records if each.param_type_name == kind and record is not None]
        rows = [row for row in rows if not row[0].startswith("--help")]
        if rows:
            yield f"| {title} | |\n| --- | --- |"
            yield from (f"| `{name}` | {escaped(about)} |" for name, about in rows)
            yield ""
    for name in sorted(children):
        yield from _command(children[name], f"{path} {name}", context)


def _record(parameter: Any, context: Any) -> tuple[str, str] | None:
    """Return the name and the description of an argument or option, as --help states them."""
    record = parameter.get_help_record(context)
    if record is None:
        return None
    name, about = record
    # brackets come escaped for rich
    return " ".join(name.split()).replace("|", "\\|"), about.replace("\\[", "[")


def escaped(text: str) -> str:
    """Return a text as one line of Markdown, without signs that Markdown reads."""
    text = " ".join(text.split())
    for sign, instead in (
        ("\\", "\\\\"),
        ("|", "\\|"),
        ("<", "&lt;"),
        (">", "&gt;"),
        ("*", "\\*"),
        ("[", "\\["),
    ):
        text = text.replace(sign, instead)
    return text
