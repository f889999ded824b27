"""How a run ended, for the command line."""

from pathlib import Path

import typer


def tell_run(output: Path) -> None:
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
