"""Federated training: rounds of local steps on the devices and aggregation on the server."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median_low

import torch
from flwr.app import RecordDict

from fedaigc.device.replies import Failure
from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import Diverged, UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.checkpoint import Checkpoint
from fedaigc.federation.output.records import RoundNoise, RoundRecord
from fedaigc.federation.progress import Stage, round_stage
from fedaigc.federation.server.client_logs import explained
from fedaigc.federation.server.edges.aggregation import EdgeRound
from fedaigc.federation.server.first_look import Reply, looked_at
from fedaigc.federation.server.roster import Roster
from fedaigc.federation.server.sampling import past_rounds, sample_clients
from fedaigc.federation.server.update_bounds import BeyondBounds, Sizes, UpdateBounds, groups_of, update_sizes
from fedaigc.federation.server.weighting import weight_limits
from fedaigc.federation.stopping import OnRound
from fedaigc.federation.wire.messages import Ask, ClientOrder, read_train, train_record
from fedaigc.federation.wire.read_update import RefusedUpdate, read_update
from fedaigc.rng import derived_seed, numpy_rng
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.rule import PastRound, Received, Rule, Update

_PAUSE_S = 2.0
# failures that may not occur again in the next round
_PASSING = (Failure.LATE, Failure.DROPPED_OUT, Failure.UNREACHABLE)


def run_rounds(
    roster: Roster,
    shared: SharedState,
    rule: Rule,
    config: FederationConfig,
    on_round: OnRound,
    *,
    first: int = 1,
    history: Sequence[RoundRecord] = (),
    bounds: UpdateBounds | None = None,
    earlier: Callable[[], Checkpoint | None] = lambda: None,
) -> SharedState:
    """Run rounds `first` to `config.rounds.count`.

    Args:
        roster: The clients, and how to reach them.
        shared: The state that round `first` starts from.
        rule: The server half of the strategy.
        config: Of the run.
        on_round: Called after each round with its record and the new state; the rounds end if it returns `Stop`.
        first: Number of the first round.
        history: Records of the rounds before `first`.
        bounds: How far updates and aggregates may move the state; default: those of the configuration.
        earlier: Returns the checkpoint of the state before `shared`, or None. It is called once, when more
            than half of the devices diverge from a state that no update has been made from yet.

    Returns:
        The state after the last round.

    Raises:
        UserError: More than half of the clients have failed for a lasting reason since the last update that
            could be used; Diverged, if all of them diverged. Too few may be present to end the run.
    """
    if bounds is None:
        bounds = UpdateBounds(config.rounds.max_norm_ratio)
    training = _Training(roster, shared, rule, config, bounds, earlier)
    past = past_rounds(history)
    for number in range(first, config.rounds.count + 1):
        record = training.round(number, past)
        past += past_rounds([record])
        if on_round(record, training.shared) is not None:
            break
    return training.shared


class _Training:
    """What a run's rounds hand on to each other.

    Attributes:
        shared: The shared state, and `version` its hash.
        lasting: Clients that failed for a reason that would recur, since the last usable update, with the reason.
        diverged: Those of them whose training diverged.
        traceback: In a simulation, that of the latest client that failed by an error.
        tried: Whether an update was made from the state.
        fell_back: Whether the run has returned to its earlier checkpoint.
    """

    def __init__(
        self,
        roster: Roster,
        shared: SharedState,
        rule: Rule,
        config: FederationConfig,
        bounds: UpdateBounds,
        earlier: Callable[[], Checkpoint | None],
    ) -> None:
        self._roster, self._rule, self._config, self._bounds = roster, rule, config, bounds
        self._earlier = earlier
        self.shared, self.version = shared, shared.hash()
        self.lasting: dict[int, str] = {}
        self.diverged: set[int] = set()
        self.traceback: str | None = None
        self.tried = self.fell_back = False

    def round(self, number: int, past: Sequence[PastRound]) -> RoundRecord:
        """Run one round after those of `past` and return its record; raises UserError as `run_rounds` does."""
        roster = self._roster
        roster.admit()
        began, sent_before = time.monotonic(), roster.ledger.totals()
        backhaul_before = roster.backhaul.totals()
        sampled = sample_clients(roster.clients, self._rule, self._config, number, past)
        folded, rejected = self._step(sampled, number)
        self._bounds.end_round()
        fell_back_to = self._fall_back()
        self._end_without_clients(number)
        released = self._rule.released
        return RoundRecord(
            round=number,
            sampled=tuple(sampled),
            refused=folded.refused,
            num_examples=folded.num_examples,
            metrics=folded.metrics,
            sent_bytes=_increase(sent_before, roster.ledger.totals()),
            seconds=round(time.monotonic() - began, 3),
            dp=RoundNoise.of(released) if released is not None else None,
            shared_hash=self.version,
            capped=folded.capped,
            rejected=rejected,
            fell_back_to=fell_back_to,
            tracebacks=folded.tracebacks,
            backhaul_bytes=_increase(backhaul_before, roster.backhaul.totals()) if self._config.edges else {},
        )

    def _step(self, sampled: list[int], number: int) -> tuple["_Folded", str | None]:
        """Have the clients train and aggregate their updates.

        An aggregate beyond the bounds is not taken: state and rule stay as they were.

        Returns:
            What became of the replies, and why the aggregate was rejected, or None.
        """
        section, rule = self._config.rounds, self._rule
        edges, lost = self._edges(sampled, number)
        reached = [client for client in sampled if client not in lost]
        received, orders = _orders(self.shared, rule, self._config, reached, number, edges)
        rule_state = {name: tensor.clone() for name, tensor in rule.state().items()}
        rule.start(self.shared, number)
        stage = round_stage(number, section.count)
        replies = _asked(self._roster, orders, stage, section.deadline_s)
        folded = _folded(replies, received, rule, self._roster, self._config, self._bounds, edges)
        folded.refused |= lost
        self.lasting |= folded.lasting
        self.diverged |= folded.diverged
        self.traceback = next(reversed(folded.tracebacks.values()), self.traceback)
        aggregate, rejected = _finished(rule), None
        if folded.num_examples:
            self._restart_counts()
            rejected = (
                "the aggregate cannot be computed"
                if aggregate is None
                else self._bounds.aggregate_problem(self.shared, aggregate, rule.state())
            )
            if rejected is not None:
                rule.load(rule_state)
        if aggregate is not None and rejected is None:
            before = self.version
            self.shared, self.version = aggregate, aggregate.hash()
            self.tried = self.tried and self.version == before
        return folded, rejected

    def _edges(self, sampled: list[int], number: int) -> tuple[EdgeRound | None, dict[int, str]]:
        """Return the edges of a round, if the run has any, and the clients whose edge fails, with the reason."""
        config = self._config
        if config.edges is None:
            return None, {}
        weights = weight_limits(self._roster.num_examples, config.rounds.max_weight_ratio)
        edges = EdgeRound(config, self._rule, self._roster.backhaul, number, weights, self._bounds.limits())
        return edges, edges.lost(sampled)

    def _fall_back(self) -> int | None:
        """Return to the earlier checkpoint if most devices diverge from an untried state; its round, or None."""
        if self.tried or self.fell_back or 2 * len(self.diverged) <= len(self._roster.clients):
            return None
        checkpoint = self._earlier()
        if checkpoint is None:
            return None
        self.shared, self.version = checkpoint.shared, checkpoint.shared.hash()
        self._rule.load(checkpoint.rule_state)
        self._bounds.load(checkpoint.bounds)
        self._restart_counts()
        self.fell_back = True
        return checkpoint.round

    def _restart_counts(self) -> None:
        self.lasting, self.diverged, self.tried = {}, set(), True

    def _end_without_clients(self, number: int) -> None:
        if 2 * len(self.lasting) <= len(self._roster.clients):
            return
        reasons = "\n".join(f"  {self.lasting[client]}" for client in sorted(self.lasting))
        if self.traceback is not None:
            reasons += f"\n{self.traceback}"
        kind = Diverged if set(self.lasting) <= self.diverged else UserError
        raise kind(f"round {number}: no client sent a usable update:\n{reasons}")


def _client_order(config: FederationConfig, client: int, number: int) -> ClientOrder:
    """Return the order of one client for a round. The seeds of other clients cannot be derived from its own."""
    luck = numpy_rng(config.seed, "dropout", number, client).random()
    return ClientOrder(
        local_steps=config.local_steps(client),
        upload_seed=derived_seed(config.seed, "upload", number, client),
        dropped_out=bool(luck < config.rounds.dropout_rate),
    )


@dataclass
class _Folded:
    """The outcome of a round's replies, by client. `lasting` holds the refusals that would occur again."""

    refused: dict[int, str] = field(default_factory=dict)
    num_examples: dict[int, int] = field(default_factory=dict)
    capped: dict[int, int] = field(default_factory=dict)
    metrics: dict[int, dict[str, float]] = field(default_factory=dict)
    lasting: dict[int, str] = field(default_factory=dict)
    diverged: set[int] = field(default_factory=set)
    tracebacks: dict[int, str] = field(default_factory=dict)


