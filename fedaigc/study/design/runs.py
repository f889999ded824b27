"""One run of a study: everything that decides its result, the id derived from it, and its federation."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from fedaigc.diffusion.adapters.lora_folder import lora_digest
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.strategy.sources import is_file
from fedaigc.study.design.clients import DataSpec, StudyClient, local_steps, participants
from fedaigc.study.design.config import StrategySection, StudyConfig, Value
from fedaigc.study.design.own_data import PLACES
from fedaigc.study.design.section import Section
from fedaigc.study.execute.provenance import code_of, model_fingerprint

Kind = Literal["strategy", "base", "pooled", "local only", "personal"]
Split = Literal["test", "validation"]
# names, bookkeeping and storage of a run; all other fields decide its result
_NAMES = {
    "study",
    "label",
    "partition",
    "purpose",
    "values",
    "tuning",
    "work_units",
    "keep_work",
    "keep_pictures",
}
_PATHS = {"homes", "output", "name", "backend", "workers", "resume", "generation"}
# with a single client, the mean is that client's own update
_BASELINE_RULES = {"pooled": "fedit", "local only": "local_only"}


class EvaluationSpec(Section):
    """The evaluation of a run: on which triples, after which rounds, and with which gallery.

    Attributes:
        split: The split of the evaluation images.
        triples: Triples per client.
        images: Evaluation images per client.
        rounds: Rounds after which the run is evaluated.
        gallery: Images that the run draws after the last round; 0 for none.
        gallery_steps: Denoising steps of these images.
        gallery_guidance: Guidance scale of these images.
        validation_images: Validation images per client that a reported run is evaluated on as well; 0 for none.
    """

    split: Split
    triples: int
    images: int
    rounds: tuple[int, ...]
    gallery: int = 0
    gallery_steps: int = 0
    gallery_guidance: float = 0.0
    validation_images: int = 0


class RunSpec(Section):
    """One run, as the process that computes it receives it.

    Attributes:
        study: Name of the study.
        kind: What is run: a strategy, a baseline, or the personal stage.
        purpose: "report" for the tables, "trial" for tuning.
        label: Name of the row.
        partition: Name of the partition.
        seed: Seed of the run; None for the base, for which nothing is drawn.
        data: The clients.
        federation: A `FederationConfig` as JSON values, without paths.
        evaluation: The evaluation.
        code: What decides the result besides the configuration: see `code_of`.
        model: Fingerprint of the base model.
        values: The tuned values, which `federation` contains.
        tuning: How the values were chosen, for the record.
        work_units: Local steps times their cost, for the time estimate.
        keep_work: Whether to keep homes and checkpoints when the run is done.
        keep_pictures: Whether to keep the pictures of the gallery, for measures that are computed from them.
    """

    study: str
    kind: Kind
    purpose: Literal["report", "trial"]
    label: str
    partition: str
    seed: int | None
    data: DataSpec
    federation: dict[str, Any]
    evaluation: EvaluationSpec
    code: dict[str, str]
    model: str
    values: dict[str, Value] = Field(default_factory=dict)
    tuning: dict[str, Any] | None = None
    work_units: float = 0.0
    keep_work: bool = False
    keep_pictures: bool = False

    @property
    def hash(self) -> str:
        """The fingerprint of everything that decides the result."""
        # defaults are left out, so that a key that a later version adds does not invalidate all records
        values = self.model_dump(mode="json", exclude=_NAMES, exclude_defaults=True)
        values["federation"] = self._deciding()
        if self.data.own is not None:
            # own pictures count by their digest, not by the location of their files
            for name in PLACES:
                values["data"]["own"].pop(name, None)
        if self.kind in ("base", "personal"):
            values["code"] = {"epoch": self.code["epoch"]}  # independent of the rule
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]

    def _deciding(self) -> dict[str, Any]:
        """The part of the federation that this kind of run depends on."""
        config = self.config(Path())
        # a model counts by its fingerprint, not by the location of its files
        found: dict[str, Any] = json.loads(config.model_dump_json(exclude=_PATHS, exclude_defaults=True))
        for section, free in (("model", "name"), ("rounds", "tensorboard")):
            found.get(section, {}).pop(free, None)
        found = {section: value for section, value in found.items() if value != {}}
        if is_file(config.rounds.strategy):
            # its code counts, not its location
            found["rounds"]["strategy"] = Path(config.rounds.strategy).name
        if config.adapter.start_from is not None:
            found["adapter"]["start_from"] = lora_digest(config.adapter.start_from)
        if config.clients.local_steps is not None:
            found.get("training", {}).pop("local_steps", None)
        if self.kind == "base":
            return {"model": found.get("model"), "boundary": config.adapter.boundary_timestep}
        if self.kind == "personal":
            alone = {"boundary": config.adapter.boundary_timestep, "rank": config.adapter.rank}
            alone |= {"rounds": config.rounds.count, "seed": config.seed}
            # the layers of a personal adapter follow from these
            for name in ("target_modules", "start_from"):
                if name in found.get("adapter", {}):
                    alone[name] = found["adapter"][name]
            training = found.get("training", {})
            training.pop("local_steps", None)
            return {"model": found.get("model"), "training": training, **alone}
        return found

    @property
    def id(self) -> str:
        """A name for files: a readable prefix, made unique by the hash."""
        rule = Path(self.federation["rounds"]["strategy"]).stem if self.kind == "strategy" else self.kind
        seed = "" if self.seed is None else f"-seed{self.seed}"
        trial = "trial-" if self.purpose == "trial" else ""
        readable = re.sub(r"[^a-z0-9_]+", "-", f"{trial}{rule}-{self.partition}".lower())
        return f"{readable}{seed}-{self.hash}"

    def config(self, folder: Path) -> FederationConfig:
        """Return the federation's configuration with homes, checkpoint and record in `folder`."""
        return parse_config(
            {**self.federation, "homes": folder / "homes", "output": folder / "federation", "resume": True}
        )


