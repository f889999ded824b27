"""A run that is followed on the command line: progress bars, and how it ended."""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fedaigc.federation.config.run_config import FederationConfig
    from fedaigc.federation.progress import OnProgress


def follow_run(
    config: Path,
    run: "Callable[[FederationConfig, OnProgress], object]",
    *,
    changes: Sequence[str],
    resume: bool,
    command: str,
) -> None:
    """Run the federation of a TOML file with progress bars, and print how it ended.

    Args:
        config: The TOML file.
        run: Runs it.
        changes: Values that replace those of the file.
        resume: Whether to continue a run that was cut off.
        command: The command that ran it, for the hint after Ctrl-C.

    Raises:
        typer.Exit: With status 130, if the user stopped the run.
    """
    from fedaigc.federation.config.run_config import packet_warnings, read_config
    from fedaigc.federation.progress_bars import progress_bars

    settings = read_config(config, changes)
    for warning in packet_warnings(settings):
        typer.echo(f"warning: {warning}", err=True)
    if resume:
        settings = settings.model_copy(update={"resume": True})
    try:
        with progress_bars() as progress:
            run(settings, progress)
    except KeyboardInterrupt:
        again = " ".join([command, *(f"--set {shlex.quote(change)}" for change in changes), "--resume"])
        typer.echo(f"stopped: `{again}` goes on after the last whole round", err=True)
        raise typer.Exit(130) from None
    _tell_run(settings.output)


def _tell_run(output: Path) -> None:
    """Print how a run ended, the privacy bound of its noise, and what was left out or refused.

    Args:
        output: Output folder of the run.
    """
    from fedaigc.federation.output.recorder import refusals
    from fedaigc.federation.output.records import read_record
    from fedaigc.strategy.accountant import told as dp_line

    record = read_record(output)
    typer.echo(f"{record.status}: {len(record.rounds)} rounds, record in {output}/record.json")
    if line := dp_line(record.dp):
        # a run whose noise gives no bound must not look protected
        missing = record.dp is not None and record.dp.epsilon is None
        typer.echo(f"warning: {line}" if missing else line, err=missing)
    told = refusals(record)
    for line in told:
        typer.echo(f"warning: {line}", err=True)
    if told:
        typer.echo("why, in full: errors.log in the home of the device", err=True)
