"""Homes of simulated devices, a run over them, and its results."""

import json
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL import Image

from fedaigc.api.saved_model import model_section
from fedaigc.api.strategies import Strategy, named_strategy
from fedaigc.counting import counted
from fedaigc.data.partition import PartitionSettings
from fedaigc.device.home.gallery import Gallery
from fedaigc.device.home.home import Home, home_of
from fedaigc.device.provision import provision_pool, provision_scenes, scene_clients
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.errors import DamagedFile, UserError
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.output.earlier_runs import put_aside
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.output.records import RECORD, RoundRecord, Rounds, RunRecord, Tasks, read_record
from fedaigc.federation.output.run_summary import generation_lines
from fedaigc.federation.progress import OnProgress
from fedaigc.federation.progress_bars import progress_bars
from fedaigc.federation.runtime.launcher import simulate as run_federation
from fedaigc.federation.server.initial_state import prepared
from fedaigc.federation.stopping import OnRound, Stop, checked
from fedaigc.storage.atomic_file import read_json, write_json
from fedaigc.storage.file_lock import locked
from fedaigc.validation import validated

# in a folder of homes: the arguments that it was made with
_MADE = "scenes.json"
# settings that do not tell one run from another
_HOW_IT_RUNS = frozenset({"run_id", "backend", "workers", "client_gpus", "threads", "resume", "seeded_noise"})
_MAKING_LOCK = ".making.lock"


def scenes(
    homes: str | Path,
    *,
    clients: int = 8,
    images: int = 96,
    partition: str | Mapping[str, Any] | None = None,
    seed: int = 0,
    exist_ok: bool = False,
) -> Path:
    """Create homes of simulated devices with images of Scenes, as `fedaigc scenes` does.

    Example:
        >>> import fedaigc as fa
        >>> homes = fa.scenes("runs/scenes/homes", clients=2, images=4, exist_ok=True)
        >>> sorted(home.name for home in homes.iterdir() if home.is_dir())
        ['00', '01']

    Args:
        homes: Folder for the homes.
        clients: Number of devices.
        images: Images of a device, on average.
        partition: How one pool of images is divided: a kind ("style", "object", "dirichlet", "pathological",
            "iid"), or the settings of `PartitionSettings`. None: no pool, and each device draws in one style.
        seed: Seed of images and division.
        exist_ok: Whether to keep the homes of an earlier call with the same arguments.

    Returns:
        The folder of the homes.

    Raises:
        UserError: If homes exist and were made with other arguments, or `exist_ok` is False.
    """
    folder = Path(homes)
    settings, values = None, None
    if partition is not None:
        given = {"kind": partition} if isinstance(partition, str) else partition
        settings = validated(PartitionSettings, given, "the partition")
        values = settings.model_dump(mode="json")
    asked = {"clients": clients, "images": images, "partition": values, "seed": seed}
    with locked(folder / _MAKING_LOCK):
        if exist_ok and home_of(folder, 0).is_dir():
            _check_same(folder, asked)
            return folder
        if settings is None:
            provision_scenes(folder, scene_clients(clients, images), seed)
        else:
            provision_pool(folder, clients * images, settings, clients, seed)
        write_json(folder / _MADE, asked)
    return folder


def _check_same(folder: Path, asked: Mapping[str, Any]) -> None:
    made = read_json(folder / _MADE)
    if made != asked:
        raise UserError(
            f"{folder} holds homes of other arguments ({made or 'not made here'}), asked for was {asked}: choose a new "
            "folder, or remove it"
        )


