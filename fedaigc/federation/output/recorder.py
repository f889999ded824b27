"""The results of a run in its output folder: `record.json` with configuration and figures, and the shared state."""

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fedaigc.collaboration.results import Outcome
from fedaigc.counting import counted, were
from fedaigc.diffusion.adapters.shared_state_file import read_shared_state, write_shared_state
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import (
    RECORD,
    GenerationRecord,
    RoundNoise,
    RoundRecord,
    Rounds,
    RunRecord,
    read_record,
)
from fedaigc.storage.private_files import close_files
from fedaigc.strategy.accountant import Spent, account

SHARED_STATE = "shared-state.safetensors"
_PACKAGES = ("fedaigc", "flwr", "torch", "diffusers", "peft", "transformers")


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that the figures depend on."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


class RunRecorder:
    """Keeps the record of a run on disk, and writes every change immediately, so that a killed run shows its progress.

    Args:
        config: The configuration of the run.
        kept_rounds: Number of rounds of the existing record that a resumed run keeps. The privacy loss of dropped
            rounds still counts, because their means may have been sent.
    """

    def __init__(self, config: FederationConfig, kept_rounds: int = 0) -> None:
        config.output.mkdir(parents=True, exist_ok=True)
        # restrict the modes of files that an earlier version wrote, because they are appended to
        close_files(config.output, "*.jsonl", "*.json", "*.safetensors")
        self._output = config.output
        rounds: tuple[RoundRecord, ...] = ()
        repeated: tuple[RoundNoise, ...] = ()
        earlier: tuple[GenerationRecord, ...] = ()
        if kept_rounds or (config.resume and (config.output / RECORD).exists()):
            before = read_record(config.output)
            rounds = before.rounds.root[:kept_rounds]
            dropped = before.rounds.root[kept_rounds:]
            repeated = (*before.repeated_dp, *(done.dp for done in dropped if done.dp is not None))
            # a resumed run serves the prompts that wait now; earlier generations remain in the record
            drawn = (*before.earlier_generations, *([before.generation] if before.generation else ()))
            earlier = tuple(each for each in drawn if each.groups) if kept_rounds else ()
        self._record = RunRecord(
            status="running",
            config=json.loads(config.model_dump_json(exclude={"run_id"})),
            versions=versions(),
            rounds=Rounds(rounds),
            earlier_generations=earlier,
            repeated_dp=repeated,
        )
        self.update(dp=self._spent(rounds))

    @property
    def output(self) -> Path:
        """The folder of the run."""
        return self._output

    @property
    def rounds(self) -> Rounds:
        """The rounds so far, those before a resumed run included."""
        return self._record.rounds

    def update(self, **values: Any) -> None:
        """Set values of the record and write the file."""
        self._record = self._record.model_copy(update=values)
        self._record.write(self._output)

    def add_round(self, done: RoundRecord) -> None:
        """Append the record of a round, with the privacy loss so far if the round added noise."""
        rounds = (*self._record.rounds, done)
        spent = self._spent(rounds)
        if done.dp is not None:
            rounds = (*rounds[:-1], done.model_copy(update={"dp": RoundNoise.of(done.dp.release, spent)}))
        self.update(rounds=Rounds(rounds), dp=spent)

    def _spent(self, rounds: Sequence[RoundRecord]) -> Spent | None:
        means = [done.dp.release for done in rounds if done.dp is not None]
        return account(means, [noise.release for noise in self._record.repeated_dp])


def refusals(record: RunRecord) -> list[str]:
    """Return one line for each client that was left out of the run, of rounds or of the generation."""
    lines = [f"left out of the run: {entry.reason}" for entry in record.refused]
    lines += [f"never connected: the device of client {client}" for client in record.absent]
    if record.fell_back:
        lines.append(f"resumed from round {record.fell_back.to_round}: {record.fell_back.reason}")
    if record.stopped:
        lines.append(f"ended after {counted(len(record.rounds), 'round')}: {record.stopped}")
    rounds: dict[str, list[int]] = {}
    for done in record.rounds:
        for reason in done.refused.values():
            rounds.setdefault(reason, []).append(done.round)
        if done.rejected:
            lines.append(f"round {done.round} did not change the shared state: {done.rejected}")
        if done.fell_back_to is not None:
            lines.append(
                f"round {done.round}: devices diverged, and the state of round {done.fell_back_to} was restored"
            )
    capped = {
        (client, done.num_examples[client], weight)
        for done in record.rounds
        for client, weight in done.capped.items()
    }
    lines += [
        f"client {client} reported {counted(claimed, 'picture')} and had the weight of {weight}"
        for client, claimed, weight in sorted(capped)
    ]
    lines += [
        f"left out of round{'s' if len(numbers) > 1 else ''} {', '.join(map(str, numbers))}: {reason}"
        for reason, numbers in rounds.items()
    ]
    generation = record.generation
    if generation is None:
        return lines
    for client, failure in generation.refused.items():
        lines.append(f"no prompts were received from client {client}: {failure}")
    for client, count in generation.unreadable.items():
        lines.append(
            f"{counted(count, 'prompt')} of client {client} cannot be read: see `fedaigc device queue`"
        )
    lines += _other_atlases(generation)
    if line := _refused_packets(generation, record.config):
        lines.append(line)
    lines += [
        f"a prompt of client {task.client} was not drawn: {task.failure}"
        for task in generation.tasks
        if task.failure
    ]
    return lines


def _other_atlases(generation: GenerationRecord) -> list[str]:
    """Return a line for each device that disclosed nodes of another atlas than the run's, and ran alone by it."""
    found: Counter[tuple[int, str]] = Counter()
    for task in generation.tasks:
        told = task.disclosed.get("atlas") if task.disclosed is not None else None
        if generation.atlas is not None and isinstance(told, str) and told != generation.atlas:
            found[task.client, told] += 1
    return [
        f"{count} prompt(s) of client {client} ran alone: its device has atlas {told[:16]}, and the run "
        f"{str(generation.atlas)[:16]}. Give the device the run's file (`fedaigc device start --atlas FILE`), or name "
        "the device's in generation.denoiser.atlas; `fedaigc atlas show` prints the hash of a file"
        for (client, told), count in sorted(found.items())
    ]


def _refused_packets(generation: GenerationRecord, config: Mapping[str, Any]) -> str:
    """Return a line on the packets that crossed the link in vain; "" if there are none."""
    sent = [task for task in generation.tasks if task.link is not None]
    refused = [task for task in sent if task.outcome is not Outcome.SHARED]
    if not refused:
        return ""
    line = (
        f"{len(refused)} of {counted(len(sent), 'packet')} {were(len(refused))} refused after the link, and their "
        "shared steps were in vain"
    )
    if config.get("generation", {}).get("delivery") == "strict":
        line += (
            ': with generation.delivery = "strict" no bit may be wrong; choose "tolerant", or a better link'
        )
    return line


def save_shared_state(shared: SharedState, output: Path) -> Path:
    """Write the shared state into a run's folder."""
    path = output / SHARED_STATE
    write_shared_state(path, shared)
    return path


def load_shared_state(output: Path) -> SharedState:
    """Return the shared state in a run's folder.

    Raises:
        UserError: If there is none.
        DamagedFile: If it cannot be read.
    """
    path = output / SHARED_STATE
    if not path.is_file():
        raise UserError(f"no {SHARED_STATE} in {output}: give the output folder of a run that trained")
    return read_shared_state(path)
