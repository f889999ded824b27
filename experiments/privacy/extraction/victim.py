"""A real agent whose home holds the private prompts, called in process as its socket would call it."""

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flwr.app import RecordDict
from flwr.common.serde import recorddict_to_proto

from fedaigc.deployment.agent.agent import Agent, AgentSettings
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.federation.config.run_config import FederationConfig, ModelSection, parse_config
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.wire.messages import Ask, failure_in


@dataclass(frozen=True)
class Reply:
    """What a server sees of one order: the record, its kind, its size in bytes and its time."""

    record: RecordDict
    kind: str
    bytes: int
    seconds: float


class Victim:
    """An agent with prompts in its queue.

    Args:
        home: The agent's home.
        prompts: The prompts in its queue.
        model: The name of the base model.
        **settings: Fields of `AgentSettings` that differ from the defaults. Those that the attacked code does not
            have are ignored. Searches without timing use a low `reply_floor_s`.
    """

    def __init__(
        self, home: Path, prompts: Sequence[str], *, model: str = "embedded", **settings: Any
    ) -> None:
        self.home = home
        self.settings = AgentSettings(client=0, model=ModelSection(name=model), **_known(settings))
        self.open()
        device = self.agent.open_device()
        self.tasks = [device.add_prompt(prompt) for prompt in prompts]

    def open(self) -> None:
        """Start or restart the agent. A restart clears its memory."""
        self.agent = Agent(self.home, self.settings)

    @property
    def pipe(self) -> Pipeline:
        """Return a pipeline of the same model, which the attacker also has."""
        return base_model(self.settings.model)[0]

    def config(
        self,
        name: str = "run",
        strategy: str = "fedavg",
        generation: Mapping[str, Any] | None = None,
        **sections: Any,
    ) -> FederationConfig:
        """Return the configuration of a hostile server's run, or raise UserError if it is invalid."""
        return parse_config(
            {
                "homes": "homes",
                "output": "out",
                "name": name,
                "num_clients": 1,
                "model": {"name": self.settings.model.name},
                "rounds": {"strategy": strategy},
                "generation": {"scorer": "none", **(generation or {})},
                **sections,
            }
        )

    def ask(self, kind: Ask, content: RecordDict, config: FederationConfig | None = None) -> Reply:
        """Send one order and return the reply."""
        text = (config or self.config()).model_dump_json()
        began = time.perf_counter()
        record = self.agent.answer(kind, text, content)
        seconds = time.perf_counter() - began
        failed = failure_in(record)
        size = len(recorddict_to_proto(record).SerializeToString())
        return Reply(record, "done" if failed is None else failed.value, size, seconds)

    def send(self, kind: Ask, contents: Sequence[RecordDict]) -> list[RecordDict]:
        """Send orders of one kind, one after the other."""
        return [self.ask(kind, content).record for content in contents]


def _known(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings that the attacked code has."""
    names = inspect.signature(AgentSettings).parameters
    return {name: value for name, value in settings.items() if name in names}
