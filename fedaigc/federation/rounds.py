"""Federated training: rounds of local steps on the devices and aggregation on the server."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from flwr.app import RecordDict

from fedaigc.device.report import Failure
from fedaigc.diffusion.adapters import SharedState
from fedaigc.errors import UserError
from fedaigc.federation.accountant import Release
from fedaigc.federation.config import FederationConfig
from fedaigc.federation.messages import Ask, ClientOrder, read_train, train_record
from fedaigc.federation.read_update import RefusedUpdate, read_update
from fedaigc.federation.roster import Roster
from fedaigc.federation.rule import Rule
from fedaigc.federation.strategy_code import strategy_code
from fedaigc.rng import derived_seed, numpy_rng

_PAUSE_S = 2.0
# a round that lost all its clients to these goes by; any other reason would come back in the next round
_PASSING = (Failure.LATE, Failure.DROPPED_OUT, Failure.UNREACHABLE)


@dataclass(frozen=True)
class RoundRecord:
    """What happened in a round.

    `refused` maps partitions to reasons, `metrics` partitions to their numbers. `sent_bytes` are the round's
    own, by direction and kind. `dp`: of a mean with noise, what it tells of one client.
    """

    round: int
    sampled: tuple[int, ...]
    refused: dict[int, str]
    num_examples: dict[int, int]
    metrics: dict[int, dict[str, float]]
    sent_bytes: dict[str, dict[str, int]]
    seconds: float
    shared_hash: str
    dp: Release | None = None


def run_rounds(
    roster: Roster,
    shared: SharedState,
    rule: Rule,
    config: FederationConfig,
    on_round: Callable[[RoundRecord, SharedState], None],
    *,
    first: int = 1,
) -> SharedState:
    """Run rounds `first` to `config.rounds.count` from `shared` and return the state after the last.

    Updates are folded in partition order as they come; one that is refused, late or lost leaves the round
    without it. `on_round` is called after each round, with its record and the new state.

    Raises UserError when no update of a round could be used for a reason that would come back.
    """
    section = config.rounds
    for number in range(first, section.count + 1):
        roster.admit()
        began, sent_before = time.monotonic(), roster.ledger.totals()
        sampled = sample_partitions(roster.partitions, config, number)
        received = {
            partition: rule.download(shared, partition, config.rank(partition), number)
            for partition in sampled
        }
        orders = {
            partition: train_record(
                received[partition],
                section.download_format,
                numpy_rng(config.seed, "download", number, partition),
                strategy_code(section.strategy),
                _client_order(config, partition, number),
            )
            for partition in sampled
        }
        if section.download_format != "float32":
            # what the clients have, rounding included: their updates count from there
            received = {partition: read_train(order) for partition, order in orders.items()}
        rule.start(shared, number)
        label = f"round {number} of {section.count}"
        refused: dict[int, str] = {}
        num_examples: dict[int, int] = {}
        metrics: dict[int, dict[str, float]] = {}
        hopeless = False
        for partition, reply in _asked(roster, orders, label, section.deadline_s):
            if isinstance(reply, Failure):
                refused[partition] = f"partition {partition}: {reply.value}"
                hopeless |= reply not in _PASSING
                continue
            try:
                update = read_update(reply, partition, received[partition], rule, section.upload_format)
            except RefusedUpdate as error:
                refused[partition] = str(error)
                hopeless = True
                continue
            num_examples[partition] = update.num_examples
            metrics[partition] = dict(update.metrics)
            rule.add(update)
        if hopeless and not num_examples:
            reasons = "\n".join(f"  {reason}" for reason in refused.values())
            raise UserError(f"round {number}: no client sent an update that could be used:\n{reasons}")
        shared = rule.finish()
        record = RoundRecord(
            round=number,
            sampled=tuple(sampled),
            refused=refused,
            num_examples=num_examples,
            metrics=metrics,
            sent_bytes=_increase(sent_before, roster.ledger.totals()),
            seconds=round(time.monotonic() - began, 3),
            shared_hash=shared.hash(),
            dp=rule.released,
        )
        on_round(record, shared)
    return shared


def _client_order(config: FederationConfig, partition: int, number: int) -> ClientOrder:
    """What one client is told of a round; the seeds of others do not follow from its own."""
    luck = numpy_rng(config.seed, "dropout", number, partition).random()
    return ClientOrder(
        shared_steps=config.shared_steps(partition),
        upload_seed=derived_seed(config.seed, "upload", number, partition),
        dropped_out=bool(luck < config.rounds.dropout_rate),
    )


def _asked(
    roster: Roster, orders: Mapping[int, RecordDict], label: str, deadline_s: float | None
) -> Iterator[tuple[int, RecordDict | Failure]]:
    """The replies to a round's orders, in partition order.

    Where no device can be reached, all are asked again until the deadline: a server that was cut off must not
    go through its rounds without anybody.
    """
    end = time.monotonic() + (deadline_s or 0.0)
    while True:
        failed: list[tuple[int, Failure]] = []
        replies = iter(roster.ask_each(Ask.TRAIN, orders, label, deadline_s))
        for partition, reply in replies:
            if reply is not Failure.UNREACHABLE:
                yield from failed
                yield partition, reply
                yield from replies
                return
            failed.append((partition, Failure.UNREACHABLE))
        if time.monotonic() + _PAUSE_S >= end:
            yield from failed
            return
        time.sleep(_PAUSE_S)


def sample_partitions(partitions: list[int], config: FederationConfig, number: int) -> list[int]:
    """The partitions of a round, sorted; drawn from the run's own stream, the same for the same seed."""
    wanted = config.rounds.clients
    if wanted is None or wanted >= len(partitions):
        return sorted(partitions)
    chosen = numpy_rng(config.seed, "sampling", number).choice(sorted(partitions), wanted, replace=False)
    return sorted(int(partition) for partition in chosen)


def _increase(
    before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]
) -> dict[str, dict[str, int]]:
    return {
        direction: {kind: after[direction][kind] - before[direction][kind] for kind in kinds}
        for direction, kinds in after.items()
    }
