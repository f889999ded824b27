"""The configuration of a run: one frozen, validated object, read from a TOML file.

Flower's run config holds scalars only, so the configuration travels as one JSON string.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationInfo, model_validator

from fedaigc.counting import counted
from fedaigc.device.home.home import home_of
from fedaigc.diffusion.loading import EMBEDDED, SHIPPED
from fedaigc.diffusion.model_steps import DEFAULT_STEPS, default_steps
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.errors import UserError
from fedaigc.federation.config.choices import Backend
from fedaigc.federation.config.edges_section import EdgesSection as EdgesSection
from fedaigc.federation.config.file_paths import (
    place_atlas,
    place_model,
    place_paths,
    place_start,
    place_strategy,
    place_unless_hub_name,
)
from fedaigc.federation.config.generation_section import GenerationSection as GenerationSection
from fedaigc.federation.config.model_config import AdapterSection as AdapterSection
from fedaigc.federation.config.model_config import ModelSection as ModelSection
from fedaigc.federation.config.model_config import Section
from fedaigc.federation.config.rounds_section import RoundsSection as RoundsSection
from fedaigc.semantics.policy import Policy
from fedaigc.strategy.sources import is_file
from fedaigc.validation import read_toml, validated, validated_json

RUN_CONFIG_KEY = "config"
# names the server's full configuration, where `config` holds only the devices' part
SERVER_CONFIG_KEY = "server_config"
# how the server checks updates
_CHECKS = ("max_norm_ratio", "max_weight_ratio", "attackers")
# strategy options that no device may know
_SERVER_OPTIONS = frozenset({"insecure_seed"})


class ClientsSection(Section):
    """Settings that differ between clients, one value per client; None: the same for all clients.

    Attributes:
        ranks: Ranks of the shared factors; the scale alpha / rank is the same for all. None: `adapter.rank`.
        local_steps: Local steps per round. None: `training.local_steps`.
    """

    ranks: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    local_steps: tuple[Annotated[int, Field(ge=1)], ...] | None = None


class FederationConfig(Section):
    """The configuration of one run.

    Attributes:
        homes: Folder with one device home per client.
        output: Folder for what the server writes.
        name: Name of the run in the homes, for their owner; two runs of one name do not mix.
        seed: Seed of the server's draws: initial factors, sampled clients, noise of the images, link. A home
            that was made with a seed (`fedaigc scenes`) trains with its own. In a simulation, others train with
            one that follows from this seed and the number of the client.
        num_clients: Number of clients.
        backend: "in-process" runs the clients one by one in this process, "ray" in `workers` processes.
        workers: Number of worker processes.
        client_gpus: Share of a GPU that each worker process gets with the backend "ray" and a model on "cuda" or
            "auto"; None: the GPUs of this machine divided by `workers`, at most one each.
        threads: torch threads of every computing process; results repeat at equal numbers of threads.
        resume: Continue after the last round of an interrupted run in `output`; start anew if none exists.
        run_id: Identity of the run in the homes, where another run of the same name finds nothing of it; drawn when
            the run starts.
        bindings: On separate machines, the client of each Flower node id; set by the server.
        seeded_noise: Whether the noise of the images follows from `seed`, so that a run repeats. A member
            that knows or guesses the seed then has the noise that its packets started from, and with it the
            prompt that they were made from. None: true in a simulation, false on separate machines, where
            the server draws the noise of each group from the operating system.
    """

    homes: Path
    output: Path
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "run"
    seed: int = 0
    num_clients: Annotated[int, Field(ge=1)] = 8
    backend: Backend = "in-process"
    workers: Annotated[int, Field(ge=1)] = 1
    client_gpus: Annotated[float, Field(gt=0)] | None = None
    threads: Annotated[int, Field(ge=1)] = 1
    resume: bool = False
    run_id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None = None
    bindings: dict[str, int] | None = None
    seeded_noise: bool | None = None
    model: ModelSection = ModelSection()
    adapter: AdapterSection = AdapterSection()
    rounds: RoundsSection = RoundsSection()
    training: TrainingSettings = TrainingSettings()
    clients: ClientsSection = ClientsSection()
    edges: EdgesSection | None = None
    generation: GenerationSection = GenerationSection()

    @model_validator(mode="before")
    @classmethod
    def _own_steps(cls, values: Any, info: ValidationInfo) -> Any:
        """Take the few steps that a model was made for, where their number is not given.

        Never in JSON, which a server sends: a device would read files, or ask the hub, that its server names.
        """
        if info.mode == "json" or not isinstance(values, Mapping):
            return values
        model, generation = values.get("model"), values.get("generation", {})
        name = model.get("name") if isinstance(model, dict) else None
        if (
            not isinstance(name, str)
            or not isinstance(generation, dict)
            or "num_inference_steps" in generation
        ):
            return values
        steps = default_steps(name)
        if steps == DEFAULT_STEPS:
            return values
        return {**values, "generation": {"num_inference_steps": steps, **generation}}

    @model_validator(mode="after")
    def _consistent(self) -> "FederationConfig":
        if self.rounds.clients is not None and self.rounds.clients > self.num_clients:
            raise ValueError(
                f"rounds.clients is {self.rounds.clients}: expected at most num_clients, which is {self.num_clients}"
            )
        if self.model.name in SHIPPED and self.model.name != EMBEDDED and self.rounds.count:
            raise ValueError(f"{self.model.name} only draws: set rounds.count to 0, or train another model")
        for name in ("ranks", "local_steps"):
            values = getattr(self.clients, name)
            if values is not None and len(values) != self.num_clients:
                raise ValueError(
                    f"clients.{name} has {counted(len(values), 'value')} for {counted(self.num_clients, 'client')}"
                )
        if self.clients.ranks is not None and max(self.clients.ranks) != self.adapter.rank:
            raise ValueError(
                f"the largest of clients.ranks is {max(self.clients.ranks)} and adapter.rank is "
                f"{self.adapter.rank}: set both to the same value"
            )
        self._check_edges()
        section = self.generation.denoiser
        if section is not None and section.atlas is None and self.model.name != EMBEDDED:
            raise ValueError(
                f"generation.denoiser.atlas is missing: no atlas ships for the model {self.model.name!r}; build one "
                "from any list of captions with `fedaigc atlas build`"
            )
        generation = self.generation
        if (
            generation.planner is not None
            and section is None
            and generation.planning.calibration is None
            and self.model.name != EMBEDDED
        ):
            raise ValueError(
                f"generation.planning.calibration is missing: none ships for the model {self.model.name!r}, and a "
                "planner needs what sharing costs; make one with `fedaigc calibrate`"
            )
        return self

    def _check_edges(self) -> None:
        if self.edges is not None:
            self.edges.check(self.num_clients)
        elif self.generation.topology == "edges":
            raise ValueError(
                'generation.topology is "edges", and there is no section edges: add one, such as edges.count = 2, or '
                'set the topology to "edge"'
            )

    @property
    def run_key(self) -> str:
        """What devices keep the rounds of this run under: its name, with its identity where it has one."""
        return self.name if self.run_id is None else f"{self.name}.{self.run_id}"

    def rank(self, client: int) -> int:
        """Return the rank of a client's shared factors."""
        return self.adapter.rank if self.clients.ranks is None else self.clients.ranks[client]

    def local_steps(self, client: int) -> int:
        """Return a client's local steps per round."""
        steps = self.clients.local_steps
        return self.training.local_steps if steps is None else steps[client]

    def edge(self, client: int) -> int:
        """Return the edge of a client; without edges, 0."""
        return 0 if self.edges is None else self.edges.edge_of(client, self.num_clients)

    def with_local_steps(self, steps: int) -> "FederationConfig":
        """Return the same run with `steps` local steps per round for every client."""
        training = replace(self.training, local_steps=steps)
        clients = self.clients.model_copy(update={"local_steps": None})
        return self.model_copy(update={"training": training, "clients": clients})

    def home(self, client: int) -> Path:
        """Return the home of a client's device: `homes`/00, `homes`/01, and so on."""
        return home_of(self.homes, client)

    def absolute(self) -> "FederationConfig":
        """Return the same run with absolute paths, for processes that start in other folders."""
        paths: dict[str, Any] = {"homes": self.homes.absolute(), "output": self.output.absolute()}
        local = Path(self.model.name)
        if self.model.name not in SHIPPED and local.exists():
            paths["model"] = self.model.model_copy(update={"name": str(local.absolute())})
        if is_file(self.rounds.strategy):
            strategy = str(Path(self.rounds.strategy).absolute())
            paths["rounds"] = self.rounds.model_copy(update={"strategy": strategy})
        if self.adapter.start_from is not None:
            paths["adapter"] = self.adapter.starting_from(self.adapter.start_from.absolute())
        paths["generation"] = self.generation.absolute()
        return self.model_copy(update=paths)

    def for_devices(self) -> "FederationConfig":
        """Return what the devices of a deployment receive: only what they need to decide and compute.

        Everything else has its default: the seed, paths and the model's name, node ids and clients, the
        number of clients and what differs between them, positions of devices, and settings of the server
        alone. What a device needs of these comes with its own order.
        """
        rounds = self.rounds.model_copy(
            update={
                "clients": None,
                "deadline_s": None,
                "dropout_rate": 0.0,
                "tensorboard": False,
                "early_stopping": None,
                **{name: RoundsSection.model_fields[name].default for name in _CHECKS},
                "options": {k: v for k, v in self.rounds.options.items() if k not in _SERVER_OPTIONS},
            }
        )
        model = self.model.model_copy(update={"name": EMBEDDED, "device": "cpu", "variant": None})
        return FederationConfig(
            homes=Path("."),
            output=Path("."),
            name=self.name,
            run_id=self.run_id,
            model=model,
            adapter=self.adapter.model_copy(update={"start_from": None}),
            rounds=rounds,
            training=self.training,
            generation=self.generation.for_devices(),
        )

    def to_run_config(self) -> dict[str, str]:
        """Return Flower's run config: the whole configuration as one JSON string."""
        return {RUN_CONFIG_KEY: self.model_dump_json()}


