"""Start a run on the devices of a server, follow it, and check how it ended."""

import shutil
from collections.abc import Callable
from pathlib import Path

from fedaigc.deployment.server.roster_file import known_devices
from fedaigc.deployment.server.server import RUN_CONFIGS, ServerState, control_environment
from fedaigc.errors import UserError
from fedaigc.federation.config.config_bounds import check_config
from fedaigc.federation.config.needs import require_extras
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.config.server_config import forget_configs, keep_config, run_config_file
from fedaigc.federation.output.checkpoint import CHECKPOINT, EARLIER
from fedaigc.federation.output.run_lock import new_identity, same_identity, starting_in
from fedaigc.federation.progress import OnProgress
from fedaigc.federation.runtime.flower_runtime import (
    LOG,
    check_ended_well,
    run_ids,
    run_status,
    runs_going_on,
    stage_app,
    stop_run,
    stream_run,
)
from fedaigc.federation.runtime.superlink import CONNECTION
from fedaigc.federation.server.initial_state import prepared
from fedaigc.storage.file_lock import locked
from fedaigc.storage.private_files import close_files, private_files

ROUND_DEADLINE_S = 3600.0
GENERATION_DEADLINE_S = 900.0
_LOCK = ".run.lock"
# a run that is taken over may still be shutting down
_PATIENCE_S = 60.0


def run_on_devices(
    folder: Path,
    state: ServerState,
    config: FederationConfig,
    progress: OnProgress | None = None,
    on_log: Callable[[str], None] | None = None,
) -> None:
    """Run a federation on the devices that a server knows.

    The number of clients follows from the registered devices. Without TLS there are no keys to bind, and the
    configuration's own number applies. Where the configuration sets no deadlines, those of this module apply,
    because a device may hang. A run that resumes takes over from a run in progress. KeyboardInterrupt stops
    the run.

    Args:
        folder: Folder of the server.
        state: The running server.
        config: Configuration of the run.
        progress: Called with each reply of a device.
        on_log: Called with each line of Flower's log that is not passed to `progress`.

    Raises:
        UserError: If no devices are registered, a package is missing, the configuration does not fit them,
            another run is in progress and this one does not resume, or the run fails (as in a simulation).
    """
    with private_files():
        _run(folder, state, config, progress, on_log)


def _run(
    folder: Path,
    state: ServerState,
    config: FederationConfig,
    progress: OnProgress | None,
    on_log: Callable[[str], None] | None,
) -> None:
    require_extras(config)
    if config.edges is not None:
        raise UserError(
            "edges: on separate machines every device talks to the server itself; remove the section, or simulate the "
            "run with `fedaigc simulate`"
        )
    if config.generation.between_devices:
        raise UserError(
            f'generation.topology = "{config.generation.topology}": on separate machines devices share without a '
            "server, by `fedaigc device share` and `fedaigc device cluster`; remove the key, or simulate the run with "
            "`fedaigc simulate`"
        )
    devices = known_devices(folder)
    if state.tls:
        if not devices:
            raise UserError(f"no devices: register one with `fedaigc server add {folder} PUBLIC_KEY`")
        bindings = {str(device.node_id): device.client for device in devices}
        # validated again: ranks and local steps per client must fit the registered devices
        values = config.model_dump() | {"bindings": bindings, "num_clients": max(bindings.values()) + 1}
        config = parse_config(values)
    config = prepared(_as_deployed(config).absolute())
    # a configuration that every device would refuse fails here
    check_config(config.for_devices())
    busy = (
        "another run is in progress: wait for it to finish, take it over with --resume, or end it with "
        f"`fedaigc server cancel {folder}`"
    )
    if config.resume:
        # the command that follows the run that is taken over ends with it
        cancel_runs(folder, state)
    with locked(folder / _LOCK, busy=busy, patience_s=_PATIENCE_S if config.resume else 0.0):
        if going_on(folder, state):
            raise UserError(busy)
        with starting_in(config.output, _PATIENCE_S if config.resume else 0.0):
            _submit(folder, state, config, progress, on_log)


def _submit(
    folder: Path,
    state: ServerState,
    config: FederationConfig,
    progress: OnProgress | None,
    on_log: Callable[[str], None] | None,
) -> None:
    resumes = config.resume and any((config.output / name).exists() for name in (CHECKPOINT, EARLIER))
    config = same_identity(config) if resumes else new_identity(config)
    if not config.resume:
        (config.output / "record.json").unlink(missing_ok=True)
    close_files(config.output, LOG)
    scratch, environment = control_environment(folder, state)
    app = scratch / "app"
    shutil.rmtree(app, ignore_errors=True)
    stage_app(app)
    before = run_ids(scratch, environment)
    run_config = scratch / "run.toml"
    # the full configuration stays on this machine: Flower sends the run's configuration to every device
    configs = folder / RUN_CONFIGS
    forget_configs(configs)
    run_config.write_text(run_config_file(keep_config(config, configs)), encoding="utf-8")
    names = [str(path.absolute()) for path in (app, run_config)]
    command = ["run", names[0], CONNECTION, "--stream", "--run-config", names[1]]
    try:
        with (config.output / LOG).open("w", encoding="utf-8") as log:
            lines = stream_run(command, scratch, environment, log.write, progress, on_log)
    except KeyboardInterrupt:
        cancel_runs(folder, state)
        raise
    finally:
        forget_configs(configs)
    status, details = run_status(scratch, environment, before)
    check_ended_well(status, details, config, lines)


def going_on(folder: Path, state: ServerState) -> set[str]:
    """Return the ids of the runs in progress on a server: at most one, unless others submit runs too."""
    return runs_going_on(*control_environment(folder, state))


def cancel_runs(folder: Path, state: ServerState) -> list[str]:
    """Stop all runs in progress on a server and return their ids.

    Raises:
        UserError: If a run could not be stopped.
    """
    scratch, environment = control_environment(folder, state)
    found = sorted(runs_going_on(scratch, environment))
    for run_id in found:
        stop_run(run_id, scratch, environment)
    return found


def _as_deployed(config: FederationConfig) -> FederationConfig:
    """Add deadlines, and noise that no device can guess unless the configuration asks for seeded noise."""
    rounds = {"deadline_s": config.rounds.deadline_s or ROUND_DEADLINE_S}
    generation = {"deadline_s": config.generation.deadline_s or GENERATION_DEADLINE_S}
    return config.model_copy(
        update={
            "seeded_noise": bool(config.seeded_noise),
            "rounds": config.rounds.model_copy(update=rounds),
            "generation": config.generation.model_copy(update=generation),
        }
    )
