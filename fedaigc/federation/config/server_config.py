"""The configuration of a run on separate machines: complete in a file of the server, in part for the devices.

Flower sends a run's configuration to every device. It therefore contains only what devices need
(`for_devices`) and a random name. The full configuration lies under that name in a folder of the server; an
environment variable of the SuperLink passes the folder to the ServerApp that it starts.
"""

import json
import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import SERVER_CONFIG_KEY, FederationConfig, config_from_run
from fedaigc.validation import validated_json

FOLDER_VARIABLE = "FEDAIGC_RUN_CONFIGS"
_NAME = re.compile(r"[0-9a-f]{32}")


def keep_config(config: FederationConfig, folder: Path) -> dict[str, str]:
    """Write the full configuration into a folder, readable by its owner only.

    Args:
        config: The configuration of the run.
        folder: Folder of the server; created if missing.

    Returns:
        The run config that Flower sends to devices: their part of the configuration and the random name.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    name = secrets.token_hex(16)
    descriptor = os.open(_path(folder, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(config.model_dump_json())
    return {**config.for_devices().to_run_config(), SERVER_CONFIG_KEY: name}


def forget_configs(folder: Path) -> None:
    """Remove what `keep_config` wrote, once no run needs it any more."""
    for path in folder.glob("*.json"):
        path.unlink(missing_ok=True)


def server_config(run_config: Mapping[str, Any]) -> FederationConfig:
    """Return the full configuration for the server.

    It comes from the server's own file if the run config names one, else from the run config itself.

    Raises:
        UserError: If the configuration is missing or invalid.
    """
    name = run_config.get(SERVER_CONFIG_KEY)
    if not name:
        return config_from_run(run_config)
    folder = os.environ.get(FOLDER_VARIABLE)
    if folder is None or not isinstance(name, str) or _NAME.fullmatch(name) is None:
        raise UserError(
            "this run's configuration is in a file that this server does not have: start runs with "
            "`fedaigc server run`"
        )
    try:
        text = _path(Path(folder), name).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"the run's configuration cannot be read: {error.strerror}") from None
    return validated_json(FederationConfig, text, "the run's configuration")


def run_config_file(run_config: Mapping[str, str]) -> str:
    """Return the TOML text for `flwr run --run-config`."""
    # a JSON string is a TOML string, unless it escapes an emoji as a surrogate pair
    return "".join(f"{key} = {json.dumps(text, ensure_ascii=False)}\n" for key, text in run_config.items())


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"
