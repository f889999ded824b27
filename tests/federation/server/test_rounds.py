"""Rounds beyond the main path: formats, dropouts, deadlines, resuming, and numbers of bytes."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, Error, Message, RecordDict
from flwr.common.constant import ErrorCode
from flwr.common.serde import recorddict_to_proto

from fedaigc.errors import UserError
from fedaigc.federation.client.client_app import app
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.checkpoint import load_checkpoint
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.output.records import RunRecord, read_record
from fedaigc.federation.runtime.launcher import in_process_run, run_in_process
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server import exchange, rounds
from fedaigc.federation.server.server_app import serve
from fedaigc.federation.wire.ledger import Ledger
from fedaigc.federation.wire.messages import ARRAYS, FLAT
from fedaigc.storage.file_lock import locked
from tests.federation.clock import Clock
from tests.quick_cases import quick_first
from tests.small_run import MakeRun

QUIET = {"enabled": False}


class CutOffGrid(LocalGrid):
    """A grid whose nodes cannot be reached during the first `away` orders to train."""

    away = 0

    def _answer(self, message: Message) -> Message:
        if message.metadata.message_type == "train" and self.away:
            self.away -= 1
            return Message(Error(ErrorCode.NODE_UNAVAILABLE), reply_to=message)
        return super()._answer(message)


def run_cut_off(config: FederationConfig, away: int) -> RunRecord:
    with in_process_run(config) as run_id:
        grid = CutOffGrid(
            app, num_clients=config.num_clients, run_config=config.to_run_config(), run_id=run_id
        )
        grid.away = away
        serve(grid, config)
    return read_record(config.output)


class ListeningGrid(LocalGrid):
    """Records every message content, and never answers for some nodes.

    Like a SuperLink, it returns an error for an order whose time is over, whether or not the node replied.
    """

    def __init__(
        self, *args: Any, mute: Collection[int] = (), clock: Clock | None = None, **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._clock = clock or Clock()
        self.contents: dict[str, list[tuple[str, RecordDict]]] = {"down": [], "up": []}
        self._mute = set(mute)

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        messages = list(messages)
        self.contents["down"] += [(m.metadata.message_type, m.content) for m in messages]
        return super().push_messages(messages)

    def pull_messages(self, message_ids: Iterable[str]) -> list[Message]:
        wanted = [
            message_id
            for message_id in message_ids
            if message_id not in self._waiting
            or self._partition(self._waiting[message_id]) not in self._mute
            or self._waiting[message_id].metadata.message_type != "train"
        ]
        late = [message_id for message_id in wanted if self._over(message_id)]
        if late:
            order = self._waiting.pop(late[0])
            return [Message(Error(ErrorCode.MESSAGE_UNAVAILABLE), reply_to=order)]
        replies = super().pull_messages(wanted)
        self.contents["up"] += [(m.metadata.message_type, m.content) for m in replies]
        return replies

    def _over(self, message_id: str) -> bool:
        order = self._waiting.get(message_id)
        return order is not None and self._clock.time() > order.metadata.created_at + order.metadata.ttl

    def _partition(self, message: Message) -> Any:
        return self._contexts[message.metadata.dst_node_id].node_config["partition-id"]


def run(config: FederationConfig, **options: Any) -> ListeningGrid:
    with in_process_run(config) as run_id:
        grid = ListeningGrid(
            app, num_clients=config.num_clients, run_config=config.to_run_config(), run_id=run_id, **options
        )
        serve(grid, config)
    return grid


def test_the_ledger_counts_what_flower_serializes(make_run: MakeRun) -> None:
    config = make_run()
    grid = run(config)
    record = read_record(config.output)
    for direction in ("down", "up"):
        sizes = [
            recorddict_to_proto(content).ByteSize()
            for kind, content in grid.contents[direction]
            if kind != "query.hello"  # before the roster, and its ledger, are there
        ]
        assert sum(record.sent_bytes[direction].values()) == sum(sizes)
    assert record.sent_bytes["up"]["weights"] > 1000
    assert record.sent_bytes["up"]["signatures"] > 0
    assert record.sent_bytes["down"]["packets"] > 0
    rounds = [done.sent_bytes["up"]["weights"] for done in record.rounds]
    assert sum(rounds) == record.sent_bytes["up"]["weights"]


def test_an_empty_ledger_has_every_kind() -> None:
    totals = Ledger().totals()
    assert totals["up"] == totals["down"] == dict.fromkeys(totals["up"], 0)


@pytest.fixture(scope="module")
def exact(make_module_run: MakeRun) -> FederationConfig:
    config = make_module_run(generation=QUIET)
    run_in_process(config)
    return config


@pytest.mark.parametrize("format", quick_first(["int8", "float16", "bfloat16"]))
def test_a_lossy_format_costs_fewer_bytes_and_ends_nearby(
    make_run: MakeRun, exact: FederationConfig, format: str
) -> None:
    lossy = make_run(
        "lossy",
        generation=QUIET,
        rounds={**exact.rounds.model_dump(), "upload_format": format, "download_format": format},
    )
    run_in_process(lossy)
    for direction in ("up", "down"):
        saved, whole = (
            read_record(config.output).sent_bytes[direction]["weights"] for config in (lossy, exact)
        )
        assert saved < (0.3 if format == "int8" else 0.55) * whole
    first, second = load_shared_state(exact.output).tensors(), load_shared_state(lossy.output).tensors()
    away = sum(float((first[name] - second[name]).norm()) ** 2 for name in first) ** 0.5
    length = sum(float(tensor.norm()) ** 2 for tensor in first.values()) ** 0.5
    assert 0 < away < 0.05 * length


@pytest.mark.parametrize("late", [0, 1])
def test_a_client_that_is_late_leaves_the_round_without_its_update(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch, late: int
) -> None:
    """And no other's: who answered in time is counted, also after the one whose turn came first was late."""
    config = make_run(generation=QUIET, rounds={"count": 1, "deadline_s": 60.0})
    clock = Clock()
    clock.instead_of(monkeypatch, exchange, rounds)
    run(config, mute=[late], clock=clock)
    (done,) = read_record(config.output).rounds
    assert done.refused == {late: f"client {late}: late"}
    assert sorted(done.num_examples) == sorted({0, 1, 2} - {late})