def base_run(study: StudyConfig, partition: str) -> RunSpec:
    """Return the run of the untouched base model on the clients of a partition."""
    federation = _federation(study, {}, [])
    evaluation = _evaluation(study, "test", rounds=(0,))
    return _spec(study, "base", "base", partition, None, federation, evaluation, work_units=0)


def personal_run(study: StudyConfig, partition: str, clients: list[StudyClient], seed: int) -> RunSpec:
    """Return the run of every client's personal stage under a seed, which does not depend on the rule."""
    federation = _federation(study, {}, participants(clients))
    federation["training"]["personal_steps"] = study.training.personal_steps
    units = len(participants(clients)) * study.training.personal_steps * study.rounds.count
    evaluation = _evaluation(study, "test", rounds=(study.rounds.count,))
    evaluation = evaluation.model_copy(update={"gallery": 0, "validation_images": 0})
    return _spec(study, "personal", "personal", partition, seed, federation, evaluation, work_units=units)


def row_run(
    study: StudyConfig,
    row: StrategySection | str,
    partition: str,
    clients: list[StudyClient],
    seed: int,
    values: Mapping[str, Value],
    *,
    trial: bool,
    tuning: Mapping[str, Any] | None = None,
) -> RunSpec:
    """Return a run of a strategy, or of the baseline "pooled" or "local only".

    Args:
        study: The study.
        row: The strategy, or the name of the baseline.
        partition: Name of the partition.
        clients: The clients of the partition.
        seed: Seed of the run.
        values: The tuned values by key.
        trial: Whether the run is a trial, evaluated on the validation split after its last round only.
        tuning: How the values were chosen, for the record.

    Raises:
        UserError: A federation cannot have these values.
    """
    trained = participants(clients)
    strategy = StrategySection(name=_BASELINE_RULES[row]) if isinstance(row, str) else row
    settings = {**strategy.settings, **{f"options.{key}": value for key, value in strategy.options.items()}}
    settings |= values
    federation = _federation(study, settings, trained, strategy)
    steps = federation["clients"]["local_steps"]
    share = (study.rounds.clients or len(trained)) / len(trained)  # share of the clients that a round draws
    if row == "pooled":
        steps = [round(sum(steps) * share)]
        federation |= {"num_clients": 1, "clients": {"ranks": None, "local_steps": steps}}
        federation["rounds"] |= {"clients": None, "dropout_rate": 0.0}
    rounds = study.rounds.count
    if trial and study.tuning is not None:
        rounds = strategy.tuning_rounds or study.tuning.rounds or rounds
    federation["rounds"]["count"] = rounds
    parse_config({**federation, "homes": "homes", "output": "out"})
    every = study.evaluation.every
    evaluated = (rounds,) if trial else tuple(sorted({*range(every, rounds + 1, every), rounds}))
    return _spec(
        study,
        row if isinstance(row, str) else "strategy",
        row if isinstance(row, str) else strategy.row,
        partition,
        seed,
        federation,
        _evaluation(study, "validation" if trial else "test", evaluated),
        trial=trial,
        values=dict(values),
        tuning=dict(tuning) if tuning is not None else None,
        work_units=sum(steps) * rounds * (1 if isinstance(row, str) else strategy.cost * share),
    )


