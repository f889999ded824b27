"""Compute one run: train its rounds, evaluate in between, and continue where an earlier process was cut off."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.home.versions import AdapterVersions
from fedaigc.device.training.encoded_cache import encoded_images
from fedaigc.device.training.local_round import personal_round
from fedaigc.diffusion.adapters.stages import Adapter, SharedState, Stage
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.board import Board
from fedaigc.federation.output.checkpoint import load_checkpoint
from fedaigc.federation.output.records import RunRecord, read_record
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.progress import Progress
from fedaigc.federation.runtime.launcher import run_in_process
from fedaigc.federation.server.initial_state import prepared
from fedaigc.federation.server.server_rule import server_rule
from fedaigc.federation.wire.messages import read_train, train_record
from fedaigc.rng import numpy_rng
from fedaigc.storage.atomic_file import read_json, write_json
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received, Rule
from fedaigc.study.design.clients import StudyClient, participants, split_clients
from fedaigc.study.design.runs import RunSpec, Split
from fedaigc.study.execute.evaluation import Evaluator
from fedaigc.study.execute.homes import StudyData
from fedaigc.study.execute.kept_pictures import keep_pictures
from fedaigc.study.execute.picture_distance import Galleries
from fedaigc.study.results.summary import MODES, Mode

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

Report = Callable[[str, float], None]


class Execution:
    """One run in its folder.

    Args:
        run: The run.
        work: The work folder of the study.
        report: Called with what is being computed and the share of the run that is done.
    """

    def __init__(self, run: RunSpec, work: Path, report: Report) -> None:
        self._run, self._report, self._work = run, report, work
        self.folder = run_folder(work, run)
        self._config = prepared(run.config(self.folder))
        self._clients: Sequence[StudyClient] = split_clients(run.data)
        self._trained = participants(self._clients)
        report("pictures", 0.0)
        self._pipe: DiffusionPipeline
        self._pipe, base_hash = base_model(self._config.model)
        self._base_hash = base_hash
        self._data = StudyData(work, run, self._clients, self._config.model, self._pipe, base_hash)

    def compute(self) -> dict[str, Any]:
        """Compute the run, and return what its record holds in addition to the run itself.

        Raises:
            UserError: Training failed; the message has the server's reason.
        """
        compute = {"base": self._base, "personal": self._personal}.get(self._run.kind, self._federated)
        return {"base": self._base_hash, "clients": self._told_clients(), **compute()}

    def _evaluator(
        self, stage: Stage = Stage.SHARED, split: Split | None = None, images: int | None = None
    ) -> Evaluator:
        evaluation = self._run.evaluation
        return Evaluator(
            self._pipe,
            self._data.pictures(split or evaluation.split, images or evaluation.images),
            boundary_log_snr=self._boundary(),
            count=evaluation.triples,
            seed=self._run.data.seed,
            stage=stage,
        )

    def _boundary(self) -> float | None:
        timestep = self._config.adapter.boundary_timestep
        return None if timestep is None else boundary_log_snr(self._pipe, timestep)

    def _base(self) -> dict[str, Any]:
        evaluator = self._evaluator()
        losses = [evaluator.shared_loss(None, client.index) for client in self._clients]
        evaluation: dict[str, Any] = {"round": 0, "collaborative": losses, "device": losses}
        if (validator := self._validator()) is not None:
            own = [validator.shared_loss(None, client.index) for client in self._clients]
            evaluation["validation"] = {"collaborative": own, "device": own}
        if self._run.evaluation.gallery:
            galleries = self._galleries()
            drawn = galleries.draw(lambda client: None, self._in_gallery)
            self._keep(galleries, {"collaborative": drawn})
            if self._run.data.own is None:
                found = galleries.distances(drawn)
                evaluation["gallery"] = {"collaborative": found, "device": found, "real": galleries.floor()}
        return {"evaluations": [evaluation]}

    def _validator(self) -> Evaluator | None:
        """The evaluator of validation pictures; None where runs are not evaluated on them."""
        count = self._run.evaluation.validation_images
        return self._evaluator(split="validation", images=count) if count else None

    def _keep(self, galleries: Galleries, drawn: Mapping[Mode, Sequence["Image.Image"]]) -> None:
        if self._run.keep_pictures:
            keep_pictures(self._work, self._run.id, drawn, galleries.captions())

    def _galleries(self) -> Galleries:
        return Galleries(
            self._pipe,
            self._base_hash,
            self._config.model,
            self._trained,
            self._run.evaluation,
            boundary_log_snr=self._boundary(),
            seed=self._run.data.seed,
        )

    def _in_gallery(self, share: float) -> None:
        self._report("gallery", share)

    def _federated(self) -> dict[str, Any]:
        config, evaluator, validator = self._config, self._evaluator(), self._validator()
        self._data.homes(config.homes)
        evaluations = []
        for number in self._run.evaluation.rounds:
            path = self.folder / f"evaluation-{number:06d}.json"
            found = read_json(path)
            if found is None:
                upto = config.rounds.model_copy(update={"count": number})
                run_in_process(config.model_copy(update={"rounds": upto}), self._in_round)
                self._report(f"evaluation after round {number}", number / config.rounds.count)
                found = self._evaluated(evaluator, validator, number)
                write_json(path, found)
            evaluations.append(found)
        record = read_record(config.output)
        rule = load_strategy(config.rounds.strategy, config.rounds.options)
        return {
            "traits": asdict(rule.traits),
            "evaluations": evaluations,
            "shared_hash": record.shared_hash,
            **({"dp": asdict(record.dp)} if record.dp is not None else {}),
            **self._rounds(record),
        }

    def _in_round(self, told: Progress) -> None:
        number = told.stage.round
        if number is not None:
            share = (number - 1 + told.done / told.total) / self._config.rounds.count
            self._report(f"round {number}", share)

    def _rounds(self, record: RunRecord) -> dict[str, Any]:
        # a baseline is no federation: the size of its messages has no meaning
        counted = self._run.kind == "strategy"
        directions = ("up", "down") if counted else ()
        rounds: list[dict[str, Any]] = [
            {
                "round": done.round,
                "clients": len(done.num_examples),
                "refused": {str(client): reason for client, reason in done.refused.items()},
                "seconds": done.seconds,
                **{name: sum(done.sent_bytes[name].values()) for name in directions},
            }
            for done in record.rounds
        ]
        found = {"rounds": rounds, "seconds": round(sum(done["seconds"] for done in rounds), 1)}
        if counted:
            found["bytes"] = {name: sum(done[name] for done in rounds) for name in ("up", "down")}
        return found

    def _evaluated(self, evaluator: Evaluator, validator: Evaluator | None, number: int) -> dict[str, Any]:
        """The losses of both modes after a round, by client; None for a mode without a model."""
        config = self._config
        held = load_checkpoint(config)
        if held is None or held.round != number:
            raise RuntimeError(f"expected a checkpoint of round {number}")
        evaluator.forget()
        rule = server_rule(config)
        rule.load(held.rule_state)
        states: dict[Mode, Callable[[StudyClient], SharedState]] = {}
        if rule.traits.edge and self._run.kind != "local only":
            states["collaborative"] = lambda client: held.shared
        differs = rule.traits.personal or _rounds_down(config) or not states
        if self._run.kind != "pooled" and differs:
            states["device"] = lambda client: self._own(rule, held.shared, client, number + 1)
        losses = {
            mode: [evaluator.shared_loss(state(client), client.index) for client in self._clients]
            for mode, state in states.items()
        }
        if config.rounds.tensorboard:
            with Board(config.output, enabled=True) as board:
                board.add(number, {f"loss/{mode}": sum(v) / len(v) for mode, v in losses.items()})
        found: dict[str, Any] = {"round": number, **_both_modes(losses)}
        if validator is not None:
            validator.forget()
            found["validation"] = _both_modes(
                {
                    mode: [validator.shared_loss(state(client), client.index) for client in self._clients]
                    for mode, state in states.items()
                }
            )
        if self._run.evaluation.gallery and number == self._run.evaluation.rounds[-1]:
            galleries = self._galleries()
            drawn = {mode: galleries.draw(state, self._in_gallery) for mode, state in states.items()}
            self._keep(galleries, drawn)
            if self._run.data.own is None:
                measured = {mode: galleries.distances(images) for mode, images in drawn.items()}
                found["gallery"] = _both_modes(measured)
        return found

    def _own(self, rule: Rule, shared: SharedState, client: StudyClient, number: int) -> SharedState:
        """The state that the client's device would run by itself at the start of round `number`.

        A new client has no memory, and the largest rank.
        """
        config = self._config
        if client.new:
            client_id, rank = config.num_clients + client.index, config.adapter.rank
        else:
            client_id = self._trained.index(client)
            rank = config.rank(client_id)
        received = rule.download(shared, client_id, rank, number)
        received = _as_sent(received, config, number, client_id)
        if client.new:
            return rule.own(received, {})
        versions = AdapterVersions(Home.open(config.home(client_id)))
        return rule.own(received, versions.before(config.name, number)[1])

    def _personal(self) -> dict[str, Any]:
        """The personal stage of each client, round by round as in a federation; its loss before and after."""
        config, boundary = self._config, self._boundary()
        if boundary is None or not config.training.personal_steps:
            raise UserError(
                'personal = "once" needs training.personal_steps and adapter.boundary_timestep: without them '
                "there is no personal stage"
            )
        self._data.homes(config.homes)
        trained: dict[int, Adapter] = {}
        count = config.rounds.count
        for client_id, client in enumerate(self._trained):
            device = Device(
                config.home(client_id), self._pipe, base_hash=self._base_hash, taxonomy=taxonomy()
            )
            images = encoded_images(
                device.images,
                self._pipe,
                self._base_hash,
                config.model.height,
                config.model.width,
                config.training.aspect_buckets,
            )
            seed = Home.open(config.home(client_id)).seed
            held, _ = device.versions.latest(config.name)
            for number in range(device.versions.last_round(config.name) + 1, count + 1):
                self._report(f"client {client.index}", (client_id + number / count) / len(self._trained))
                held, _ = personal_round(
                    self._pipe,
                    held,
                    images,
                    config.training,
                    boundary_log_snr=boundary,
                    seed=seed,
                    round=number,
                    rank=config.adapter.rank,
                    target_modules=config.adapter.target_modules,
                )
                device.versions.save_round(config.name, number, held)
            if held is not None:
                trained[client.index] = held
        evaluator = self._evaluator(Stage.PERSONAL)
        before = [evaluator.personal_loss(None, client.index) for client in self._clients]
        after = [
            evaluator.personal_loss(trained[client.index], client.index) if client.index in trained else None
            for client in self._clients
        ]
        return {"evaluations": [{"round": count, "personal base": before, "personal": after}]}

    def _told_clients(self) -> list[dict[str, Any]]:
        """All clients as the record lists them."""
        ids = {client.index: at for at, client in enumerate(self._trained)}
        told = []
        for client in self._clients:
            entry = {
                "client": client.index,
                "new": client.new,
                "images": client.num_images,
                "composition": client.composition(),
            }
            if not client.new and self._run.kind in ("strategy", "local only"):
                client_id = ids[client.index]
                entry["steps"] = self._config.local_steps(client_id)
                entry["rank"] = self._config.rank(client_id)
            told.append(entry)
        return told


def run_folder(work: Path, run: RunSpec) -> Path:
    """Return the folder in which a run keeps homes, checkpoint and log until it is done."""
    return work / "runs" / run.id


def clear(run: RunSpec, work: Path) -> None:
    """Delete what a finished run no longer needs; the personal adapters of a "personal" run stay."""
    folder = run_folder(work, run)
    shutil.rmtree(folder / "federation", ignore_errors=True)
    if run.kind != "personal":
        shutil.rmtree(folder / "homes", ignore_errors=True)


def _both_modes(found: Mapping[Mode, Any]) -> dict[str, Any]:
    """Add the missing modes: None without any model, the edge's values for a device that runs the same model."""
    return {name: found.get(name, found.get("collaborative")) for name in MODES}


def _rounds_down(config: FederationConfig) -> bool:
    """Whether devices receive the state in another number format than the edge holds."""
    return config.rounds.download_format != "float32"


def _as_sent(received: Received, config: FederationConfig, number: int, client_id: int) -> Received:
    if not _rounds_down(config):
        return received
    random = numpy_rng(config.seed, "download", number, client_id)
    code = strategy_code(config.rounds.strategy)
    return read_train(train_record(received, config.rounds.download_format, random, code))
