"""The configuration of a run: one frozen, validated object, read from a TOML file.

Flower's run config takes scalars only, so the whole of it travels as one JSON string.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedaigc.collaboration.link_settings import LinkSettings
from fedaigc.collaboration.planner import Executor
from fedaigc.device.home.home import home_of
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.errors import UserError
from fedaigc.federation.wire.codec import Format
from fedaigc.semantics.grouping import MAX_DISTANCE
from fedaigc.semantics.signature import Policy
from fedaigc.strategy.sources import is_file
from fedaigc.validation import read_toml, validated, validated_json

RUN_CONFIG_KEY = "config"
# names the server's own configuration, where `config` is the devices' part of it
SERVER_CONFIG_KEY = "server_config"
_OF_DEVICES = (
    "enabled",
    "num_inference_steps",
    "guidance_scale",
    "num_shared_steps",
    "policy",
    "min_public_prompts",
    "handoff",
    "delivery",
    "scorer",
    "strip_steps",
)
# how the server checks updates
_CHECKS = ("max_norm_ratio", "max_weight_ratio", "attackers")
# of a strategy's options, those that no device may know
_SERVER_OPTIONS = frozenset({"insecure_seed"})


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelSection(_Section):
    """The base model: "embedded", a diffusers folder or a hub name, and how it is run."""

    name: str = "embedded"
    device: str = "cpu"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    height: Annotated[int, Field(ge=8)] = 64
    width: Annotated[int, Field(ge=8)] = 64


class AdapterSection(_Section):
    """Factors and boundary.

    Rank, alpha (None: rank), and t* as a training timestep (None: no personal stage).
    """

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] | None = None
    boundary_timestep: Annotated[int, Field(ge=1)] | None = 500


class RoundsSection(_Section):
    """Federated training.

    count: number of rounds (0: none). strategy: a name, or the path of a Python file, which counts from the
    folder of the configuration; it and its options: see `strategies/README.md`. clients: drawn a
    round (None: all). deadline_s: who has not answered by then leaves the round without its update (None:
    wait). upload_format and download_format: numbers on the wire. dropout_rate: the share of sampled clients
    that fail after they were sent the state, drawn from the seed. tensorboard: write each round's figures for
    TensorBoard too, into `tensorboard/` of the output.

    max_norm_ratio: an update that moves the state by more than this multiple of the running median of updates
    is refused, and an aggregate that moves it by more than this multiple of the largest of late is not
    taken (see `update_bounds`). max_weight_ratio: a client counts for at most this multiple of the median
    number of pictures of all devices (see `weighting`). Both are off at None, which is `inf` in TOML.
    attackers: how many of a round's clients a robust strategy withstands.
    """

    count: Annotated[int, Field(ge=0)] = 3
    strategy: str = "fedavg"
    options: dict[str, bool | int | float | str] = {}
    clients: Annotated[int, Field(ge=1)] | None = None
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    upload_format: Format = "float32"
    download_format: Format = "float32"
    dropout_rate: Annotated[float, Field(ge=0, lt=1)] = 0.0
    tensorboard: bool = False
    max_norm_ratio: Annotated[float, Field(ge=1)] | None = 5.0
    max_weight_ratio: Annotated[float, Field(ge=1)] | None = 10.0
    attackers: Annotated[int, Field(ge=0)] = 0


class ClientsSection(_Section):
    """What differs between clients, one value a client; None: all alike, as in `adapter` and `training`.

    ranks: of the shared factors; the scale alpha / rank is the same for all. local_steps: local steps of a
    round.
    """

    ranks: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    local_steps: tuple[Annotated[int, Field(ge=1)], ...] | None = None


class GenerationSection(_Section):
    """Collaborative generation of every prompt that waits on a device.

    num_shared_steps: K, of `num_inference_steps`. policy: what a device discloses of a prompt.
    min_public_prompts: how many objects of Scenes must share a signature, and under "general" how many places
    (see `semantics.signature`). max_distance: how far apart the members of a group may lie
    (see `semantics.grouping`). executor: who runs the shared steps, the edge or a member. scorer: how a
    device judges images; "scenes" knows the concepts of Scenes, "none" reports counts only. strip_steps:
    before each of these steps a device decodes the latents and keeps the picture beside the last. link: the
    simulated radio link that packets cross (None: none); its damage needs delivery = "tolerant", or a device
    refuses the packet and its task runs alone. deadline_s: who has not answered a message of the generation
    by then has failed (None: wait until Flower gives the node up).

    What a packet discloses to the members of its group: the prompt of the shared steps, more the later it
    leaves. Under every policy but "open" that prompt is made of the signatures, and says no more than they
    do. Under "open" it is one member's own, as it is where a helper (executor "member") runs its own prompt
    instead of the group's. handoff "exact" with a multistep scheduler gives such a prompt away after one
    step, for the scheduler's history tells the noise; "latents" does not.

    between_rounds: serve what waits after each round too, not after the last one only. serve_s: go on
    serving so long after the last. window_s: once a prompt waits, gather others for so long before the
    groups are made; for between_rounds and serve_s.
    """

    enabled: bool = True
    num_inference_steps: Annotated[int, Field(ge=1)] = 11
    guidance_scale: Annotated[float, Field(ge=0)] = 5.0
    num_shared_steps: Annotated[int, Field(ge=0)] = 3
    policy: Policy = Policy.KIND
    min_public_prompts: Annotated[int, Field(ge=1)] = 3
    max_distance: Annotated[float, Field(ge=0)] = MAX_DISTANCE
    executor: Executor = Executor.EDGE
    handoff: Literal["exact", "latents"] = "exact"
    delivery: Literal["strict", "tolerant"] = "strict"
    scorer: Literal["scenes", "none"] = "scenes"
    strip_steps: tuple[Annotated[int, Field(ge=0)], ...] = ()
    link: LinkSettings | None = None
    deadline_s: Annotated[float, Field(gt=0)] | None = None
    between_rounds: bool = False
    window_s: Annotated[float, Field(ge=0)] = 0.0
    serve_s: Annotated[float, Field(ge=0)] = 0.0

    @property
    def continuous(self) -> bool:
        """Whether prompts are served at other times than once at the end."""
        return self.between_rounds or self.serve_s > 0

    @model_validator(mode="after")
    def _who_waits(self) -> "GenerationSection":
        if self.executor is not Executor.EDGE and self.link and self.link.send_above_db is not None:
            raise ValueError('link.send_above_db: only the edge waits for a channel; executor must be "edge"')
        return self


class FederationConfig(_Section):
    """One run. `homes` holds a device's home for each client, `output` what the server writes.

    `name` is the run's name in the homes: a run of the same name repeats its rounds from where they began.
    backend "in-process" runs the clients one after the other in this process, "ray" in `workers` processes.
    Every computing process uses `threads` torch threads; results repeat at equal threads. `resume` goes on
    after the last round of a run that was cut off in `output`, and begins a new one where there is none.
    bindings: which client each of Flower's node ids speaks for, on separate machines; set by the server.

    seeded_noise: whether the noise of the pictures follows from `seed`, so that a run repeats. A member that
    knows or guesses the seed then has the noise that its packets began from, and with it whatever prompt they
    were made from. None: true in a simulation, false on separate machines, where the server draws the noise
    of each group from the operating system.
    """

    homes: Path
    output: Path
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "run"
    seed: int = 0
    num_clients: Annotated[int, Field(ge=1)] = 8
    backend: Literal["in-process", "ray"] = "in-process"
    workers: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] = 1
    resume: bool = False
    bindings: dict[str, int] | None = None
    seeded_noise: bool | None = None
    model: ModelSection = ModelSection()
    adapter: AdapterSection = AdapterSection()
    rounds: RoundsSection = RoundsSection()
    training: TrainingSettings = TrainingSettings()
    clients: ClientsSection = ClientsSection()
    generation: GenerationSection = GenerationSection()

    @model_validator(mode="after")
    def _consistent(self) -> "FederationConfig":
        if self.rounds.clients is not None and self.rounds.clients > self.num_clients:
            raise ValueError(f"rounds.clients is {self.rounds.clients}, num_clients only {self.num_clients}")
        for name in ("ranks", "local_steps"):
            values = getattr(self.clients, name)
            if values is not None and len(values) != self.num_clients:
                raise ValueError(f"clients.{name} has {len(values)} values for {self.num_clients} clients")
        if self.clients.ranks is not None and max(self.clients.ranks) != self.adapter.rank:
            raise ValueError(
                f"the largest of clients.ranks is {max(self.clients.ranks)}, adapter.rank is "
                f"{self.adapter.rank}: they must be the same"
            )
        return self

    def rank(self, client: int) -> int:
        """Rank of the shared factors of a client."""
        return self.adapter.rank if self.clients.ranks is None else self.clients.ranks[client]

    def local_steps(self, client: int) -> int:
        """Local steps a round of a client."""
        steps = self.clients.local_steps
        return self.training.local_steps if steps is None else steps[client]

    def with_local_steps(self, steps: int) -> "FederationConfig":
        """The same run with so many local steps a round for every client."""
        training = replace(self.training, local_steps=steps)
        clients = self.clients.model_copy(update={"local_steps": None})
        return self.model_copy(update={"training": training, "clients": clients})

    def home(self, client: int) -> Path:
        """The home of the device of a client: `homes`/00, `homes`/01, and so on."""
        return home_of(self.homes, client)

    def absolute(self) -> "FederationConfig":
        """The same run with absolute paths, for processes that start elsewhere."""
        paths: dict[str, Any] = {"homes": self.homes.absolute(), "output": self.output.absolute()}
        local = Path(self.model.name)
        if local.exists():
            paths["model"] = self.model.model_copy(update={"name": str(local.absolute())})
        if is_file(self.rounds.strategy):
            strategy = str(Path(self.rounds.strategy).absolute())
            paths["rounds"] = self.rounds.model_copy(update={"strategy": strategy})
        return self.model_copy(update=paths)

    def for_devices(self) -> "FederationConfig":
        """What the devices of a deployment are sent: what they decide and compute by, and nothing else.

        Not in it, but at their defaults: the seed, paths and the model's name, node ids and clients, the
        number of clients and what differs between them, where devices stand, and what the server alone does.
        What a device needs of these comes with its own order.
        """
        rounds = self.rounds.model_copy(
            update={
                "clients": None,
                "deadline_s": None,
                "dropout_rate": 0.0,
                "tensorboard": False,
                **{name: RoundsSection.model_fields[name].default for name in _CHECKS},
                "options": {k: v for k, v in self.rounds.options.items() if k not in _SERVER_OPTIONS},
            }
        )
        generation = {name: getattr(self.generation, name) for name in _OF_DEVICES}
        if self.generation.link is not None:
            generation["link"] = self.generation.link.for_receivers()
        model = self.model.model_copy(update={"name": "embedded", "device": "cpu"})
        return FederationConfig(
            homes=Path("."),
            output=Path("."),
            name=self.name,
            model=model,
            adapter=self.adapter,
            rounds=rounds,
            training=self.training,
            generation=GenerationSection(**generation),
        )

    def to_run_config(self) -> dict[str, str]:
        """Flower's run config: the whole of this as one JSON string."""
        return {RUN_CONFIG_KEY: self.model_dump_json()}


