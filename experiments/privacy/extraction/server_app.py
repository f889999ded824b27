"""The hostile server as a Flower app, which replaces an honest server's app and uses the same messages."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flwr.app import Context, RecordDict
from flwr.serverapp import Grid, ServerApp

from fedaigc.device.replies import Failure
from fedaigc.federation.config.run_config import FederationConfig, config_from_run
from fedaigc.federation.output.recorder import RunRecorder
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.progress import Stage
from fedaigc.federation.server.roster import open_roster
from fedaigc.federation.wire.generation_messages import read_signatures
from fedaigc.federation.wire.messages import Ask, body

ATTACK = "attack.json"
RESULT = "result.json"

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Attack the prompts of the one device, and write the results into the run's output."""
    config = _whole_config(context.run_config)
    settings = json.loads((config.output / ATTACK).read_text())
    pipe, base_hash = base_model(config.model)
    record = RunRecorder(config)
    roster = open_roster(grid, num_clients=1, base_hash=base_hash, bindings=config.bindings)
    client = roster.clients[0]

    def send(kind: Ask, contents: Sequence[RecordDict]) -> list[RecordDict | Failure]:
        return roster.ask_many(kind, [(client, content) for content in contents], Stage(kind.value), 600.0)

    (signatures,) = send(Ask.SIGNATURES, [body()])
    assert isinstance(signatures, RecordDict), "the device did not say what waits"
    tasks = list(read_signatures(signatures)[0])
    began = time.monotonic()
    # each attack imports the modules of its version of the code
    attack: Callable[..., Any]
    if settings["before"]:
        from experiments.privacy.extraction import before

        attack = before.attack
    else:
        from experiments.privacy.extraction import after

        attack = after.attack_over
    found = attack(pipe, base_hash, send, tasks, settings["seed"])
    result = {"tasks": tasks, "found": found.as_dict(), "seconds": time.monotonic() - began}
    (config.output / RESULT).write_text(json.dumps(result))
    record.update(status="finished")


def _whole_config(run_config: Mapping[str, Any]) -> FederationConfig:
    """Return the server's whole configuration, which the earlier code sent to devices."""
    try:
        from fedaigc.federation.config.server_config import server_config
    except ImportError:
        return config_from_run(run_config)
    return server_config(run_config)
