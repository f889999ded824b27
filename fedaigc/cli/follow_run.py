"""A run that is followed on the command line: its progress, how it ended, and what became of the prompts."""

import shlex
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from fedaigc.counting import counted
from fedaigc.errors import DamagedFile, UserError

if TYPE_CHECKING:
    from fedaigc.federation.config.run_config import FederationConfig
    from fedaigc.federation.output.records import RunRecord
    from fedaigc.federation.progress import OnProgress

    OnLog = Callable[[str], None] | None
    Run = Callable[[FederationConfig, OnProgress, OnLog], object]


def follow_run(
    config: Path,
    run: "Run",
    *,
    changes: Sequence[str],
    resume: bool,
    command: str,
    force: bool = True,
    own_homes: bool = False,
    verbose: bool = False,
) -> None:
    """Run the federation of a TOML file, show its progress, and print how it ended.

    Args:
        config: The TOML file.
        run: Runs it.
        changes: Values that replace those of the file.
        resume: Whether to continue a run that was cut off.
        command: The command that ran it, for the hint after Ctrl-C.
        force: Whether an earlier run in the output folder is put aside.
        own_homes: Whether the homes are on this machine, with the prompts and the pictures.
        verbose: Whether to print settings, Flower's log and files too.

    Raises:
        UserError: If `force` is False and the output folder holds the rounds or the prompts of an earlier run.
        typer.Exit: With status 130, if the user stopped the run.
    """
    from fedaigc.federation.config.run_config import packet_warnings, read_config
    from fedaigc.federation.progress_bars import progress_bars

    settings = read_config(config, changes)
    for warning in packet_warnings(settings):
        typer.echo(f"warning: {warning}", err=True)
    if resume:
        settings = settings.model_copy(update={"resume": True})
    else:
        _check_output(settings.output, force)
    if verbose:
        _tell_settings(settings)
    again = " ".join([command, *(f"--set {shlex.quote(change)}" for change in changes)])
    # what ends a simulation ends its devices; those of a server go on
    signals = (signal.SIGTERM, signal.SIGHUP) if own_homes else ()
    try:
        with _interrupted_by(signals) as number, progress_bars() as progress:
            run(settings, progress, log_line if verbose else None)
    except KeyboardInterrupt:
        typer.echo(_stopped_line(settings.output, again), err=True)
        raise typer.Exit(128 + (number() or signal.SIGINT)) from None
    except SystemExit as end:
        # a run under Ray cleans up at a signal, and then exits so
        if not isinstance(end.code, int) or end.code - 128 not in signals:
            raise
        typer.echo(_stopped_line(settings.output, again), err=True)
        raise typer.Exit(end.code) from None
    _tell_run(settings, own_homes)
    if verbose:
        tell_files(settings.output)


@contextmanager
def _interrupted_by(signals: Sequence[signal.Signals]) -> Iterator[Callable[[], int | None]]:
    """Have these signals interrupt the block as Ctrl-C does; a second one does not interrupt the clean-up.

    Yields:
        A function that returns the signal that came, or None.
    """
    came: list[int] = []

    def interrupt(number: int, frame: object) -> None:
        for other in before:
            signal.signal(other, signal.SIG_IGN)
        came.append(number)
        raise KeyboardInterrupt

    before = {
        number: handler for number in signals if (handler := signal.getsignal(number)) is not signal.SIG_IGN
    }
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield lambda: came[0] if came else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stopped_line(output: Path, command: str) -> str:
    """Return what a run that was stopped has kept, and how it goes on."""
    from fedaigc.federation.output.checkpoint import CHECKPOINT, EARLIER
    from fedaigc.federation.output.records import read_record

    try:
        count = len(read_record(output).rounds)
    except UserError:
        count = 0
    if not any((output / name).exists() for name in (CHECKPOINT, EARLIER)) or not count:
        return f"stopped before the first round was whole, nothing of it is kept: `{command}` starts anew"
    rounds = "1 round is" if count == 1 else f"{count} rounds are"
    return (
        f"stopped: {rounds} whole and kept in {output}, with the shared state after it; prompts that were not drawn "
        f"wait. `{command} --resume` goes on from there"
    )


