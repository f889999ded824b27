"""The reference lists every public name, every key of a configuration, and every command with its options."""

import dataclasses
import re
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from typer.main import get_command

import fedaigc
from fedaigc.cli.main import app
from fedaigc.device.limits import OwnerLimits
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.study.design.config import StudyConfig
from fedaigc.wireless.profiles import DeviceProfile
from tools.site.api import api_page
from tools.site.commands import commands_page, escaped
from tools.site.configuration import configuration_page
from tools.site.messages import ROOT, messages, messages_page

CONFIGURATION = configuration_page()
COMMANDS = commands_page()


def fields(kind: Any) -> dict[str, Any]:
    """Return the annotations of the keys of a model or dataclass, read without `fedaigc.settings`."""
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def sections(annotation: Any) -> Iterator[type]:
    """Yield the models inside of an annotation such as `Section | None` or `dict[str, Section]`."""
    if isinstance(annotation, type) and (
        issubclass(annotation, BaseModel) or dataclasses.is_dataclass(annotation)
    ):
        yield annotation
    for inner in typing.get_args(annotation):
        yield from sections(inner)


def reached(kind: type) -> set[type]:
    found, waiting = {kind}, [kind]
    for each in waiting:  # grows during the loop
        inner = {section for annotation in fields(each).values() for section in sections(annotation)}
        waiting += inner - found
        found |= inner
    return found


def tables() -> list[set[str]]:
    """Return the keys of every table of the page, without the names of their sections."""
    parts = CONFIGURATION.split('<div class="settings"')[1:]
    return [
        {
            key.rpartition(".")[2]
            for key in re.findall(r'^\| <span id="[^"]*">`([\w.]+)`</span> \|', part, re.M)
        }
        for part in parts
    ]


KINDS = sorted(
    {each for kind in (FederationConfig, StudyConfig, OwnerLimits, DeviceProfile) for each in reached(kind)},
    key=lambda kind: kind.__name__,
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_key_of_a_section_is_in_a_table_of_its_own(kind: type) -> None:
    keys = {name for name, annotation in fields(kind).items() if not list(sections(annotation))}
    assert keys in tables() or not keys


def test_the_sections_of_a_run_are_found() -> None:
    assert {"LinkSettings", "TrainingSettings", "PartitionSettings", "StrategySection"} <= {
        kind.__name__ for kind in KINDS
    }
    assert '<span id="run-generation.link.snr_db">`generation.link.snr_db`</span>' in CONFIGURATION


def test_every_key_has_a_description() -> None:
    rows = re.findall(r"^\| <span.*\|$", CONFIGURATION, flags=re.MULTILINE)
    assert len(rows) > 100
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []


def test_every_link_inside_of_the_configuration_has_its_place() -> None:
    places = {*re.findall(r"\{ #(\S+) \}", CONFIGURATION)}
    links = {*re.findall(r"\]\(#([^)]+)\)", CONFIGURATION)}
    assert links
    assert links <= places


@pytest.mark.parametrize("name", [name for name in fedaigc.__all__ if name != "__version__"])
def test_every_public_name_is_in_the_reference(name: str) -> None:
    assert f"\n::: fedaigc.{name}\n" in api_page()


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{path} {name}")


ALL = dict(commands(get_command(app), "fedaigc"))


@pytest.mark.parametrize("path", ALL)
def test_every_command_is_in_the_reference_with_its_arguments_and_options(path: str) -> None:
    assert {"fedaigc generate", "fedaigc device add-images", "fedaigc server run"} <= {*ALL}
    section = COMMANDS.partition(f"## {path}\n")[2].partition("\n## ")[0].replace("\\", "")
    assert section
    for parameter in ALL[path].params:
        if parameter.name == "help":
            continue
        shown = parameter.opts if parameter.param_type_name == "option" else [parameter.make_metavar(None)]
        for each in shown:
            name = each.strip("[]").rstrip(".")
            starts = (f"| `{name}", f"| `[{name}]")
            row = next((row for row in section.splitlines() if row.startswith(starts)), None)
            row = row or next((row for row in section.splitlines() if f"[{name}]" in row), None)
            assert row is not None, f"{path} {each}"
            if getattr(parameter, "help", None):
                assert parameter.help.split()[0].strip('`"') in row


def test_every_refusal_is_among_the_messages() -> None:
    """Counted another way: by the calls that stand in the sources."""
    page = messages_page()
    assert "\n## data\n" in page
    assert "- the working folder no longer exists: change to another one\n" in page
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "fedaigc").rglob("*.py"))
    plain = re.findall(r"raise (?:UserError|BrokenPicture|NotFinite)\(\s*\"([^\"\\{]+)\"\s*\)", sources)
    assert len(plain) > 40
    for text in plain:
        assert f"- {escaped(text)}\n" in page, text
    assert sum(map(len, messages().values())) > 500
