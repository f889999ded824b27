"""A device that tells more than it may is caught, and an honest one is clean."""

from typing import Any

import pytest
from flwr.app import Message, RecordDict

from fedaigc.collaboration.session import ShareOrder
from fedaigc.device.device import Device
from fedaigc.federation.client import client_app, handlers
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.runtime.launcher import in_process_run
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.software import SOFTWARE, own_software
from fedaigc.federation.wire import generation_messages, messages
from fedaigc.federation.wire.messages import Ask
from fedaigc.semantics.policy import Policy
from fedaigc.strategy.fingerprint import strategy_code
from tests.security.leaking_device import IN_PACKETS, IN_UPDATES, Mutant
from tests.security.privacy.recording import PROMPTS, forms, plain, plan_of
from tools.leaks.detector import Detector


def _ask(config: FederationConfig, kind: Ask, content: RecordDict) -> dict[str, Any]:
    """Return the first client's reply to one message as plain data."""
    with in_process_run(config) as run_id:
        grid = LocalGrid(client_app.app, num_clients=1, run_config=config.to_run_config(), run_id=run_id)
        (reply,) = grid.send_and_receive([Message(content, grid.get_node_ids()[0], kind.value)])
    return plain(reply)


def _share(config: FederationConfig, device: Device) -> dict[str, Any]:
    task_id = device.prompts.all()[0].task_id
    order = ShareOrder(0, task_id, "a fruit on a table", noise_seed=1, plan=plan_of(config), stop=1)
    return _ask(config, Ask.SHARE, generation_messages.share_record(order))


def _train(config: FederationConfig) -> dict[str, Any]:
    return _ask(
        config,
        Ask.TRAIN,
        messages.shared_state_record(
            initial_shared_state(config), round=1, strategy_code=strategy_code(config.rounds.strategy)
        ),
    )


@pytest.mark.parametrize("form", IN_PACKETS)
def test_a_device_that_leaks_behind_its_packet_is_caught(
    form: str,
    config: FederationConfig,
    devices: dict[int, Device],
    detector: Detector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    devices[0].receive(initial_shared_state(config))
    monkeypatch.setattr(client_app, "Device", type("Leaking", (Mutant,), {"form": form}))
    assert IN_PACKETS[form] in forms(detector.leaks(_share(config, devices[0])))


@pytest.mark.parametrize("form", IN_UPDATES)
def test_a_device_that_leaks_in_its_update_is_caught(
    form: str,
    config: FederationConfig,
    devices: dict[int, Device],
    detector: Detector,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_app, "Device", type("Leaking", (Mutant,), {"form": form}))
    assert IN_UPDATES[form] in forms(detector.leaks(_train(config)))


def test_the_same_messages_of_an_honest_device_are_clean(
    config: FederationConfig, devices: dict[int, Device], detector: Detector
) -> None:
    devices[0].receive(initial_shared_state(config))
    assert detector.leaks(_share(config, devices[0])) == []
    assert detector.leaks(_train(config)) == []


def test_a_device_that_discloses_more_than_its_policy_is_caught(
    config: FederationConfig, devices: dict[int, Device], detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Talkative(Device):
        def signature(self, task_id: str, *arguments: Any, **options: Any) -> Any:
            return super().signature(task_id, Policy.EXACT, min_public_prompts=1)

    devices[0].add_prompt(PROMPTS[0])
    monkeypatch.setattr(client_app, "Device", Talkative)
    allowed = detector.also_allowing(devices[0].waiting())
    assert forms(allowed.leaks(_ask(config, Ask.SIGNATURES, messages.body()))) == {"concept"}


def test_a_hello_tells_the_closed_list_of_versions_and_a_prompt_among_them_is_caught(
    config: FederationConfig, devices: dict[int, Device], detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = _ask(config, Ask.HELLO, messages.body())
    assert set(honest["body"]) == {"partition", "base", "num_examples", *SOFTWARE}
    assert detector.leaks(honest) == []
    told = own_software() | {"torch": PROMPTS[0]}
    monkeypatch.setattr(handlers, "own_software", lambda: told)
    assert "words" in forms(detector.leaks(_ask(config, Ask.HELLO, messages.body())))
    monkeypatch.setattr(handlers, "own_software", lambda: {"gleaming": "1.0"})
    assert "words" in forms(detector.leaks(_ask(config, Ask.HELLO, messages.body())))


def test_the_text_of_an_error_is_caught(
    config: FederationConfig, devices: dict[int, Device], detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Telling(Device):
        def signature(self, task_id: str, *args: Any, **options: Any) -> Any:
            raise RuntimeError(f"cannot parse {self.prompts.get(task_id).prompt!r}")

    devices[0].add_prompt(PROMPTS[0])
    monkeypatch.setattr(client_app, "Device", Telling)
    assert detector.leaks(_ask(config, Ask.SIGNATURES, messages.body())) == []
    monkeypatch.setattr(messages, "failure", lambda kind: messages.body(kind=str(kind)))
    monkeypatch.setattr(handlers, "failure_of", str)
    assert "words" in forms(detector.leaks(_ask(config, Ask.SIGNATURES, messages.body())))
