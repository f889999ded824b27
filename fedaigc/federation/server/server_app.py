"""The Flower server: open the roster, run the rounds, and then serve the waiting prompts."""

import contextlib
import errno
import math
import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import UserError
from fedaigc.extras import has_extra
from fedaigc.federation.config.needs import require_extras
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.config.server_config import server_config
from fedaigc.federation.output.board import Board
from fedaigc.federation.output.checkpoint import (
    Checkpoint,
    drop_checkpoints,
    load_checkpoint,
    load_earlier,
    save_checkpoint,
)
from fedaigc.federation.output.recorder import RunRecorder, save_shared_state
from fedaigc.federation.output.records import (
    GENERATIONS,
    FellBack,
    GenerationRecord,
    RefusalRecord,
    RoundRecord,
    ServiceRecord,
)
from fedaigc.federation.output.run_lock import writing_to
from fedaigc.federation.output.sharing_picture import SHARING_PICTURE, plot_sharing
from fedaigc.federation.progress import OnProgress, Progress, RoundEnd, round_stage
from fedaigc.federation.server.generation import plan_generation
from fedaigc.federation.server.initial_state import initial_shared_state as initial_shared_state
from fedaigc.federation.server.initial_state import initial_state
from fedaigc.federation.server.roster import Roster, open_roster
from fedaigc.federation.server.rounds import run_rounds
from fedaigc.federation.server.server_rule import server_rule
from fedaigc.federation.server.service import PromptService
from fedaigc.federation.server.update_bounds import UpdateBounds
from fedaigc.federation.software import difference, own_software
from fedaigc.federation.stopping import OnRound, Stop, checked, copy_of, early_stop

_PATIENCE_S = 60.0
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run's configuration describes."""
    _end_with_parent()
    # one log line per reply, which the launcher reads as progress in another process
    serve(grid, server_config(context.run_config), lambda told: print(told.to_line(), flush=True))


