"""Federated training: rounds of local steps on the devices and aggregation on the server."""

from collections.abc import Callable
from dataclasses import dataclass

from flwr.app import RecordDict

from fedaigc.device.report import Failure
from fedaigc.diffusion.adapters import SharedState
from fedaigc.errors import UserError
from fedaigc.federation.arrays import manifest_of
from fedaigc.federation.config import FederationConfig
from fedaigc.federation.flower import RefusedUpdate, read_update
from fedaigc.federation.messages import Ask, shared_state_record
from fedaigc.federation.roster import Roster
from fedaigc.federation.rule import Rule, Update
from fedaigc.rng import numpy_rng


@dataclass(frozen=True)
class RoundRecord:
    """What happened in a round.

    `refused` maps partitions to reasons, `metrics` partitions to their numbers.
    """

    round: int
    sampled: tuple[int, ...]
    refused: dict[int, str]
    num_examples: dict[int, int]
    metrics: dict[int, dict[str, float]]
    shared_hash: str


def run_rounds(
    roster: Roster,
    shared: SharedState,
    rule: Rule,
    config: FederationConfig,
    on_round: Callable[[RoundRecord, SharedState], None],
) -> SharedState:
    """Run `config.rounds.count` rounds from `shared` and return the state after the last.

    Updates are folded in partition order; one that is refused leaves the round without it. `on_round` is
    called after each round, with its record and the new state.

    Raises UserError when a round has no update at all.
    """
    for number in range(1, config.rounds.count + 1):
        label = f"round {number} of {config.rounds.count}"
        sampled = sample_partitions(roster.partitions, config, number)
        orders = {
            partition: shared_state_record(rule.download(shared, partition), round=number)
            for partition in sampled
        }
        updates, refused = _collect(roster.ask(Ask.TRAIN, orders, label), shared, rule)
        if not updates:
            reasons = "\n".join(f"  {reason}" for reason in refused.values())
            raise UserError(f"round {number}: no client sent an update that could be used:\n{reasons}")
        rule.start(shared)
        for update in updates:
            rule.add(update)
        shared = rule.finish()
        record = RoundRecord(
            round=number,
            sampled=tuple(sampled),
            refused=refused,
            num_examples={update.partition: update.num_examples for update in updates},
            metrics={update.partition: dict(update.metrics) for update in updates},
            shared_hash=shared.hash(),
        )
        on_round(record, shared)
    return shared


def sample_partitions(partitions: list[int], config: FederationConfig, number: int) -> list[int]:
    """The partitions of a round, sorted; drawn from the run's own stream, the same for the same seed."""
    wanted = config.rounds.clients
    if wanted is None or wanted >= len(partitions):
        return sorted(partitions)
    chosen = numpy_rng(config.seed, "sampling", number).choice(sorted(partitions), wanted, replace=False)
    return sorted(int(partition) for partition in chosen)


def _collect(
    replies: dict[int, RecordDict | Failure], shared: SharedState, rule: Rule
) -> tuple[list[Update], dict[int, str]]:
    expected = manifest_of(rule.upload(rule.begin(shared)))
    updates: list[Update] = []
    refused: dict[int, str] = {}
    for partition, reply in sorted(replies.items()):
        if isinstance(reply, Failure):
            refused[partition] = f"partition {partition}: {reply.value}"
            continue
        try:
            updates.append(read_update(reply, partition, expected))
        except RefusedUpdate as error:
            refused[partition] = str(error)
    return updates, refused
