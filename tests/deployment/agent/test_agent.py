"""The agent's socket: which requests it answers and refuses, and whose settings apply."""

import socket
import stat
import struct
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import RecordDict

from fedaigc.collaboration.session import FinishOrder
from fedaigc.deployment.agent.agent import Agent, AgentSettings, listening
from fedaigc.deployment.agent.agent_socket import (
    STATUS,
    AgentUnreachable,
    Request,
    ask_agent,
    read_frame,
    send_frame,
    socket_path,
)
from fedaigc.device.home.home import Home
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.wire.messages import FAILURE, Ask, values_of
from fedaigc.semantics.policy import Policy
from tests.small_run import MakeRun


@pytest.fixture
def config(make_run: MakeRun) -> FederationConfig:
    return make_run(num_clients=1)


@pytest.fixture
def home(config: FederationConfig) -> Iterator[Path]:
    """A home whose agent listens in this process."""
    path = config.home(0)
    agent = Agent(path, AgentSettings(0, config.model))
    with listening(agent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def ask(home: Path, kind: Ask, config: FederationConfig, content: RecordDict | None = None) -> RecordDict:
    text = config.to_run_config()[RUN_CONFIG_KEY]
    reply = ask_agent(home, Request(kind.value, text, content), timeout_s=60).content
    assert reply is not None
    return reply


def test_an_agent_answers_what_the_federation_asks(home: Path, config: FederationConfig) -> None:
    told = values_of(ask(home, Ask.HELLO, config))
    assert told["partition"] == 0
    status = ask_agent(home, Request(STATUS), timeout_s=5).status
    assert status is not None
    assert status["base"] == told["base"]
    assert status["waiting"] == 4
    assert stat.S_IMODE(socket_path(home).stat().st_mode) == 0o600


@pytest.mark.parametrize("asked", ["open", "exact", "kind", "general", "silent"])
def test_a_server_gets_no_more_than_the_owner_permits(
    home: Path, config: FederationConfig, asked: str
) -> None:
    settings = config.generation.model_copy(update={"policy": Policy(asked), "min_public_prompts": 1})
    reply = ask(home, Ask.SIGNATURES, config.model_copy(update={"generation": settings}))
    policies = {text.split('"policy":"')[1].split('"')[0] for text in values_of(reply)["signatures"]}
    # the owner's is "kind", under which at least 3 public prompts fit
    expected = {
        "open": {"kind"},
        "exact": {"kind"},
        "kind": {"kind"},
        "general": {"general"},
        "silent": set(),
    }
    assert policies <= expected[asked] | {"general"}
    assert bool(policies) == (asked != "silent")


def heard(connection: socket.socket) -> bytes:
    """Return the reply, or nothing if the other side closed the connection early."""
    try:
        return connection.recv(1)
    except ConnectionResetError:
        return b""


def test_what_is_no_request_gets_no_answer_and_does_no_harm(home: Path, config: FederationConfig) -> None:
    path = str(socket_path(home))
    for sent in (
        b"GET / HTTP/1.1\r\n\r\n",
        struct.pack("!IQ", 1 << 30, 0),
        struct.pack("!IQ", 2, 1 << 40) + b"{}",
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert heard(connection) == b""
    for header in (
        {"ask": "prompts", "config": ""},
        {"ask": "status"},
        {"ask": "status", "config": "", "x": 1},
    ):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            send_frame(connection, header, None)
            with pytest.raises((EOFError, ConnectionResetError)):
                read_frame(connection)
    assert values_of(ask(home, Ask.HELLO, config))["partition"] == 0


def test_a_wrong_configuration_is_a_kind_of_failure(home: Path) -> None:
    reply = ask_agent(home, Request(Ask.HELLO.value, '{"secret": 1}'), timeout_s=60).content
    assert reply is not None
    assert values_of(reply, FAILURE) == {"kind": "configuration_refused"}


def test_other_code_of_the_strategy_is_refused(home: Path, config: FederationConfig) -> None:
    from fedaigc.federation.server.server_app import initial_shared_state
    from fedaigc.federation.wire.messages import shared_state_record

    order = shared_state_record(initial_shared_state(config), round=1, strategy_code="0123456789abcdef")
    assert values_of(ask(home, Ask.TRAIN, config, order), FAILURE) == {"kind": "code_differs"}


def test_one_agent_a_home(home: Path, config: FederationConfig) -> None:
    with (
        pytest.raises(UserError, match="`fedaigc device stop"),
        listening(Agent(home, AgentSettings(0, config.model))),
    ):
        pass
    assert values_of(ask(home, Ask.HELLO, config))["partition"] == 0


def test_no_agent_and_too_long_a_path_are_told(tmp_path: Path) -> None:
    Home.open(tmp_path / "home")
    with pytest.raises(AgentUnreachable, match="no agent"):
        ask_agent(tmp_path / "home", Request(STATUS), timeout_s=5)
    with pytest.raises(UserError, match="shorter"):
        socket_path(tmp_path / ("x" * 120))


def test_a_prompt_is_answered_once_and_tells_no_scores(home: Path, config: FederationConfig) -> None:
    """A server that asks again, or with its judge, learns nothing about the prompt and replaces no picture."""
    from fedaigc.device.home.gallery import Gallery
    from fedaigc.diffusion.schedule.plan import build_plan
    from fedaigc.federation.preloaded import base_model
    from fedaigc.federation.wire.generation_messages import finish_record

    settings = config.generation.model_copy(update={"scorer": "scenes"})
    asking = config.model_copy(update={"generation": settings})
    pipe, base_hash = base_model(config.model)
    plan = build_plan(
        pipe, num_inference_steps=2, guidance_scale=1.0, height=32, width=32, base_hash=base_hash
    )
    (task_id, *_) = values_of(ask(home, Ask.SIGNATURES, config))["tasks"]
    order = FinishOrder(0, task_id, plan, noise_seed=1, packet=None)
    told = values_of(ask(home, Ask.FINISH, asking, finish_record(order)))
    counts = {"shared_stage_steps", "personal_stage_steps", "denoiser_calls", "denoiser_samples"}
    assert set(told) == counts | {"padding"}
    picture = Gallery(Home.open(home)).image(task_id).tobytes()
    again = ask(home, Ask.FINISH, asking, finish_record(replace(order, noise_seed=2)))
    assert values_of(again, FAILURE)["kind"] == "not_finished"
    assert Gallery(Home.open(home)).image(task_id).tobytes() == picture


def test_what_would_take_the_whole_device_is_refused(home: Path, config: FederationConfig) -> None:
    huge = config.model.model_copy(update={"height": 100_000, "width": 100_000})
    reply = ask(home, Ask.HELLO, config.model_copy(update={"model": huge}))
    assert values_of(reply, FAILURE) == {"kind": "configuration_refused"}
