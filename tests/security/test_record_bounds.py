"""What a client sends enters records and logs bounded, and without control characters."""

import json
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from fedaigc.device.home.home import Home, note_error
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.wire import messages
from fedaigc.federation.wire.messages import ARRAYS, BODY, FLAT
from fedaigc.federation.wire.read_update import RefusedUpdate, read_update
from fedaigc.rng import numpy_rng
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received, Update


class TestRecords:
    """Text of a client enters the server's record only as numbers, patterns and words of closed lists."""

    def update(self, config: FederationConfig, **losses: float) -> tuple[RecordDict, Received]:
        received = Received(initial_shared_state(config), 1)
        sent = Update(0, 3, 2, received.shared.tensors(), received.shared.rank, losses)
        return messages.update_record(sent, received, "float32", numpy_rng(0, "w")), received

    def read(self, record: RecordDict, received: Received) -> Update:
        """Read an update as a server that ordered two steps. b8a6c4d did not compare the number of steps."""
        ordered = {"num_steps": 2} if "num_steps" in signature(read_update).parameters else {}
        return read_update(record, 0, received, load_strategy("fedavg"), "float32", **ordered)

    def test_an_honest_update_is_taken(self, config: FederationConfig) -> None:
        assert self.read(*self.update(config, shared_loss=0.25, personal_loss=0.5)).num_steps == 2

    @pytest.mark.parametrize("name", ["x" * 2_000_000, "<script>", "\x1b[31m", "weights"])
    def test_metrics_have_the_names_of_a_round(self, config: FederationConfig, name: str) -> None:
        record, received = self.update(config, **{name: 1.0})
        with pytest.raises(RefusedUpdate) as told:
            self.read(record, received)
        assert len(str(told.value)) < 400
        assert name not in str(told.value)

    def test_a_metric_adds_up(self, config: FederationConfig) -> None:
        record, received = self.update(config, shared_loss=1e308)
        with pytest.raises(RefusedUpdate, match="a loss is outside of"):
            self.read(record, received)

    @pytest.mark.parametrize(
        "values",
        [
            {"num_examples": 10**12},
            {"num_steps": 10**12},
            {"partition": "<b>" * 100_000},
            {"num_examples": "\x1b[31m" * 100_000},
            {"format": "\x1b" * 100_000},
            {"rank": "x" * 100_000},
            {"rank": 2**62},
            {"manifest": json.dumps([["<b>" * 80, [1]]])},
            {"more": 1},
        ],
    )
    def test_a_refusal_quotes_little_and_escapes_it(
        self, config: FederationConfig, values: dict[str, Any]
    ) -> None:
        record, received = self.update(config)
        record[BODY] = ConfigRecord({**record.config_records[BODY], **values})
        with pytest.raises(RefusedUpdate) as told:
            self.read(record, received)
        assert len(str(told.value)) < 400
        assert not {"\x1b", "<"} & set(str(told.value))

    def test_other_arrays_beside_the_one_are_no_update(self, config: FederationConfig) -> None:
        record, received = self.update(config)
        array = record[ARRAYS][FLAT]
        assert isinstance(array, Array)
        record[ARRAYS] = ArrayRecord({FLAT: array, "x" * 100_000: array})
        with pytest.raises(RefusedUpdate):
            self.read(record, received)

    def test_a_hello_enters_as_number_and_fingerprint(self, config: FederationConfig) -> None:
        from flwr.app import Context, Message

        from fedaigc.errors import UserError
        from fedaigc.federation.runtime.launcher import in_process_run
        from fedaigc.federation.runtime.local_grid import LocalGrid
        from fedaigc.federation.server.roster import open_roster

        for values in (
            {"partition": 0, "base": "<script>\x1b" * 50_000},
            {"partition": "<script>\x1b" * 50_000, "base": "0" * 64},
        ):

            def answer(message: Message, context: Context, values: dict[str, Any] = values) -> Message:
                return Message(messages.body(**values), reply_to=message)

            grid = LocalGrid(answer, num_clients=1, run_config={}, run_id=1)
            with in_process_run(config), pytest.raises(UserError) as told:
                open_roster(grid, num_clients=1, base_hash="0" * 64)
            assert len(str(told.value)) < 500
            assert not {"\x1b", "<"} & set(str(told.value))


def test_the_log_of_a_home_takes_a_bounded_text_without_control(tmp_path: Path) -> None:
    """An error quoted the received text: 100 MB of it, terminal colours, or half of a character, for which the log
    itself failed and the error left the agent.
    """
    Home.open(tmp_path / "home")
    note_error(tmp_path / "home", "first\n" + "\x1b[31m\ud800" * 1_000_000 + "\nlast\n")
    note = (tmp_path / "home" / "errors.log").read_text()
    assert len(note) < 200_000
    assert note.startswith("first\n")
    assert note.endswith("last\n")
    assert "\x1b" not in note