def _end_with_parent() -> None:
    """End this process when its parent process ends.

    Flower does not end the ServerApp, which would then poll a stopped server forever. The files on disk are
    complete at any time.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def serve(
    grid: Grid,
    config: FederationConfig,
    progress: OnProgress | None = None,
    on_round: OnRound | None = None,
) -> None:
    """Run the training rounds and the generation, and keep the record of both in `config.output`.

    Args:
        grid: Flower's grid, through which the devices are reached.
        config: Of the run.
        progress: Called with each reply that comes in.
        on_round: Called after each round with its record and a copy of the shared state. The rounds end if it
            returns a `Stop`.

    Raises:
        UserError: The configuration cannot work, which the record says too; or, with nothing written, another
            run writes to this output.
    """
    # the stopped run that this one resumes may still be shutting down
    with writing_to(config.output, patience_s=_PATIENCE_S if config.resume else 0.0):
        checkpoint = load_checkpoint(config) if config.resume else None
        record = RunRecorder(config, kept_rounds=checkpoint.round if checkpoint is not None else 0)
        with _status(record):
            require_extras(config)
            torch.set_num_threads(config.threads)
            run = _Run(grid, config, record, checkpoint, progress)
            run.train(on_round)
            run.generate()


@contextlib.contextmanager
def _status(record: RunRecorder) -> Iterator[None]:
    """Record how the block ended; an error of the disk becomes one for the user."""
    try:
        yield
    except KeyboardInterrupt:
        record.update(status="stopped")
        raise
    except Exception as caught:
        error = caught
        if isinstance(caught, OSError) and caught.errno in _DISK:
            error = UserError(
                f"{caught.filename or record.output}: {caught.strerror}; the rounds before are kept: make room, and "
                "run it again with --resume"
            )
        kind = "error" if isinstance(error, UserError) else type(error).__name__
        with contextlib.suppress(OSError):  # of a full disk
            record.update(status="failed", error=f"{error}", error_kind=kind)
        if error is caught:
            raise
        raise error from caught
    record.update(status="finished")


class _Run:
    """A run from its start, or from a checkpoint, to its end."""

    def __init__(
        self,
        grid: Grid,
        config: FederationConfig,
        record: RunRecorder,
        checkpoint: Checkpoint | None,
        progress: OnProgress | None,
    ) -> None:
        self._config, self._record, self._progress = config, record, progress
        self._rule, self._bounds = server_rule(config), UpdateBounds(config.rounds.max_norm_ratio)
        self._finished = 0  # rounds
        if checkpoint is None:
            self._shared = initial_state(config, self._rule)
        else:
            self._shared, self._finished = checkpoint.shared, checkpoint.round
            self._rule.load(checkpoint.rule_state)
            self._bounds.load(checkpoint.bounds)
            if checkpoint.damage is not None:
                record.update(fell_back=FellBack(to_round=checkpoint.round, reason=checkpoint.damage))
        if config.generation.enabled:
            plan_generation(
                self._shared, config
            )  # a wrong number of shared steps is told before hours of training
        self._roster = open_roster(
            grid,
            num_clients=config.num_clients,
            base_hash=self._shared.base_hash,
            progress=progress,
            bindings=config.bindings,
            folder=config.output,
        )
        record.update(base=self._shared.base_hash, **_attendance(self._roster))
        if checkpoint is None:
            (config.output / GENERATIONS).unlink(missing_ok=True)
            drop_checkpoints(config)
        self._service = PromptService(self._roster, config, self._on_generation)

    def train(self, on_round: OnRound | None = None) -> None:
        """Run the rounds that are left, and save the shared state after the last; see `serve`."""
        config, first = self._config, self._finished + 1
        stopping = config.rounds.early_stopping
        with Board(config.output, enabled=config.rounds.tensorboard, first=first) as board:

            def end_round(done: RoundRecord, state: SharedState) -> Stop | None:
                # the record first: a checkpoint without its round's record would leave a gap
                self._record.add_round(done)
                save_checkpoint(
                    Checkpoint(done.round, state, self._rule.state(), self._bounds.state()), config
                )
                board.add_round(done)
                self._tell_round(done)
                self._finished = done.round
                # what waits after the last round is served by `generate`
                settings = config.generation
                stop = checked(on_round(done, copy_of(state))) if on_round is not None else None
                stop = stop or early_stop(self._record.rounds.root, stopping)
                if done.round == config.rounds.count:
                    return None
                if stop is not None:
                    self._record.update(stopped=stop.reason)
                elif settings.enabled and settings.between_rounds:
                    self._service.serve(state)
                return stop

            stopped = early_stop(self._record.rounds.root, stopping)
            if stopped is not None and first <= config.rounds.count:
                # an interrupted run that had stopped has no rounds left
                self._record.update(stopped=stopped.reason)
                first = config.rounds.count + 1
            self._shared = run_rounds(
                self._roster,
                self._shared,
                self._rule,
                config,
                end_round,
                first=first,
                history=self._record.rounds.root,
                bounds=self._bounds,
                earlier=lambda: load_earlier(config),
            )
        save_shared_state(self._shared, config.output)
        self._record.update(shared_hash=self._shared.hash())

    def _tell_round(self, done: RoundRecord) -> None:
        if self._progress is not None:
            count = len(done.sampled)
            end = RoundEnd(len(done.num_examples), _finite(done.mean_metrics()), done.seconds)
            self._progress(Progress(round_stage(done.round, self._config.rounds.count), count, count, end))

    def generate(self) -> None:
        """Serve the prompts that wait, and those that arrive within the configured time."""
        if self._config.generation.enabled:
            done = self._service.serve(self._shared)
            self._record.update(generation=done)
            if self._config.generation.planner is not None and done.groups and has_extra("plots"):
                plot_sharing(done, self._config.output / SHARING_PICTURE)
            self._service.serve_for(self._config.generation.serve_s, self._shared)
        # devices that came late are in it now
        self._record.update(sent_bytes=self._roster.ledger.totals(), **_attendance(self._roster))
        if self._config.edges is not None:
            self._record.update(backhaul_bytes=self._roster.backhaul.totals())

    def _on_generation(self, done: GenerationRecord) -> None:
        if self._config.generation.continuous:
            ServiceRecord.of(done, self._finished).append(self._config.output)


def _finite(losses: dict[str, float]) -> dict[str, float]:
    # a line of progress is JSON, which has no other numbers
    return {name: value for name, value in losses.items() if math.isfinite(value)}


def _attendance(roster: Roster) -> dict[str, Any]:
    """Return the record's entries on participating, refused and absent clients and their software versions."""
    return {
        "clients": tuple(roster.clients),
        "absent": tuple(roster.absent),
        "refused": tuple(RefusalRecord(client=each.client, reason=each.reason) for each in roster.refused),
        "client_versions": {client: dict(versions) for client, versions in roster.software.items()},
        "version_warning": difference(roster.software, own_software()),
    }
