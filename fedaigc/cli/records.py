"""`fedaigc records`: the records of runs and studies, as tables and as CSV."""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedaigc.cli.options import Csv
from fedaigc.counting import counted
from fedaigc.errors import UserError

if TYPE_CHECKING:
    from pandas import DataFrame

    from fedaigc.api.records import FoundRecord

records_app = typer.Typer(
    help="Records of runs and studies: list them, show one, or write CSV.", no_args_is_help=True
)
Output = Annotated[
    Path | None, typer.Option(help="Write CSV with all columns to this file instead of a table.")
]
Force = Annotated[bool, typer.Option("--force", help="Replace the output file.")]
_FILE_WIDTH = 240
_LISTED = ("name", "kind", "strategy", "status", "rounds", "seed", "clients", "loss", "when", "path")


class Part(StrEnum):
    """The tables of a record."""

    ROUNDS = "rounds"
    TASKS = "tasks"
    UPDATES = "updates"


@records_app.command("list")
def list_records(
    folder: Annotated[
        Path, typer.Argument(help="Folder whose records, and those below it, are listed.")
    ] = Path("runs"),
    csv: Csv = False,
    output: Output = None,
    force: Force = False,
) -> None:
    """List the records of runs and studies below a folder. Exit status 1 if a file cannot be read."""
    from fedaigc.api.records import find_records

    _check_output(output, force)
    found = find_records(folder)
    table = found.to_pandas()
    if csv or output is not None:
        _write_csv(table, output)
    elif found.records:
        shown = table[list(_LISTED)].copy()
        shown["when"] = shown["when"].dt.strftime("%Y-%m-%d %H:%M")
        shown["path"] = [str(each.path.parent) for each in found.records]
        _show_table(shown)
    else:
        typer.echo(f"no records below {folder}")
    for path, reason in found.unreadable.items():
        typer.echo(f"warning: {reason if str(path) in reason else f'{path}: {reason}'}", err=True)
    if found.unreadable:
        raise typer.Exit(1)


@records_app.command()
def show(
    record: Annotated[
        Path, typer.Argument(help="Output folder of a run, its record.json, or a file of a study's records.")
    ],
    part: Annotated[Part, typer.Option("--table", help="Table that --csv and --output write.")] = Part.ROUNDS,
    csv: Csv = False,
    output: Output = None,
    force: Force = False,
) -> None:
    """Show one record: settings other than the defaults, rounds, prompts, and what the link cost."""
    from fedaigc.api.records import read_any

    _check_output(output, force)
    found = read_any(record)
    if csv or output is not None:
        _write_csv(_table(found, part), output)
        return
    for key, value in found.row().items():
        if value is not None:
            typer.echo(f"{key}: {value}")
    if found.run is not None and found.run.error:
        typer.echo(f"error: {found.run.error}")
    settings = found.settings()
    typer.echo("settings other than the defaults:" if settings else "all settings have their defaults")
    for key, value in settings.items():
        typer.echo(f"  {key} = {json.dumps(value)}")
    for title, table in (("rounds", found.rounds()), ("prompts", _told_tasks(found))):
        if not table.empty:
            typer.echo(f"{title}:")
            _show_table(table.drop(columns="shared_hash", errors="ignore"))
    for line in [*_link_lines(found), *_cost_lines(found)]:
        typer.echo(line)


@records_app.command()
def tree(
    run: Annotated[Path, typer.Argument(help="Output folder of a run, or its record.json.")],
    output: Annotated[
        Path | None,
        typer.Option(help="Picture to write: .png, .pdf or .svg. Default: sharing.png beside the record."),
    ] = None,
    force: Force = False,
) -> None:
    """Draw who shared which steps on which prompt in a run, and where steps and joules went."""
    from fedaigc.api.records import read_any
    from fedaigc.federation.output.sharing_picture import SHARING_PICTURE, plot_sharing

    found = read_any(run)
    if found.run is None or found.run.generation is None:
        raise UserError(
            f"{found.path} is no record of a run that drew prompts: give the output folder of one"
        )
    path = output if output is not None else found.path.with_name(SHARING_PICTURE)
    # the picture beside a record is made from it, and may be made again
    if output is not None and output.exists() and not force:
        raise UserError(f"{output} exists: give another file, or --force to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    plot_sharing(found.run.generation, path)
    typer.echo(f"picture: {path}")


def _table(found: "FoundRecord", part: Part) -> "DataFrame":
    if part is Part.UPDATES:
        if found.run is None:
            raise UserError(f"{found.path} is a record of a study, which has no updates of single clients")
        return found.run.rounds.updates_to_pandas()
    return found.rounds() if part is Part.ROUNDS else found.tasks()


def _told_tasks(found: "FoundRecord") -> "DataFrame":
    """Return the prompts of a run as far as the server knows them: what was disclosed, and how they ended."""
    from pandas import DataFrame

    from fedaigc.federation.output.run_summary import disclosed_words

    return DataFrame(
        [
            {
                "client": task.client,
                "disclosed": disclosed_words(task),
                "outcome": task.failure or task.outcome,
                "handoff step": task.handoff_step,
                "own steps": None
                if task.report is None
                else task.report.shared_stage_steps + task.report.personal_stage_steps,
            }
            for task in (found.run.tasks if found.run is not None else ())
        ]
    )


def _link_lines(found: "FoundRecord") -> list[str]:
    links = [
        task.link for task in (found.run.tasks if found.run is not None else ()) if task.link is not None
    ]
    if not links:
        return []
    schemes = ", ".join(sorted({link.scheme for link in links}))
    # a multicast reaches several members with one transmission, which each of them reports whole
    bits = sum(link.bits_on_air / link.members for link in links)
    joules = sum(link.send_j / link.members for link in links)
    return [
        f"link ({schemes}): {counted(len(links), 'packet')}, "
        f"{sum(link.information_bits for link in links):,} information bits, {bits:,.0f} bits on air, "
        f"{sum(link.bit_errors for link in links):,} bit errors, "
        f"{max(link.latency_s for link in links):.4g} s until the last packet, {joules:.4g} J to send, "
        f"{sum(link.receive_j for link in links):.4g} J to receive"
    ]


def _cost_lines(found: "FoundRecord") -> list[str]:
    from fedaigc.federation.output.sharing_costs import cost_lines

    generation = found.run.generation if found.run is not None else None
    if generation is None or not generation.groups:
        return []
    return cost_lines(generation.groups, generation.num_steps)


def _check_output(output: Path | None, force: bool) -> None:
    if output is None:
        return
    if output.suffix != ".csv":
        raise UserError(f"--output {output}: expected a file with the ending .csv")
    if output.exists() and not force:
        raise UserError(f"{output} exists: give another file, or --force to replace it")


def _write_csv(table: "DataFrame", output: Path | None) -> None:
    if output is None:
        typer.echo(table.to_csv(index=False), nl=False)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(output, index=False)
    typer.echo(f"{counted(len(table), 'row')} in {output}")


def _show_table(table: "DataFrame") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    shown = Table()
    for name in table.columns:
        shown.add_column(
            str(name).replace("_", " "), overflow="fold", no_wrap=name not in ("name", "path", "disclosed")
        )
    for row in table.astype(object).where(table.notna(), None).itertuples(index=False):
        shown.add_row(*(Text(_cell(value)) for value in row))
    # a file has no width that a table would have to fit into
    Console(width=None if sys.stdout.isatty() else _FILE_WIDTH).print(shown)


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.5g}"
    return str(value)
