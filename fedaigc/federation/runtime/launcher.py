"""Start a run, in this process or through Flower's simulation in worker processes, and return its record."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import torch

from fedaigc.counting import counted
from fedaigc.device.home.home import Home
from fedaigc.device.home.versions import AdapterVersions
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config.needs import require_extras
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.checkpoint import load_checkpoint
from fedaigc.federation.output.records import RunRecord, read_record
from fedaigc.federation.output.run_lock import (
    new_identity,
    same_identity,
    starting_in,
    working_in,
    writing_to,
)
from fedaigc.federation.preloaded import scorer_of
from fedaigc.federation.progress import OnProgress
from fedaigc.federation.server.initial_state import prepared
from fedaigc.flower_private import task_identity
from fedaigc.rng import derived_seed
from fedaigc.storage.private_files import private_files
from fedaigc.strategy.registry import load_strategy

if TYPE_CHECKING:
    from fedaigc.federation.stopping import OnRound

# a stopped run that this one resumes may still be shutting down
_PATIENCE_S = 60.0


def simulate(
    config: FederationConfig,
    progress: OnProgress | None = None,
    on_log: Callable[[str], None] | None = None,
    on_round: "OnRound | None" = None,
) -> RunRecord:
    """Run a federation with the backend that its configuration names.

    Args:
        config: Configuration of the run.
        progress: Called with each reply of a device.
        on_log: Called with each line of Flower's log that is not passed to `progress`. With the backend "ray" the log
            is also written to `config.output`/flower.log.
        on_round: See `serve`; backend "in-process" only.

    Returns:
        The record of the run.

    Raises:
        UserError: If a device's home or a package is missing, another run works in the homes or writes to the
            output, a home lacks what the run to resume left there, or `on_round` is given with the backend "ray";
            or the run failed, with the server's reason or the relevant lines of the log.
    """
    config = config.absolute()
    require_extras(config)
    missing = [client for client in range(config.num_clients) if not config.home(client).is_dir()]
    if missing:
        last = config.num_clients - 1
        raise UserError(
            f"there is no device's home {config.home(missing[0])}: `homes` needs one folder for each of the "
            f"{counted(config.num_clients, 'client')}, {config.home(0).name} to {config.home(last).name}"
        )
    config = prepared(config)
    if config.generation.enabled and config.generation.scorer == "clip":
        scorer_of(config.generation)  # missing weights are told before hours of training
    if on_round is not None and config.backend != "in-process":
        raise UserError(
            f'on_round with the backend "{config.backend}": the rounds run in another process there, which cannot call '
            "it; leave out `workers`, or end the rounds with the setting rounds.early_stopping"
        )
    patience_s = _PATIENCE_S if config.resume else 0.0
    with private_files(), working_in(config, patience_s), starting_in(config.output, patience_s):
        if config.rounds.count:
            config = _identified(config, patience_s)
        _run(config, progress, on_log, on_round)
    return read_record(config.output)


def _identified(config: FederationConfig, patience_s: float) -> FederationConfig:
    """Return the run with the identity of the one that it resumes, or with a new one."""
    # nothing is replaced under a run that is going on
    with writing_to(config.output, patience_s):
        checkpoint = load_checkpoint(config) if config.resume else None
        if checkpoint is None:
            return new_identity(config)
        config = same_identity(config)
        _check_kept(config, checkpoint.round)
        return config


def _check_kept(config: FederationConfig, finished: int) -> None:
    """Check that the homes have what they kept of the rounds up to `finished`.

    Raises:
        UserError: If a client's personal adapter or its memory of the strategy is gone.
    """
    rule = load_strategy(config.rounds.strategy, config.rounds.options)
    if rule.traits.stateless and not config.training.personal_steps:
        return
    gone = []
    for client in range(config.num_clients):
        took_part = [
            done.round
            for done in read_record(config.output).rounds.root[:finished]
            if client in done.num_examples
        ]
        with suppress(DamagedFile):  # a damaged home is left out of the rounds, which say so
            versions = AdapterVersions(Home.open(config.home(client)))
            if took_part and versions.last_round(config.run_key, finished) < took_part[-1]:
                gone.append(f"  client {client}: {config.home(client)} has nothing of round {took_part[-1]}")
    if gone:
        raise UserError(
            f"the run in {config.output} cannot be resumed, because devices would train from other personal adapters "
            "or another memory of the strategy:\n"
            + "\n".join(gone)
            + "\nrestore `adapters` in these homes from a "
            "copy, or start the run anew"
        )


def _run(
    config: FederationConfig,
    progress: OnProgress | None,
    on_log: Callable[[str], None] | None,
    on_round: "OnRound | None",
) -> None:
    if config.backend == "in-process":
        run_in_process(config, progress, on_log=on_log, on_round=on_round)
    else:
        # imported here: a run in this process does not need the launcher of worker processes
        from fedaigc.federation.runtime.flower_runtime import run_with_flower

        run_with_flower(config, progress, on_log)


def run_in_process(
    config: FederationConfig,
    progress: OnProgress | None = None,
    shuffle_seed: int | None = None,
    on_log: Callable[[str], None] | None = None,
    on_round: "OnRound | None" = None,
) -> None:
    """Run server and clients in this process, with the same apps.

    Args:
        config: Configuration of the run.
        progress: Called with each reply of a device.
        shuffle_seed: Seed of a random order of the replies; None: they come in the order of the messages.
        on_log: Called with each line of Flower's log.
        on_round: See `serve`.
    """
    from fedaigc.federation.client.client_app import app
    from fedaigc.federation.runtime.local_grid import LocalGrid
    from fedaigc.federation.server.server_app import serve

    with in_process_run(config, on_log) as run_id:
        grid = LocalGrid(
            app,
            num_clients=config.num_clients,
            run_config=config.to_run_config(),
            run_id=run_id,
            shuffle_seed=shuffle_seed,
        )
        serve(grid, config, progress, on_round)


@contextmanager
def in_process_run(config: FederationConfig, on_log: Callable[[str], None] | None = None) -> Iterator[int]:
    """Set up this process as Flower expects of one that sends messages, with the run's number of threads.

    Files written within the context are readable by this user only.

    Yields:
        The run id.
    """
    from fedaigc.federation.runtime.local_grid import SERVER_NODE_ID

    run_id = derived_seed(config.seed, "run id")
    with (
        private_files(),
        task_identity(run_id, SERVER_NODE_ID),
        _threads(config.threads),
        _flower_log(on_log),
    ):
        yield run_id


@contextmanager
def _flower_log(on_log: Callable[[str], None] | None) -> Iterator[None]:
    """Pass on Flower's log, or silence that of every aggregation, which would break the caller's progress bars."""
    logger = logging.getLogger("flwr")
    before, handlers = logger.level, logger.handlers
    if on_log is None:
        logger.setLevel(logging.WARNING)
    else:
        logger.setLevel(logging.INFO)
        logger.handlers = [_Lines(on_log)]
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.handlers = handlers


class _Lines(logging.Handler):
    """Passes each message of a log on as a line."""

    def __init__(self, on_log: Callable[[str], None]) -> None:
        super().__init__()
        self._on_log = on_log

    def emit(self, record: logging.LogRecord) -> None:
        self._on_log(f"{record.levelname}: {record.getMessage()}")


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
