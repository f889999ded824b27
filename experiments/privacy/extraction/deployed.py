"""The extraction over a real deployment: a server with TLS and keys, a SuperNode, its relay and an agent.

The server's owner is the attacker: its app is `extraction.server_app` instead of the library's.
"""

import json
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from experiments.privacy.extraction import server_app
from experiments.privacy.extraction.candidates import candidates, draw_secrets
from experiments.privacy.extraction.victim import Victim
from fedaigc.deployment.server import runs
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.runtime.flower_runtime import stage_app
from tools.deployment.running import Devices, deployment

_HONEST = 'serverapp = "fedaigc.federation.server.server_app:app"'
_HOSTILE = f'serverapp = "{server_app.__name__}:app"'


def over_deployment(folder: Path, count: int, seed: int, *, before: bool) -> dict[str, Any]:
    """Attack a device in separate processes, whose home has prompts and nothing else."""
    prompts = candidates()
    secrets = draw_secrets(prompts, count, seed)
    config = parse_config(
        {
            "homes": folder / "homes",
            "output": folder / "out",
            "num_clients": 1,
            "rounds": {"count": 0},
            "generation": {"scorer": "none"},
        }
    )
    victim = Victim(config.home(0), [prompts[index] for index in secrets])
    config.output.mkdir()
    (config.output / server_app.ATTACK).write_text(json.dumps({"before": before, "seed": seed}))
    try:
        with deployment(config, folder / "server", registered=1) as devices:
            devices.start(0)
            _run(devices, config)
    except subprocess.TimeoutExpired:
        # kill an agent that is slow to end, since the results are on disk
        devices.kill(0)
    result = json.loads((config.output / server_app.RESULT).read_text())
    secret_of = dict(zip(victim.tasks, secrets, strict=True))
    # tasks without a disclosure are listed under other names
    queue = victim.agent.open_device().prompts
    attacked = [secret_of[queue.get(name).task_id] for name in result["tasks"]]
    if before:
        from experiments.privacy.extraction.before import record_over as record
    else:
        from experiments.privacy.extraction.after import record_over as record
    return record(result["found"], attacked, result["seconds"], "server, relay and agent")


def _run(devices: Devices, config: FederationConfig) -> None:
    """Run the hostile app as `fedaigc server run` runs an app."""

    def hostile(app: Path) -> None:
        stage_app(app)
        project = app / "pyproject.toml"
        text = project.read_text()
        assert _HONEST in text, "the app is staged otherwise"
        project.write_text(text.replace(_HONEST, _HOSTILE))

    with patch.object(runs, "stage_app", hostile):
        runs.run_on_devices(devices.folder, devices.state, config, on_log=print)
