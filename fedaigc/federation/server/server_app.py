"""The Flower server: opens the roster, runs the rounds, then has the waiting prompts drawn together."""

import os
import threading
import time
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from fedaigc.diffusion.adapters.stages import SharedState, new_adapter, zero_residual
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.errors import UserError
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
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.progress import OnProgress
from fedaigc.federation.server.generation import plan_generation
from fedaigc.federation.server.roster import Roster, open_roster
from fedaigc.federation.server.rounds import run_rounds
from fedaigc.federation.server.server_rule import server_rule
from fedaigc.federation.server.service import PromptService
from fedaigc.federation.server.update_bounds import UpdateBounds
from fedaigc.federation.software import difference, own_software
from fedaigc.rng import rng
from fedaigc.storage.file_lock import locked

_LOCK = ".run.lock"
_PATIENCE_S = 60.0

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the federation that the run's configuration describes."""
    _end_with_parent()
    # a line of the log for each reply: the launcher, in another process, reads it as progress
    serve(grid, server_config(context.run_config), lambda told: print(told.to_line(), flush=True))


def _end_with_parent() -> None:
    """End this process when the one that started it does.

    Flower lets a ServerApp live on, which then asks a server that is gone for ever. What is on the disk is
    whole at any time.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


def serve(grid: Grid, config: FederationConfig, progress: OnProgress | None = None) -> None:
    """Training rounds and generation, with a record of both in `config.output`.

    `progress` is called with each reply that comes in.

    Raises UserError, which the record holds too, for a configuration that cannot work; and, with nothing
    written, when another run writes to this output.
    """
    busy = f"another run writes to {config.output}: wait for its end, or give another output"
    # a run that was stopped for this one to go on with may need a moment to end
    with locked(config.output / _LOCK, busy=busy, patience_s=_PATIENCE_S if config.resume else 0.0):
        _serve(grid, config, progress)


def _serve(grid: Grid, config: FederationConfig, progress: OnProgress | None) -> None:
    settings = config.generation
    held = load_checkpoint(config) if config.resume else None
    record = RunRecorder(config, kept_rounds=held.round if held is not None else 0)
    try:
        torch.set_num_threads(config.threads)
        rule, bounds = server_rule(config), UpdateBounds(config.rounds.max_norm_ratio)
        if held is None:
            shared = rule.initial(initial_shared_state(config, full_weights=rule.traits.full_weights))
        else:
            shared = held.shared
            rule.load(held.rule_state)
            bounds.load(held.bounds)
            if held.damage is not None:
                record.update(fell_back=FellBack(to_round=held.round, reason=held.damage))
        if settings.enabled:
            plan_generation(shared, config)  # a wrong number of shared steps is told before hours of training
        roster = open_roster(
            grid,
            num_clients=config.num_clients,
            base_hash=shared.base_hash,
            progress=progress,
            bindings=config.bindings,
            folder=config.output,
        )
        record.update(base=shared.base_hash, **_attendance(roster))
        finished = 0 if held is None else held.round
        if held is None:
            (config.output / GENERATIONS).unlink(missing_ok=True)
            drop_checkpoints(config)
        first = finished + 1

        def served(values: GenerationRecord) -> None:
            if settings.continuous:
                ServiceRecord.of(values, finished).append(config.output)

        service = PromptService(roster, config, served)
        with Board(config.output, enabled=config.rounds.tensorboard, first=first) as board:

            def on_round(done: RoundRecord, state: SharedState) -> None:
                nonlocal finished
                # the record first: a checkpoint without its round's record would leave a gap
                record.add_round(done)
                save_checkpoint(Checkpoint(done.round, state, rule.state(), bounds.state()), config)
                board.add_round(done)
                finished = done.round
                # what waits after the last round is served below
                if settings.enabled and settings.between_rounds and finished < config.rounds.count:
                    service.serve(state)

            shared = run_rounds(
                roster,
                shared,
                rule,
                config,
                on_round,
                first=first,
                bounds=bounds,
                earlier=lambda: load_earlier(config),
            )
        save_shared_state(shared, config.output)
        record.update(shared_hash=shared.hash())
        if settings.enabled:
            record.update(generation=service.serve(shared))
            service.serve_for(settings.serve_s, shared)
        # devices that came late are in it now
        record.update(sent_bytes=roster.ledger.totals(), **_attendance(roster))
    except KeyboardInterrupt:
        record.update(status="stopped")
        raise
    except Exception as error:
        kind = "error" if isinstance(error, UserError) else type(error).__name__
        record.update(status="failed", error=f"{error}", error_kind=kind)
        raise
    record.update(status="finished")


def _attendance(roster: Roster) -> dict[str, Any]:
    """Who takes part and with which versions, who was refused, and which bound devices were never there."""
    return {
        "clients": tuple(roster.clients),
        "absent": tuple(roster.absent),
        "refused": tuple(RefusalRecord(client=each.client, reason=each.reason) for each in roster.refused),
        "client_versions": {client: dict(versions) for client, versions in roster.software.items()},
        "version_warning": difference(roster.software, own_software()),
    }


def initial_shared_state(config: FederationConfig, *, full_weights: bool = False) -> SharedState:
    """A drawn from the run's seed and B zero, no residual (full_weights: zeros): the pipeline as it came."""
    pipe, base_hash = base_model(config.model)
    section = config.adapter
    fresh = new_adapter(
        pipe, generator=rng(config.seed, "shared adapter"), rank=section.rank, alpha=section.alpha
    )
    boundary = None
    if section.boundary_timestep is not None:
        boundary = boundary_log_snr(pipe, section.boundary_timestep)
    residual = zero_residual(pipe) if full_weights else {}
    return SharedState(base_hash, fresh.lora, fresh.rank, fresh.alpha, residual, boundary_log_snr=boundary)