def packet_warnings(config: FederationConfig) -> list[str]:
    """Return warnings about what the packets of a run disclose of a member's prompt, one line each."""
    found, settings = [], config.generation
    if settings.enabled and settings.policy is Policy.OPEN:
        found.append(
            'generation.policy = "open": the server is sent each prompt itself, and the shared steps of a '
            "group run on the prompt of one member, which its packets give away to all the others"
        )
        if settings.handoff == "exact":
            found.append(
                'generation.handoff = "exact" under the policy "open": the history of a multistep scheduler '
                'gives that prompt away after one step; "latents" does after several'
            )
    denoiser = settings.denoiser if settings.enabled else None
    if denoiser is not None and denoiser.conditioning == "member":
        found.append(
            'generation.denoiser.conditioning = "member": the server is sent the text embeddings of one member of each '
            "group, and the group's packets give its prompt away to all the others"
        )
    if config.seeded_noise:
        found.append(
            "seeded_noise: the noise of the pictures follows from `seed`; whoever guesses it can find the "
            "prompt that a packet was made from"
        )
    return found


def flower_run_config(config: FederationConfig) -> str:
    """Return the TOML text for `flwr run --run-config`: one key with the configuration as JSON."""
    # a JSON string is a TOML string, unless it escapes an emoji as a surrogate pair
    text = json.dumps(config.to_run_config()[RUN_CONFIG_KEY], ensure_ascii=False)
    return f"{RUN_CONFIG_KEY} = {text}\n"