def log_line(line: str) -> None:
    """Print a line of Flower's log on standard error."""
    typer.echo(line, err=True)


def _check_output(output: Path, force: bool) -> None:
    from fedaigc.federation.output.earlier_runs import put_aside
    from fedaigc.federation.output.records import RECORD, read_record

    try:
        before = read_record(output) if (output / RECORD).exists() else None
    except DamagedFile:
        return  # it is no record that could be lost
    if before is None or not (before.rounds or before.tasks):
        return
    done = f"{counted(len(before.rounds), 'round')} and {counted(len(before.tasks), 'prompt')}"
    held = f"{output} holds a run of {done} ({before.status})"
    if not force:
        raise UserError(
            f"{held}: --resume continues it and serves the prompts that wait, --force puts it aside; or give "
            "another folder with --set output=FOLDER"
        )
    typer.echo(f"{held}: it is now in {put_aside(output)}; pictures stay in the galleries", err=True)


def _tell_settings(settings: "FederationConfig") -> None:
    """Print what differs from the defaults, and where the run computes."""
    from fedaigc.api.records import changed_settings
    from fedaigc.diffusion.loading import resolve_device

    typer.echo(
        f"torch device: {resolve_device(settings.model.device)}, {counted(settings.threads, 'thread')}"
    )
    for key, value in changed_settings(settings).items():
        typer.echo(f"{key} = {value}")


def tell_files(output: Path) -> None:
    """Print the files of a run with sizes and hashes, and the fingerprints of its weights."""
    import hashlib

    from fedaigc.federation.output.records import read_record

    record = read_record(output)
    typer.echo(f"base model {record.base}\nshared state {record.shared_hash}")
    for path in sorted(path for path in output.iterdir() if path.is_file()):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        typer.echo(f"{path}: {path.stat().st_size:,} bytes, sha256 {digest}")


def _tell_run(settings: "FederationConfig", own_homes: bool) -> None:
    """Print how a run ended, the privacy bound of its noise, what was left out or refused, and the prompts."""
    from fedaigc.federation.output.recorder import refusals
    from fedaigc.federation.output.records import read_record
    from fedaigc.strategy.accountant import told as dp_line

    output = settings.output
    record = read_record(output)
    told = refusals(record)
    for line in told:
        typer.echo(f"warning: {line}", err=True)
    if told:
        typer.echo("why, in full: errors.log in the home of the device", err=True)
    tell_prompts(record, settings if own_homes else None)
    typer.echo(f"{record.status}: {counted(len(record.rounds), 'round')}, record in {output}/record.json")
    if line := dp_line(record.dp):
        # a run whose noise gives no bound must not look protected
        missing = record.dp is not None and record.dp.epsilon is None
        typer.echo(f"warning: {line}" if missing else line, err=missing)


def tell_prompts(
    record: "RunRecord", settings: "FederationConfig | None", output: Path | None = None
) -> None:
    """Print the groups with what was disclosed, the prompts with their pictures, and how many steps were saved.

    Args:
        record: The record of the run.
        settings: Its configuration, where the homes are on this machine; None: there are no prompts to show.
        output: Folder with a picture of each client, in place of the galleries.
    """
    from fedaigc.federation.output.run_summary import generation_lines, idle_lines

    home = settings.home if settings is not None else None
    picture = (lambda client, _: output / f"{client:02d}.png") if output is not None else None
    lines = generation_lines(record, home, picture)
    if not lines and settings is not None and settings.generation.enabled:
        lines = idle_lines(settings.num_clients, settings.home)
    for line in lines:
        typer.echo(line)