def _folded(
    replies: Iterator[Reply],
    received: Mapping[int, Received],
    rule: Rule,
    roster: Roster,
    config: FederationConfig,
    bounds: UpdateBounds,
    edges: EdgeRound | None = None,
) -> _Folded:
    """Add the updates that are within bounds to the rule, with bounded weights; with edges, through these."""
    limits = weight_limits(roster.num_examples, config.rounds.max_weight_ratio)
    steps = median_low([config.local_steps(client) for client in range(config.num_clients)])

    def read(client: int, reply: RecordDict) -> tuple[Update, Sizes]:
        ordered, had = config.local_steps(client), received[client]
        update = read_update(reply, client, had, rule, config.rounds.upload_format, num_steps=ordered)
        return update, update_sizes(update, had, rule.weighing_metrics, ordered / steps)

    def look(seen: Iterator[Reply]) -> None:
        sizes = []
        for client, reply in seen:
            if not isinstance(reply, Failure):
                try:
                    sizes.append(read(client, reply)[1])
                except RefusedUpdate:
                    continue
        bounds.look(sizes)

    # differential privacy requires that one client changes the mean by its clipped update at most
    bounded = not rule.clips_updates
    if bounded and received and not bounds.knows(groups_of(rule, next(iter(received.values())))):
        replies = looked_at(replies, look, roster.folder)
    done = _Folded()
    for client, reply in replies:
        if isinstance(reply, Failure):
            done.refused[client], traceback = explained(client, reply, config)
            if traceback is not None:
                done.tracebacks[client] = traceback
            if reply not in _PASSING:
                done.lasting[client] = done.refused[client]
            if reply is Failure.DIVERGED:
                done.diverged.add(client)
            continue
        try:
            update, sizes = read(client, reply)
            if bounded:
                bounds.check(client, sizes)
        except BeyondBounds as error:
            done.refused[client] = str(error)
            continue
        except RefusedUpdate as error:
            done.refused[client] = done.lasting[client] = str(error)
            continue
        weight = min(update.num_examples, limits.get(client, 1)) if bounded else update.num_examples
        if weight < update.num_examples:
            done.capped[client] = weight
        done.num_examples[client] = update.num_examples
        done.metrics[client] = dict(update.metrics)
        counted = replace(update, num_examples=1 if rule.weighting == "uniform" else weight)
        if edges is None:
            rule.add(counted)
        else:
            edges.add(counted, sizes, reply)
    if edges is not None:
        edges.finish(done.refused)
    return done