def _spec(
    study: StudyConfig,
    kind: Any,
    label: str,
    partition: str,
    seed: int | None,
    federation: dict[str, Any],
    evaluation: EvaluationSpec,
    *,
    work_units: float,
    trial: bool = False,
    values: dict[str, Value] | None = None,
    tuning: dict[str, Any] | None = None,
) -> RunSpec:
    federation["seed"] = seed or 0
    return RunSpec(
        study=study.name,
        kind=kind,
        purpose="trial" if trial else "report",
        label=label,
        partition=partition,
        seed=seed,
        data=DataSpec.of(study.clients, study.clients.partitions[partition]),
        federation=federation,
        evaluation=evaluation,
        code=code_of(federation["rounds"]["strategy"]),
        model=model_fingerprint(study.model.name),
        values=values or {},
        tuning=tuning,
        work_units=work_units,
        keep_work=study.keep_work,
        keep_pictures=study.keeps_pictures,
    )


def _evaluation(study: StudyConfig, split: Split, rounds: tuple[int, ...]) -> EvaluationSpec:
    section = study.evaluation
    images = section.test_images if split == "test" else section.validation_images
    spec = EvaluationSpec(split=split, triples=section.triples, images=images, rounds=rounds)
    if split == "test" and study.clients.data is not None:
        spec = spec.model_copy(update={"validation_images": section.validation_images})
    if split != "test" or not section.gallery:
        return spec
    drawn = {name: getattr(section, name) for name in ("gallery", "gallery_steps", "gallery_guidance")}
    return spec.model_copy(update=drawn)


def _federation(
    study: StudyConfig,
    settings: Mapping[str, Any],
    trained: list[StudyClient],
    strategy: StrategySection | None = None,
) -> dict[str, Any]:
    """The configuration of a federation as JSON values, without paths."""
    rounds = study.rounds if trained else study.rounds.model_copy(update={"clients": None})
    whole = FederationConfig(
        homes=Path("homes"),
        output=Path("out"),
        num_clients=max(1, len(trained)),
        model=study.model,
        adapter=study.adapter,
        rounds=rounds,
        training=study.training,
    )
    found: dict[str, Any] = json.loads(whole.model_dump_json(exclude=_PATHS))
    found["generation"] = {"enabled": False}
    if study.personal != "each run":
        found["training"]["personal_steps"] = 0
    found["rounds"] |= {"strategy": strategy.name if strategy is not None else "fedit", "options": {}}
    for key, value in settings.items():
        section, _, name = key.partition(".")
        (found["rounds"]["options"] if section == "options" else found[section])[name] = value
    training = found["training"]
    steps = [
        local_steps(study.clients, client, training["batch_size"], training["local_steps"])
        for client in trained
    ]
    found["clients"] = {"ranks": None, "local_steps": steps or None}
    if strategy is not None and strategy.mixed_ranks:
        ranks = study.clients.ranks or ()
        found["clients"]["ranks"] = [ranks[client.index] for client in trained]
        _scale_alpha(found["adapter"], max(found["clients"]["ranks"]))
    return found


def _scale_alpha(adapter: dict[str, Any], rank: int) -> None:
    """Set another rank and keep the scale s = alpha / rank."""
    if adapter["alpha"] is not None:
        adapter["alpha"] *= rank / adapter["rank"]
    adapter["rank"] = rank
