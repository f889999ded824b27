"""Messages of a client, recorded in a whole run, contain nothing private."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict

from fedaigc.collaboration.session import FinishOrder
from fedaigc.device.device import Device
from fedaigc.federation.client import client_app
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.runtime.launcher import in_process_run
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.server_app import serve
from fedaigc.federation.wire import equality_messages, generation_messages, messages, sum_messages
from fedaigc.federation.wire.equality_messages import BlindOrder, EqualOrder
from fedaigc.federation.wire.messages import Ask
from fedaigc.federation.wire.sum_messages import KeyOrder, MaskOrder
from tests.security.privacy.recording import NUMBER, PROMPTS, RecordingGrid, plan_of
from tools.leaks.detector import Detector, Secrets


@pytest.fixture(scope="module")
def recorded(config: FederationConfig, devices: dict[int, Device]) -> list[tuple[str, dict[str, Any]]]:
    """A whole run, training and generation, and then messages that a client cannot obey."""
    with in_process_run(config) as run_id:
        run_config = config.to_run_config()
        grid = RecordingGrid(client_app.app, num_clients=len(PROMPTS), run_config=run_config, run_id=run_id)
        serve(grid, config)
        _disturb(grid, config, devices[0])
    return grid.recorded


def _disturb(grid: LocalGrid, config: FederationConfig, device: Device) -> None:
    """Send the first client messages that it cannot obey."""
    task_id = device.prompts.all()[0].task_id
    node = grid.get_node_ids()[0]
    finish = FinishOrder(0, task_id, plan_of(config), noise_seed=1, packet=None)
    no_plan = generation_messages.finish_record(finish)
    del no_plan[generation_messages.PLAN]
    wrong = [
        (Ask.FINISH, generation_messages.finish_record(replace(finish, packet=b"garbage"))),
        (Ask.FINISH, generation_messages.finish_record(replace(finish, task_id="../0"))),
        (Ask.FINISH, no_plan),
        (Ask.SHARE, RecordDict()),
        # of a run without an atlas, sums and equality tests
        (Ask.OFFER, RecordDict()),
        (Ask.KEYS, sum_messages.key_order_record(KeyOrder(task_id, NUMBER))),
        (Ask.MASKED, sum_messages.mask_order_record(MaskOrder(task_id, NUMBER, "a fruit on a table", ()))),
        (Ask.BLIND, equality_messages.blind_order_record(BlindOrder(task_id, NUMBER))),
        (Ask.EQUAL, equality_messages.equal_order_record(EqualOrder(task_id, NUMBER, (bytes(32),)))),
        (Ask.TWINS, RecordDict()),
        (Ask.TRAIN, messages.body(round=1, header="{}", manifest="[]")),
    ]
    grid.send_and_receive([Message(content, node, kind.value) for kind, content in wrong])


def test_a_whole_run_leaks_nothing(
    recorded: list[tuple[str, dict[str, Any]]], detector: Detector, secrets: Secrets, config: FederationConfig
) -> None:
    final = json.loads((config.output / "record.json").read_text())["shared_hash"]
    allowed = detector.also_allowing([final])
    assert {kind for kind, _ in recorded} == {ask.value for ask in Ask}
    assert [leak for kind, message in recorded for leak in allowed.leaks(message, kind)] == []


def test_the_finished_pictures_stay_as_well(
    recorded: list[tuple[str, dict[str, Any]]],
    detector: Detector,
    secrets: Secrets,
    devices: dict[int, Device],
) -> None:
    drawn = [
        device.gallery.image(entry.task_id) for device in devices.values() for entry in device.gallery.all()
    ]
    assert len(drawn) == len(PROMPTS)
    searched = detector.looking_for(replace(secrets, pixels=tuple(np.asarray(image) for image in drawn)))
    found = [leak for kind, message in recorded for leak in searched.leaks(message, kind)]
    assert [leak for leak in found if leak.form == "pixels"] == []


def test_the_run_did_what_it_should_so_that_there_was_something_to_leak(
    recorded: list[tuple[str, dict[str, Any]]], devices: dict[int, Device]
) -> None:
    assert all(not device.prompts.waiting() for device in devices.values())
    kinds = [kind for kind, message in recorded if "failure" not in message]
    assert kinds.count(Ask.SHARE.value) == 1  # apple and strawberry share, the xylophone runs alone
    assert kinds.count(Ask.FINISH.value) == len(PROMPTS)
    failures = [message["failure"]["kind"] for _, message in recorded if "failure" in message]
    assert len(failures) == 11
    # the search works: the concepts that were disclosed are found
    disclosed = [
        json.loads("".join(device.prompts.all()[0].disclosed) or "{}") for device in devices.values()
    ]
    assert [bool(signature) for signature in disclosed] == [True, True, False]
    for signature in disclosed[:2]:
        assert signature["object"] in str(recorded)
        assert signature["place"] in str(recorded)


def test_the_secrets_are_there_to_be_found(secrets: Secrets) -> None:
    assert {"shiny", "apple", "gleaming", "strawberry", "xylophone", "mahogany"} <= secrets.words
    assert not secrets.words & {"table", "fruit"}
    assert all(len(ids) >= 3 for ids in secrets.token_ids)
    assert len(secrets.pixels) == len(secrets.latents) == len(PROMPTS)
