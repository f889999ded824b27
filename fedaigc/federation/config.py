"""The configuration of a run: one frozen, validated object, read from a TOML file.

Flower's run config takes scalars only, so the whole of it travels as one JSON string.
"""

import difflib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from fedaigc.collaboration.planner import Executor
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.errors import UserError
from fedaigc.semantics.grouping import MAX_DISTANCE
from fedaigc.semantics.signature import Policy

RUN_CONFIG_KEY = "config"


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
    """Federated training: number of rounds (0: none), strategy, and clients drawn a round (None: all)."""

    count: Annotated[int, Field(ge=0)] = 3
    strategy: str = "fedavg"
    clients: Annotated[int, Field(ge=1)] | None = None


class GenerationSection(_Section):
    """Collaborative generation of every prompt that waits on a device.

    num_shared_steps: K, of `num_inference_steps`. policy: what a device discloses of a prompt, which at least
    `min_public_prompts` public prompts must fit. max_distance: how far apart the members of a group may lie
    (see `semantics.grouping`). executor: who runs the shared steps, the edge or a member. scorer: how a
    device judges images; "scenes" knows the concepts of Scenes, "none" reports counts only. strip_steps:
    before each of these steps a device decodes the latents and keeps the picture beside the last.
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


class FederationConfig(_Section):
    """One run. `homes` holds a device's home for each partition, `output` what the server writes.

    `name` is the run's name in the homes: a run of the same name repeats its rounds from where they began.
    backend "in-process" runs the clients one after the other in this process, "ray" in `workers` processes.
    Every computing process uses `threads` torch threads; results repeat at equal threads.
    """

    homes: Path
    output: Path
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] = "run"
    seed: int = 0
    num_clients: Annotated[int, Field(ge=1)] = 8
    backend: Literal["in-process", "ray"] = "in-process"
    workers: Annotated[int, Field(ge=1)] = 1
    threads: Annotated[int, Field(ge=1)] = 1
    model: ModelSection = ModelSection()
    adapter: AdapterSection = AdapterSection()
    rounds: RoundsSection = RoundsSection()
    training: TrainingSettings = TrainingSettings()
    generation: GenerationSection = GenerationSection()

    @model_validator(mode="after")
    def _consistent(self) -> "FederationConfig":
        if self.rounds.clients is not None and self.rounds.clients > self.num_clients:
            raise ValueError(f"rounds.clients is {self.rounds.clients}, num_clients only {self.num_clients}")
        return self

    def home(self, partition: int) -> Path:
        """The home of the device of a partition: `homes`/00, `homes`/01, and so on."""
        return self.homes / f"{partition:02d}"

    def absolute(self) -> "FederationConfig":
        """The same run with absolute paths, for processes that start elsewhere."""
        paths: dict[str, Any] = {"homes": self.homes.absolute(), "output": self.output.absolute()}
        local = Path(self.model.name)
        if local.exists():
            paths["model"] = self.model.model_copy(update={"name": str(local.absolute())})
        return self.model_copy(update=paths)

    def to_run_config(self) -> dict[str, str]:
        """Flower's run config: the whole of this as one JSON string."""
        return {RUN_CONFIG_KEY: self.model_dump_json()}


def flower_run_config(config: FederationConfig) -> str:
    """The TOML file that `flwr run --run-config` takes: one key, the configuration as JSON."""
    # a JSON string is a TOML string, unless it writes an emoji as two escapes
    text = json.dumps(config.to_run_config()[RUN_CONFIG_KEY], ensure_ascii=False)
    return f"{RUN_CONFIG_KEY} = {text}\n"


def parse_config(values: Mapping[str, Any]) -> FederationConfig:
    """Validate a mapping.

    Raises UserError that names every wrong key and, for an unknown one, the nearest.
    """
    try:
        return FederationConfig.model_validate(dict(values))
    except ValidationError as error:
        raise UserError("the configuration is wrong:\n" + "\n".join(_lines(error))) from None


def read_config(path: Path) -> FederationConfig:
    """Read a TOML file; relative paths in it count from its folder. Raises UserError when it is not right."""
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"no configuration {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a TOML file: {error}") from None
    try:
        config = parse_config(values)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    folder = path.absolute().parent
    return config.model_copy(update={"homes": folder / config.homes, "output": folder / config.output})


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
    try:
        return FederationConfig.model_validate_json(text)
    except ValidationError as error:
        raise UserError("the run's configuration is wrong:\n" + "\n".join(_lines(error))) from None


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        where = ".".join(str(part) for part in problem["loc"]) or "configuration"
        if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            known = _known_keys(problem["loc"][:-1])
            nearest = difflib.get_close_matches(str(problem["loc"][-1]), known, n=1, cutoff=0.0)
            lines.append(f"  {where}: unknown key; the nearest known one is {nearest[0]!r}")
        else:
            lines.append(f"  {where}: {problem['msg']}, got {problem['input']!r}")
    return lines


def _known_keys(section: tuple[int | str, ...]) -> list[str]:
    schema = TypeAdapter(FederationConfig).json_schema()
    found = schema
    for part in section:
        found = found["properties"][part]
        if "$ref" in found:
            found = schema["$defs"][found["$ref"].rpartition("/")[2]]
    return sorted(found["properties"])
