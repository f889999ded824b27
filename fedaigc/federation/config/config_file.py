"""A configuration with all its keys as TOML text, with their descriptions as comments."""

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.settings import Model, Setting, model_of, toml

WIDTH = 110
# shown for keys that must be given, or that are not set by default
EXAMPLES: Mapping[str, Any] = {
    "homes": "homes",
    "output": "out",
    "bindings": {"1234567890": 0},
    "seeded_noise": True,
    "model.height": 64,
    "model.width": 64,
    "model.variant": "fp16",
    "client_gpus": 0.5,
    "adapter.alpha": 8.0,
    "adapter.target_modules": ["to_q", "to_v"],
    "adapter.start_from": "lora/shared",
    "adapter.start_digest": "0" * 64,
    "rounds.clients": 4,
    "rounds.deadline_s": 60.0,
    "training.min_snr_gamma": 5.0,
    "training.clip_norm": 1.0,
    "clients.ranks": [2, 4, 8, 8, 8, 8, 8, 8],
    "clients.local_steps": [5, 10, 20, 20, 20, 20, 20, 20],
    "edges.clients": [0, 0, 0, 0, 1, 1, 1, 1],
    "generation.clip_model": "clip",
    "generation.deadline_s": 60.0,
    "generation.planner": "greedy_tree",
    "generation.link.bit_error_rate": 0.02,
    "generation.link.snr_db": 12.0,
    "generation.link.distance_m": [30.0, 100.0, 200.0],
    "generation.link.send_above_db": 10.0,
}
# keys whose value follows from another one unless they are given
_FOLLOWS = ("model.height", "model.width")
_HEAD = (
    "A federation with the default settings. Relative paths in this file count from its folder; paths on the command "
    'line, also those after --set, count from the working folder. Keys after "#" are not set, which their descriptions '
    'call "None"; their values are examples.'
)


def config_text() -> str:
    """Return a file with all keys of a run: those with defaults as they are, the others as comments."""
    lines = [*_comment(_HEAD), "", *_model(model_of(FederationConfig), "")]
    return "\n".join(lines).rstrip() + "\n"


def _model(model: Model, path: str) -> Iterator[str]:
    # TOML reads keys after a section as keys of that section
    for setting in sorted(model.settings, key=lambda setting: setting.model is not None):
        if setting.model is None:
            yield from _comment(_about(setting))
            yield _assignment(setting, path + setting.name)
            yield ""
        else:
            yield from _section(setting, setting.model, path + setting.name)


def _section(setting: Setting, model: Model, path: str) -> Iterator[str]:
    for paragraph in (setting.about or model.about).split("\n\n"):
        yield from _comment(paragraph)
    lines = [f"[{path}]", *_model(model, f"{path}.")]
    if setting.optional:
        # without this section, none of its keys may be there
        lines = [f"# {line}" if line else "" for line in lines]
    yield from lines


def _assignment(setting: Setting, path: str) -> str:
    if not setting.required and setting.default is not None and path not in _FOLLOWS:
        return f"{setting.name} = {toml(setting.default)}"
    shown = toml(EXAMPLES[path]) if path in EXAMPLES else f"({setting.kind})"
    return f"{'' if setting.required else '# '}{setting.name} = {shown}"


def _about(setting: Setting) -> str:
    told = [choice for choice in setting.choices if toml(choice) not in setting.about]
    values = f" One of {', '.join(map(toml, setting.choices))}." if told else ""
    return f"{setting.about}{values}"


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent="# ",
        subsequent_indent="# ",
        break_on_hyphens=False,
        break_long_words=False,
    )