class SpoiledGrid(LocalGrid):
    """The updates of one node cannot be read, because Flower fails or because its own format does not contain them."""

    spoiled = ""

    def _answer(self, message: Message) -> Message:
        reply = super()._answer(message)
        node = self._contexts[message.metadata.dst_node_id].node_config["partition-id"]
        if message.metadata.message_type == "train" and node == 0:
            reply.content[ARRAYS] = ArrayRecord({FLAT: Array("float32", (2**40,), "numpy.ndarray", b"")})
            if self.spoiled == "message":
                raise ValueError("Unexpected set of `children`")
        return reply


@pytest.mark.parametrize("spoiled", quick_first(["shape", "message"]))
def test_an_update_that_cannot_be_read_costs_no_other(make_run: MakeRun, spoiled: str) -> None:
    config = make_run(generation=QUIET)
    with in_process_run(config) as run_id:
        grid = SpoiledGrid(
            app, num_clients=config.num_clients, run_config=config.to_run_config(), run_id=run_id
        )
        grid.spoiled = spoiled
        serve(grid, config)
    record = read_record(config.output)
    assert record.status == "finished"
    for done in record.rounds:
        assert done.refused == {0: "client 0: unreadable"}
        assert sorted(done.num_examples) == [1, 2]


def test_a_round_without_anybody_waits_for_the_devices_until_its_deadline(
    make_run: MakeRun, three_rounds: FederationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock().instead_of(monkeypatch, exchange, rounds)
    config = make_run(rounds={"count": 1, "deadline_s": 60.0}, generation=QUIET)
    # all three are away twice: the round goes by with all, as if nothing had been
    record = run_cut_off(config, 6)
    assert record.shared_hash == read_record(three_rounds.output).rounds[0].shared_hash
    # one that answers is enough: nobody waits for the others
    some = run_cut_off(make_run("some", rounds={"count": 1, "deadline_s": 60.0}, generation=QUIET), 2)
    assert list(some.rounds[0].num_examples) == [2]
    assert list(some.rounds[0].refused) == [0, 1]
    # and after the deadline the round goes by without anybody
    none = run_cut_off(make_run("none", rounds={"count": 1, "deadline_s": 60.0}, generation=QUIET), 1000)
    assert none.rounds[0].num_examples == {}
    assert 50 < none.rounds[0].seconds < 90


def test_clients_drop_out_from_the_seed_and_a_round_may_lose_all(make_run: MakeRun) -> None:
    rounds = {"count": 3, "dropout_rate": 0.7}
    first, second = (make_run(name, generation=QUIET, rounds=rounds) for name in ("first", "second"))
    run_in_process(first)
    run_in_process(second)
    records = [read_record(config.output) for config in (first, second)]
    assert records[0].shared_hash == records[1].shared_hash
    lost = [len(done.refused) for done in records[0].rounds]
    assert sum(lost) > 0
    for done in records[0].rounds:
        assert all(reason.endswith("dropped_out") for reason in done.refused.values())


def test_a_resumed_run_ends_like_an_uninterrupted_one(
    make_run: MakeRun, three_rounds: FederationConfig
) -> None:
    cut = make_run("cut", generation=QUIET, rounds={"count": 1})
    run_in_process(cut)
    held = load_checkpoint(cut)
    assert held is not None
    assert held.round == 1
    whole = cut.model_copy(update={"rounds": cut.rounds.model_copy(update={"count": 3}), "resume": True})
    run_in_process(whole)
    expected, found = (read_record(config.output).timeless() for config in (three_rounds, whole))
    assert found.rounds == expected.rounds
    assert found.shared_hash == expected.shared_hash
    fewer = whole.model_copy(update={"rounds": cut.rounds.model_copy(update={"count": 2})})
    with pytest.raises(UserError, match=r"has 3 rounds already, and rounds\.count is 2: resume it with"):
        run_in_process(fewer)


def test_a_run_is_not_resumed_with_another_configuration(make_run: MakeRun) -> None:
    config = make_run(generation=QUIET, rounds={"count": 1})
    run_in_process(config)
    other = config.model_copy(update={"seed": config.seed + 1, "resume": True})
    with pytest.raises(UserError, match="made with another configuration"):
        run_in_process(other)
    assert read_record(config.output).status == "finished"


def test_resuming_where_nothing_was_begins_anew(make_run: MakeRun) -> None:
    config = make_run(generation=QUIET, rounds={"count": 1}, resume=True)
    run_in_process(config)
    assert len(read_record(config.output).rounds) == 1


def test_one_run_at_a_time_writes_to_an_output(make_run: MakeRun) -> None:
    config = make_run(rounds={"count": 1}, generation=QUIET)
    with locked(config.output / ".run.lock"), pytest.raises(UserError, match="another run writes to"):
        run_in_process(config)
    assert not (config.output / "record.json").exists()
    run_in_process(config)
    assert read_record(config.output).status == "finished"
