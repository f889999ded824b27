"""No option takes NaN, which is below no limit and above none."""

from collections.abc import Iterator

import click
import pytest
import typer.main

from fedaigc.cli.main import app


def float_options(command: click.Command, path: str = "fedaigc") -> Iterator[tuple[str, click.Parameter]]:
    if isinstance(command, click.Group):
        for name, below in command.commands.items():
            yield from float_options(below, f"{path} {name}")
    for parameter in command.params:
        if isinstance(parameter.type, click.types.FloatParamType | click.FloatRange):
            yield f"{path} {parameter.opts[-1]}", parameter


OPTIONS = dict(float_options(typer.main.get_command(app)))


@pytest.mark.parametrize("name", OPTIONS)
def test_nan_is_refused(name: str) -> None:
    parameter = OPTIONS[name]
    context = click.Context(click.Command("any"))
    with pytest.raises(click.BadParameter, match="nan is no number"):
        parameter.process_value(context, "nan")
    assert parameter.process_value(context, "1") == 1.0


def test_the_limits_of_an_owner_are_among_them() -> None:
    assert {"fedaigc device start --max-guidance", "fedaigc device start --max-update-norm"} <= OPTIONS.keys()