def count_homes(folder: Path) -> int:
    """Return the number of homes 00, 01, ... in a folder."""
    count = 0
    while home_of(folder, count).is_dir():
        count += 1
    return count


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        config: Its configuration.
        record: All its figures.
    """

    config: FederationConfig
    record: RunRecord

    def __repr__(self) -> str:
        rounds, tasks = len(self.record.rounds), len(self.record.tasks)
        held = f"{counted(rounds, 'round')}, {counted(tasks, 'prompt')}"
        return f"<Run {self.config.name!r}, {self.record.status}: {held}, {self.output}>"

    @property
    def output(self) -> Path:
        """The folder of the run, with record.json and the shared state."""
        return self.config.output

    @property
    def rounds(self) -> Rounds:
        """The training rounds; `rounds.to_pandas()` has one row a round."""
        return self.record.rounds

    @property
    def tasks(self) -> Tasks:
        """The prompts that were served; `tasks.to_pandas()` has one row a prompt."""
        return self.record.tasks

    def summary(self) -> str:
        """Return what became of the prompts: the groups, what each device disclosed, and the steps that were saved.

        The lines of `fedaigc simulate`; empty if nothing was drawn.
        """
        return "\n".join(generation_lines(self.record, self.config.home))

    @cached_property
    def shared(self) -> SharedState:
        """The shared state after the last round; `fa.install(pipe, run.shared)` puts it into a pipeline."""
        shared = load_shared_state(self.output)
        if shared.hash() != self.record.shared_hash:
            raise UserError(
                f"{self.output} holds the shared state of a later run: give each run an `output` of its own"
            )
        return shared

    def images(self) -> dict[str, Image.Image]:
        """Return the images of all devices by task id, which only the owner of all devices can do."""
        found = {}
        for task in self.tasks:
            if task.failure is None:
                home = Home.open(self.config.home(task.client))
                found[task.task_id] = Gallery(home).image(task.task_id)
        return found


def simulate(
    homes: str | Path,
    *,
    strategy: Strategy = "fedavg",
    rounds: int | Mapping[str, Any] = 3,
    output: str | Path | None = None,
    seed: int = 0,
    model: str | Mapping[str, Any] | Pipeline | None = None,
    start_from: str | Path | None = None,
    target_modules: str | Sequence[str] | None = None,
    workers: int | None = None,
    progress: bool | OnProgress = True,
    on_round: OnRound | Sequence[OnRound] = (),
    **settings: Any,
) -> Run:
    """Run a federation over the homes in a folder: training rounds, then the prompts that wait there.

    The same call with the same homes repeats the run: its rounds begin anew. Prompts that were served are not served
    again. A run of other settings in `output` is moved into its folder `earlier`, with a warning.

    Example:
        >>> import fedaigc as fa
        >>> homes = fa.scenes("runs/simulate/homes", clients=2, images=4, exist_ok=True)
        >>> few = {"local_steps": 2, "personal_steps": 1}
        >>> run = fa.simulate(homes, strategy="fedit", rounds=2, training=few, progress=False)
        >>> [done.round for done in run.rounds], list(run.rounds.to_pandas()["clients"])
        ([1, 2], [2, 2])

    Args:
        homes: Folder of the homes 00, 01, ...
        strategy: A name, a file, or a class or an instance of your own.
        rounds: Number of rounds (0: no training), or the section `rounds` of a configuration.
        output: Folder for the results; default: the folder of the homes with "-run" appended.
        seed: Seed of the run.
        model: "embedded", a diffusers folder, a hub name, a pipeline, which is saved in `output` first, or the section
            `model` of a configuration. Default: "embedded".
        start_from: A LoRA folder or safetensors file of peft or diffusers, from which the shared adapter starts, with
            its rank, alpha and layers. Default: fresh factors.
        target_modules: The layers that the adapters train: names or their ends, or a regular expression, as in peft.
            Default: those of `start_from`, or the attention projections and the convolutions of the blocks.
        workers: Number of worker processes under Ray; None: one client after the other in this process.
        progress: Whether to show progress bars, or a function that is called with each step.
        on_round: One or several functions `(done, shared)`, called after each round with its `RoundRecord` and a
            copy of the shared state. If one returns `fa.Stop("reason")`, the rounds end, the last state is kept,
            and `run.record.stopped` has the reason. An exception ends the run as failed. Not with `workers`:
            the setting `rounds={"early_stopping": {...}}` works there too.
        **settings: Further keys of the configuration: sections as dicts, such as `training={"local_steps": 5}`,
            and values, such as `name="first"`. `fedaigc config` prints them all.

    Raises:
        UserError: If a setting is wrong, or the run failed.
    """
    folder = Path(homes)
    target = Path(f"{folder}-run") if output is None else Path(output)
    clients = count_homes(folder)
    if not clients:
        raise UserError(f"no homes in {folder}: expected folders 00, 01, ...; `scenes` creates some")
    name, options = named_strategy(strategy, target / "strategies")
    values: dict[str, Any] = {"num_clients": clients, **settings}
    section: Any = {"count": rounds} if isinstance(rounds, int) else rounds
    if not isinstance(section, Mapping):
        raise UserError(
            f"rounds is {rounds!r}: expected a number of rounds, or a dict such as {{'count': 3}}"
        )
    values["rounds"] = {"strategy": name, **section, "options": {**options, **section.get("options", {})}}
    if model is not None:
        values["model"] = model_section(model, target / "model")
    own = {"start_from": start_from, "target_modules": target_modules}
    values["adapter"] = {**values.get("adapter", {}), **{k: v for k, v in own.items() if v is not None}}
    if workers is not None:
        values |= {"backend": "ray", "workers": workers}
    config = parse_config({"homes": folder, "output": target, "seed": seed, **values})
    config = prepared(config.absolute())
    _keep_another(config)
    with reporting(progress) as told:
        record = run_federation(config, told, on_round=_together(on_round))
    return Run(config, record)


def _keep_another(config: FederationConfig) -> None:
    """Put a run of other settings in the output folder aside, and say so; the same run is repeated."""
    if config.resume or not (config.output / RECORD).exists():
        return
    try:
        before = read_record(config.output)
    except DamagedFile:
        return  # it is no record that could be lost
    now = json.loads(config.model_dump_json())
    same = all(before.config.get(key) == value for key, value in now.items() if key not in _HOW_IT_RUNS)
    if same or not (before.rounds or before.tasks):
        return
    warnings.warn(
        f"{config.output} held a run of other settings ({counted(len(before.rounds), 'round')}, "
        f"{counted(len(before.tasks), 'prompt')}): it is now in {put_aside(config.output)}; give each run an "
        "`output` of its own",
        stacklevel=3,
    )


def _together(functions: OnRound | Sequence[OnRound]) -> OnRound | None:
    """Return one function that calls all, and stops if one of them does."""
    every = (functions,) if callable(functions) else tuple(functions)

    def call(done: RoundRecord, shared: SharedState) -> Stop | None:
        answers = [checked(function(done, shared)) for function in every]
        return next((answer for answer in answers if answer is not None), None)

    return call if every else None


def reporting(progress: bool | OnProgress) -> Any:
    """Return a context with the function that is called with each step: progress bars, none, or the given one."""
    if progress is True:
        return progress_bars()
    return nullcontext(None if progress is False else progress)
