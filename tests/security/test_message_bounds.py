"""Messages have exactly their keys and types, and no values beyond the bounds."""

import json
from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedaigc.collaboration.secure_sum.masks import Announced
from fedaigc.collaboration.session import FinishOrder, ShareOrder, TwinSteps
from fedaigc.device.replies import FinishReport, SharedSteps
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.server import generation
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.wire import equality_messages, generation_messages, messages, sum_messages
from fedaigc.federation.wire.equality_messages import BlindOrder, EqualOrder
from fedaigc.federation.wire.generation_messages import TWINS
from fedaigc.federation.wire.messages import ARRAYS, BODY, FLAT, METRICS
from fedaigc.federation.wire.sum_messages import KeyOrder, MaskOrder
from fedaigc.rng import numpy_rng
from fedaigc.semantics.denoiser.offer import Offer
from fedaigc.strategy.rule import Received
from tests.security.orders import IDS, signatures


class TestMessages:
    """Exactly their keys and types, and no values beyond the bounds."""

    def good(self, config: FederationConfig) -> dict[str, tuple[RecordDict, Callable[[RecordDict], Any]]]:
        shared = initial_shared_state(config)
        plan = generation.plan_generation(shared, config)
        share = ShareOrder(0, "0" * 16, "a fruit on a table", 3, plan, 2)
        finish = FinishOrder(0, "0" * 16, plan, 3, b"packet")
        member = Announced(bytes(32), b"node", b"signature")
        twins = TwinSteps("a" * 32, bytes(32), (bytes(32), bytes([1]) * 32), 2)

        def order(read: Callable[..., Any]) -> Callable[[RecordDict], Any]:
            """b8a6c4d read the plan itself, which the device now builds."""
            build = (lambda request: plan,) if "build" in signature(read).parameters else ()
            return lambda record: read(record, 0, *build)

        return {
            "signatures": (signatures([], [], IDS[:1]), generation_messages.read_signatures),
            "state": (messages.shared_state_record(shared), messages.read_shared_state),
            "train": (
                messages.train_record(Received(shared, 1), "float32", numpy_rng(0, "t"), "0" * 16),
                messages.read_train,
            ),
            "offer": (
                generation_messages.offer_record(Offer("0" * 16, 3, (1, 2), np.zeros(0, np.float32))),
                generation_messages.read_offer,
            ),
            "taken": (
                generation_messages.taken_record(2),
                lambda record: generation_messages.read_taken(record, (1, 2)),
            ),
            "share": (generation_messages.share_record(share), order(generation_messages.read_share)),
            "finish": (generation_messages.finish_record(finish), order(generation_messages.read_finish)),
            "steps": (
                generation_messages.shared_steps_record(SharedSteps(b"p", 1, 2)),
                generation_messages.read_shared_steps,
            ),
            "key order": (
                sum_messages.key_order_record(KeyOrder("0" * 16, "a" * 32)),
                sum_messages.read_key_order,
            ),
            "key": (sum_messages.key_record(member), sum_messages.read_key),
            "mask order": (
                sum_messages.mask_order_record(MaskOrder("0" * 16, "a" * 32, "a fruit", (member,) * 3)),
                sum_messages.read_mask_order,
            ),
            "masked": (
                sum_messages.masked_record(np.arange(5, dtype=np.uint64)),
                lambda record: sum_messages.read_masked(record, 5),
            ),
            "blind order": (
                equality_messages.blind_order_record(BlindOrder("0" * 16, "a" * 32)),
                equality_messages.read_blind_order,
            ),
            "blinded": (equality_messages.blinded_record(bytes(32)), equality_messages.read_blinded),
            "equal order": (
                equality_messages.equal_order_record(EqualOrder("0" * 16, "a" * 32, twins.members)),
                equality_messages.read_equal_order,
            ),
            "tags": (
                equality_messages.tags_record((bytes(8),) * 3),
                lambda record: equality_messages.read_tags(record, 3),
            ),
            "twin order": (
                equality_messages.twin_order_record(replace(share, group_prompt="", twins=twins)),
                order(equality_messages.read_twin_order),
            ),
            "twin packet": (
                equality_messages.twin_packet_record(bytes(9)),
                lambda record: equality_messages.read_twin_packet(record, 9),
            ),
            "finish from a twin": (
                generation_messages.finish_record(replace(finish, twins=replace(twins, members=()))),
                order(generation_messages.read_finish),
            ),
            "conditioned": (
                generation_messages.share_record(replace(share, conditioning={"e": torch.ones(1, 2, 3)})),
                order(generation_messages.read_share),
            ),
            "report": (
                generation_messages.report_record(FinishReport(1, 1, 2, 4)),
                generation_messages.read_report,
            ),
        }

    NAMES = (
        "signatures",
        "state",
        "train",
        "offer",
        "taken",
        "share",
        "finish",
        "steps",
        "report",
        "key order",
        "key",
        "mask order",
        "masked",
        "conditioned",
        "blind order",
        "blinded",
        "equal order",
        "tags",
        "twin order",
        "twin packet",
        "finish from a twin",
    )

    def test_an_offer_may_change_its_node(self) -> None:
        none = np.zeros(0, np.float32)
        for nodes in ((), (3, 7)):
            record = generation_messages.offer_record(Offer("0" * 16, 3, (1, 2), none, nodes))
            assert ("nodes" in record.config_records[BODY]) is bool(nodes)
            assert generation_messages.read_offer(record).nodes == nodes

    @pytest.mark.parametrize("name", NAMES)
    def test_exactly_their_keys_and_types(self, config: FederationConfig, name: str) -> None:
        record, read = self.good(config)[name]
        read(record)
        values: dict[str, Any] = dict(record.config_records[BODY])
        for key in values:
            for other in ("text", 1.5, True, b"bytes", [1]):
                if type(other) is not type(values[key]):
                    record[BODY] = ConfigRecord(values | {key: other})
                    with pytest.raises((ValueError, KeyError)):
                        read(record)
            record[BODY] = ConfigRecord({name: value for name, value in values.items() if name != key})
            if key in ("dropped_out", "shared_steps", "upload_seed"):
                # an order to train need not say these
                continue
            with pytest.raises((ValueError, KeyError)):
                read(record)
        record[BODY] = ConfigRecord({**values, "more": 1})
        with pytest.raises(ValueError, match=r"values|records"):
            read(record)
        record[BODY] = ConfigRecord(values)
        record["more"] = ConfigRecord({"a": 1})
        with pytest.raises(ValueError, match="records"):
            read(record)

    @pytest.mark.parametrize(
        ("name", "values"),
        [
            ("offer", {"ladder": [2, 1]}),
            ("offer", {"ladder": []}),
            ("offer", {"ladder": [0, 1]}),
            ("offer", {"ladder": list(range(1, 10))}),
            ("offer", {"ladder": [1, True]}),
            ("offer", {"ladder": [10**9]}),
            ("offer", {"node": -2}),
            ("offer", {"node": -1}),
            ("offer", {"node": 1 << 40}),
            ("offer", {"vector": np.ones(4, "<f4").tobytes()}),
            ("offer", {"node": -1, "vector": np.full(4, np.nan, "<f4").tobytes()}),
            ("offer", {"node": -1, "vector": b"abc"}),
            ("offer", {"nodes": [3]}),
            ("offer", {"nodes": [4, 3]}),
            ("offer", {"nodes": [3, -1]}),
            ("offer", {"nodes": [3, True]}),
            ("offer", {"nodes": [3, 1 << 40]}),
            ("offer", {"nodes": list(range(3, 100))}),
            ("offer", {"nodes": "34"}),
            ("offer", {"task_id": "../../x"}),
            ("taken", {"handoff": 3}),
            ("taken", {"handoff": -1}),
            ("share", {"group_prompt": "x" * 1_001}),
            ("share", {"stop": 10**9}),
            ("share", {"stop": -1}),
            ("share", {"task_id": "../../x"}),
            ("finish", {"noise_seed": -(2**63) - 1}),
            ("finish", {"noise_seed": 2**64}),
            ("finish", {"task_id": "x" * 100_000}),
            ("steps", {"denoiser_calls": 2**62}),
            ("steps", {"denoiser_samples": -1}),
            ("report", {"shared_stage_steps": 2**62}),
            ("conditioned", {"group_prompt": "x" * 1_001}),
            ("conditioned", {"manifest": '[["e", [1, 2, 4]]]'}),
            ("key order", {"number": "a" * 31}),
            ("key order", {"task_id": "x"}),
            ("key", {"key": bytes(33)}),
            ("key", {"node_key": bytes(1_025)}),
            ("key", {"signature": bytes(1_025)}),
            ("mask order", {"group_prompt": "x" * 1_001}),
            ("mask order", {"keys": [bytes(32)] * 2}),
            ("mask order", {"keys": ["text"] * 3}),
            ("mask order", {name: [b""] * 1_025 for name in ("keys", "node_keys", "signatures")}),
            ("masked", {"count": 4}),
            ("masked", {"count": 2**62}),
            ("signatures", {"unreadable": 2**62}),
            ("signatures", {"unreadable": -1}),
        ],
    )
    def test_numbers_and_texts_are_bounded(
        self, config: FederationConfig, name: str, values: dict[str, Any]
    ) -> None:
        record, read = self.good(config)[name]
        record[BODY] = ConfigRecord({**record.config_records[BODY], **values})
        with pytest.raises(ValueError, match=r"expected|length|form"):
            read(record)

    @pytest.mark.parametrize(
        "header",
        [
            {"rank": 10**6},
            {"rank": True},
            {"alpha": float("inf")},
            {"alpha": -1.0},
            {"boundary_log_snr": float("nan")},
            {"boundary_log_snr": "0"},
            {"base_hash": "x" * 64},
            {"more": 1},
        ],
    )
    def test_the_header_of_a_shared_state_is_too(
        self, config: FederationConfig, header: dict[str, Any]
    ) -> None:
        record, read = self.good(config)["state"]
        values: dict[str, Any] = dict(record.config_records[BODY])
        values["header"] = json.dumps(json.loads(str(values["header"])) | header)
        record[BODY] = ConfigRecord(values)
        with pytest.raises(ValueError, match=r"rank|alpha|boundary|base_hash|header"):
            read(record)

    @pytest.mark.parametrize("what", ["records", "values", "list", "key", "arrays"])
    @pytest.mark.parametrize("in_bytes", [True, False])
    def test_a_message_of_very_many_parts_is_not_unpacked(self, what: str, in_bytes: bool) -> None:
        """Flower accepted any number: 200 arrays in an update cost a server seconds of copying."""
        from flwr.common.serde import recorddict_to_proto

        from fedaigc.federation.wire.record_bounds import check_records

        form = recorddict_to_proto if in_bytes else (lambda record: record)
        check_records(form(signatures(IDS[:1_024], ["x"] * 1_024, [])))
        array = Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=b"")
        record = {
            "records": RecordDict({f"r{number}": ConfigRecord() for number in range(9)}),
            "values": RecordDict({BODY: ConfigRecord({f"v{number}": 1 for number in range(65)})}),
            "list": RecordDict({BODY: ConfigRecord({"tasks": IDS})}),
            "key": RecordDict({METRICS: MetricRecord({"x" * 2_000_000: 1.0})}),
            "arrays": RecordDict({ARRAYS: ArrayRecord({FLAT: array, "more": array})}),
        }[what]
        with pytest.raises(ValueError, match=r"at most|more than"):
            check_records(form(record))

    def test_a_masked_conditioning_is_one_array_of_its_length(self) -> None:
        for wrong in (
            np.arange(5.0),
            np.arange(5),
            np.arange(6, dtype=np.uint64),
            np.zeros((5, 1), np.uint64),
        ):
            record = sum_messages.masked_record(np.arange(5, dtype=np.uint64))
            record[ARRAYS] = ArrayRecord({FLAT: Array(wrong)})
            with pytest.raises(ValueError, match="expected 5 of uint64"):
                sum_messages.read_masked(record, 5)
        record[ARRAYS] = ArrayRecord({"other": Array(np.arange(5, dtype=np.uint64))})
        with pytest.raises(ValueError, match="exactly one array"):
            sum_messages.read_masked(record, 5)

    def test_keys_and_tags_of_an_equality_test_have_their_lengths(self, config: FederationConfig) -> None:
        good = self.good(config)
        cases: tuple[tuple[str, dict[str, Any]], ...] = (
            ("blinded", {"key": bytes(31)}),
            ("equal order", {"keys": [bytes(32), bytes(33)]}),
            ("equal order", {"keys": [bytes(32)] * 65}),
            ("equal order", {"number": "a" * 31}),
            ("tags", {"tags": bytes(23)}),
            ("twin order", {"twins": [bytes(31)]}),
            ("twin order", {"executor": bytes(33)}),
            ("twin order", {"stop": -1}),
            ("twin packet", {"packet": bytes(10)}),
        )
        for name, wrong in cases:
            record, read = good[name]
            record = RecordDict({**record, BODY: ConfigRecord({**record.config_records[BODY], **wrong})})
            with pytest.raises(ValueError, match="expected"):
                read(record)
        record, read = good["finish from a twin"]
        for wrong in ({"executor": bytes(31)}, {"number": "x"}, {"stop": True}, {"more": 1}):
            record[TWINS] = ConfigRecord({"number": "a" * 32, "executor": bytes(32), "stop": 2, **wrong})
            with pytest.raises(ValueError, match=r"expected|number"):
                read(record)