def parse_config(values: Mapping[str, Any]) -> FederationConfig:
    """Validate a mapping.

    Raises:
        UserError: If any value is invalid; see `validated`.
    """
    return validated(FederationConfig, values)


def read_config(path: Path, changes: Sequence[str] = ()) -> FederationConfig:
    """Read a TOML file. Relative paths in it count from its folder, those in `changes` from the working folder.

    Args:
        path: The file.
        changes: Values that replace those of the file, such as "rounds.count=5"; see `read_toml`.

    Raises:
        UserError: If the file cannot be read, or is not a valid configuration with the changes.
    """
    values = read_toml(path, changes, FederationConfig, _place)
    try:
        return parse_config(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _place(values: dict[str, Any], folder: Path) -> None:
    place_paths(values, ("homes", "output"), folder)
    place_model(values, folder)
    place_strategy(values.get("rounds"), "strategy", folder)
    place_start(values.get("adapter"), folder)
    place_unless_hub_name(values.get("generation"), "generation.clip_model", folder)
    place_atlas(values.get("generation"), folder)


def config_from_run(run_config: Mapping[str, Any]) -> FederationConfig:
    """Read the configuration from Flower's run config.

    Raises:
        UserError: If it is invalid, or missing as under a bare `flwr run .`.
    """
    text = run_config.get(RUN_CONFIG_KEY)
    if not isinstance(text, str) or not text:
        raise UserError(
            "this run has no configuration: start it with `fedaigc simulate CONFIG.toml`, or give "
            f"`flwr run . --run-config '{RUN_CONFIG_KEY}=\"...\"'` the JSON of a FederationConfig"
        )
    return validated_json(FederationConfig, text, "the run's configuration")