def _finished(rule: Rule) -> SharedState | None:
    """Return the state after the round, or None if the decomposition of the sum does not converge."""
    try:
        return rule.finish()
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        return None


def _orders(
    shared: SharedState,
    rule: Rule,
    config: FederationConfig,
    sampled: list[int],
    number: int,
    edges: EdgeRound | None = None,
) -> tuple[dict[int, Received], dict[int, RecordDict]]:
    """Return what each client receives in a round, rounding included, and the orders that carry it."""
    section = config.rounds
    received = {client: rule.download(shared, client, config.rank(client), number) for client in sampled}
    own = {client: _client_order(config, client, number) for client in sampled}
    if edges is not None:
        received, own = edges.send(received, own)
    orders = {
        client: train_record(
            received[client],
            section.download_format,
            numpy_rng(config.seed, "download", number, client),
            strategy_code(section.strategy),
            own[client],
        )
        for client in sampled
    }
    if section.download_format != "float32":
        # updates are relative to the rounded values that the clients receive
        received = {client: read_train(order) for client, order in orders.items()}
    return received, orders


def _asked(
    roster: Roster, orders: Mapping[int, RecordDict], stage: Stage, deadline_s: float | None
) -> Iterator[Reply]:
    """Yield the replies to a round's orders, in client order.

    If no device can be reached, all orders are sent again until the deadline, so that a disconnected server does
    not complete its rounds without any client.
    """
    end = time.monotonic() + (deadline_s or 0.0)
    while orders:
        failed: list[tuple[int, Failure]] = []
        replies = iter(roster.ask_each(Ask.TRAIN, orders, stage, deadline_s))
        for client, reply in replies:
            if reply is not Failure.UNREACHABLE:
                yield from failed
                yield client, reply
                yield from replies
                return
            failed.append((client, Failure.UNREACHABLE))
        if time.monotonic() + _PAUSE_S >= end:
            yield from failed
            return
        time.sleep(_PAUSE_S)


def _increase(
    before: dict[str, dict[str, int]], after: dict[str, dict[str, int]]
) -> dict[str, dict[str, int]]:
    return {
        direction: {kind: after[direction][kind] - before[direction][kind] for kind in kinds}
        for direction, kinds in after.items()
    }