def packet_warnings(config: FederationConfig) -> list[str]:
    """What a run with this configuration discloses of a member's prompt by its packets, a line each."""
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
    if config.seeded_noise:
        found.append(
            "seeded_noise: the noise of the pictures follows from `seed`; whoever guesses it can find the "
            "prompt that a packet was made from"
        )
    return found


def flower_run_config(config: FederationConfig) -> str:
    """The TOML file that `flwr run --run-config` takes: one key, the configuration as JSON."""
    # a JSON string is a TOML string, unless it writes an emoji as two escapes
    text = json.dumps(config.to_run_config()[RUN_CONFIG_KEY], ensure_ascii=False)
    return f"{RUN_CONFIG_KEY} = {text}\n"


def parse_config(values: Mapping[str, Any]) -> FederationConfig:
    """Validate a mapping.

    Raises UserError that names every wrong key and, for an unknown one, the nearest.
    """
    return validated(FederationConfig, values)


def read_config(path: Path) -> FederationConfig:
    """Read a TOML file; relative paths in it count from its folder. Raises UserError when it is not right."""
    values = read_toml(path)
    try:
        config = parse_config(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    folder = path.absolute().parent
    found: dict[str, Any] = {"homes": folder / config.homes, "output": folder / config.output}
    if is_file(config.rounds.strategy):
        strategy = str(folder / config.rounds.strategy)
        found["rounds"] = config.rounds.model_copy(update={"strategy": strategy})
    return config.model_copy(update=found)


def config_from_run(run_config: Mapping[str, Any]) -> FederationConfig:
    """The config out of Flower's run config.

    Raises UserError when it is missing, as under a bare `flwr run .`.
    """
    text = run_config.get(RUN_CONFIG_KEY)
    if not isinstance(text, str) or not text:
        raise UserError(
            "this run has no configuration: start it with `fedaigc simulate CONFIG.toml`, or give "
            f"`flwr run . --run-config '{RUN_CONFIG_KEY}=\"...\"'` the JSON of a FederationConfig"
        )
    return validated_json(FederationConfig, text, "the run's configuration")
