"""A configuration with all its keys as TOML text, with their descriptions as comments."""

import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
FOLLOWS = frozenset({"model.height", "model.width"})
_HEAD = (
    "{} with the default settings. Relative paths in this file count from its folder; paths on the command line, also "
    'those after --set, count from the working folder. Keys after "#" are not set, which their descriptions call '
    '"None"; their values are examples.'
)


def config_text() -> str:
    """Return a file with all keys of a run: those with defaults as they are, the others as comments."""
    return ConfigFile(EXAMPLES, FOLLOWS).text("A federation", FederationConfig)


@dataclass(frozen=True)
class ConfigFile:
    """How the keys of a model are printed.

    Attributes:
        examples: Values of keys that must be given, or that are not set by default; names of repeated tables.
        unset: Keys that are comments although they have a default.
        left_out: Keys and sections that are not printed.
    """

    examples: Mapping[str, Any]
    unset: frozenset[str]
    left_out: frozenset[str] = frozenset()

    def text(self, what: str, kind: type[Any]) -> str:
        """Return a file with all keys of a model: those with defaults as they are, the others as comments."""
        lines = [*_comment(_HEAD.format(what)), "", *self._model(model_of(kind), "")]
        return "\n".join(lines).rstrip() + "\n"

    def _model(self, model: Model, path: str, shown: str = "") -> Iterator[str]:
        # TOML reads keys after a section as keys of that section
        for setting in sorted(model.settings, key=lambda setting: setting.model is not None):
            key = path + setting.name
            if key in self.left_out:
                continue
            if setting.model is None:
                yield from _comment(_about(setting))
                yield self._assignment(setting, key)
                yield ""
            else:
                yield from self._section(setting, setting.model, key, (shown or path) + setting.name)

    def _section(self, setting: Setting, model: Model, path: str, shown: str) -> Iterator[str]:
        for paragraph in (setting.about or model.about).split("\n\n"):
            yield from _comment(paragraph)
        if setting.repeated == "table":
            shown = f"{shown}.{self.examples[path]}"
        header = f"[[{shown}]]" if setting.repeated == "list" else f"[{shown}]"
        lines = [header, *self._model(model, f"{path}.", f"{shown}.")]
        if setting.optional:
            # without this section, none of its keys may be there
            lines = [f"# {line}" if line else "" for line in lines]
        yield from lines

    def _assignment(self, setting: Setting, path: str) -> str:
        given = not setting.required and setting.default is not None
        if given and path not in self.unset:
            return f"{setting.name} = {toml(setting.default)}"
        example = self.examples.get(path, setting.default if given else None)
        shown = f"({setting.kind})" if example is None else toml(example)
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
