"""Fuzz a device with mutated messages of a server, and its agent's socket with mutated bytes."""

import hashlib
import math
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flwr.app import RecordDict
from flwr.common.serde import recorddict_to_proto
from hypothesis import reject
from hypothesis import strategies as st

from experiments.privacy.fuzzing import prompt_messages
from experiments.privacy.fuzzing.mutations import MARK, broken_bytes, broken_json, broken_record
from experiments.privacy.fuzzing.prompt_messages import PROMPT, PromptMessages, sharing_config
from fedaigc.collaboration.session import FinishOrder, ShareOrder
from fedaigc.deployment.agent.agent import Agent, AgentSettings, listening
from fedaigc.deployment.agent.agent_socket import STATUS, Request, ask_agent, socket_path
from fedaigc.device.device import Device
from fedaigc.device.home.gallery import Gallery
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue, TaskStatus
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.diffusion.adapters.stages import SharedState, install
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.server.generation import plan_generation
from fedaigc.federation.server.server_app import initial_shared_state
from fedaigc.federation.wire import generation_messages, messages
from fedaigc.federation.wire.generation_messages import FINISH_REPLY_BYTES
from fedaigc.federation.wire.messages import BODY, FAILURE, Ask
from fedaigc.rng import numpy_rng
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.rule import Received

# largest part of a reply outside of the arrays of an update, in bytes
_MAX_REPLY = 300_000
_FRAME_S = 10.0
# whose replies have one size, whatever was sent
_PADDED = (Ask.OFFER, Ask.KEYS, Ask.BLIND, Ask.EQUAL, Ask.FINISH)


@dataclass
class Outcome:
    """The outcome of one message, with the processor time in seconds, and whether a device refused it."""

    kind: str
    seconds: float
    failures: list[str] = field(default_factory=list)
    refused: bool = False


class DeviceTarget:
    """The agent of a home, valid messages for it, and what must exist after every message."""

    def __init__(self, config: FederationConfig, limits: OwnerLimits | None = None) -> None:
        self.config = config
        self.home = Home.open(config.home(0))
        owner = limits or OwnerLimits(
            boundary_timestep=config.adapter.boundary_timestep,
            max_learning_rate=max(OwnerLimits.max_learning_rate, config.training.learning_rate),
            max_passes=math.inf,
            max_bits_a_day=math.inf,
            sums=True,
            equal_prompts=True,
        )
        sharing = sharing_config(config)
        section = sharing.generation.denoiser
        assert section is not None
        assert section.atlas is not None
        settings = AgentSettings(
            0,
            config.model,
            limits=owner,
            reply_floor_s=0.01,
            atlas=section.atlas,
            calibration=section.calibration,
            min_captions=section.min_captions,
        )
        self.agent = Agent(self.home.root, settings)
        self.queue = PromptQueue(self.home)
        self.text = config.to_run_config()[RUN_CONFIG_KEY]
        self.shared = initial_shared_state(config)
        self.plan = plan_generation(self.shared, config)
        self._install(self.shared)
        self.about_prompts = PromptMessages(self.agent, sharing, self.plan)
        pipe, _ = base_model(config.model)
        install(pipe, self.shared)
        self.packet = run_shared_steps(
            pipe,
            "a fruit on a table",
            self.plan,
            config.generation.num_shared_steps,
            noise_seed=3,
        ).packet
        self._kept = self._content()

    def text_of(self, kind: str) -> str:
        """Return the configuration with which a message of this kind is sent."""
        return self.about_prompts.text if kind in prompt_messages.ASKS else self.text

    def honest(self, kind: str) -> tuple[Ask, RecordDict]:
        """Return a message of one of `KINDS`, as an honest server sends it."""
        if kind in prompt_messages.ASKS:
            return ASKS[kind], self.about_prompts.honest(kind)
        config, task_id = self.config, self._waiting_task()
        if kind == "train":
            return Ask.TRAIN, messages.train_record(
                Received(self.shared, 1),
                "float32",
                numpy_rng(0, "fuzz"),
                strategy_code(config.rounds.strategy),
            )
        if kind == "install":
            return Ask.INSTALL, messages.shared_state_record(self.shared)
        if kind == "share":
            stop = config.generation.num_shared_steps
            order = ShareOrder(0, task_id, "a fruit on a table", 3, self.plan, stop)
            return Ask.SHARE, generation_messages.share_record(order)
        if kind in ("finish", "alone"):
            packet = self.packet if kind == "finish" else None
            return Ask.FINISH, generation_messages.finish_record(
                FinishOrder(0, task_id, self.plan, 3, packet)
            )
        return ASKS[kind], messages.body()

    def ask(self, kind: str, text: str, content: RecordDict) -> Outcome:
        """Let the agent answer a message, and check for all failures."""
        began, outcome = time.process_time(), Outcome(kind, 0.0)
        try:
            reply = self.agent.answer(ASKS[kind], text, content)
        except BaseException as error:
            outcome.failures.append(f"{type(error).__name__} came out of the agent")
            reply = RecordDict()
        outcome.seconds = time.process_time() - began
        outcome.refused = FAILURE in reply
        values = messages.values_of(reply, FAILURE if FAILURE in reply else BODY) if reply else {}
        size = sum(len(str(value)) for name, value in values.items() if name not in ("packet", "manifest"))
        if size > _MAX_REPLY or any(MARK in str(value) for value in values.values()):
            outcome.failures.append("the reply is large, or holds what was sent")
        if ASKS[kind] in _PADDED and text == self.text_of(kind):
            num_bytes = len(recorddict_to_proto(reply).SerializeToString())
            if num_bytes != FINISH_REPLY_BYTES:
                outcome.failures.append(
                    f"a reply of {num_bytes} bytes, which tells what became of the prompt"
                )
        outcome.failures += self.lost()
        return outcome

    def lost(self) -> list[str]:
        """Return what the home has lost. The only allowed changes are drawn prompts and added pictures."""
        found = self._content()
        gone = [name for name, digest in self._kept.items() if found.get(name) != digest]
        self._kept = found
        damaged = [*self.queue.readable()[1], *Gallery(self.home).readable()[1]]
        return [f"{name} is gone or changed" for name in gone] + [
            f"{path.name} is damaged" for path in damaged
        ]

    def _content(self) -> dict[str, str]:
        """Return digests of what a server may not change: prompts by id, pictures and their captions."""
        content = {f"prompt {task.task_id}": task.prompt for task in self.queue.all()}
        # without the intermediate pictures, which another attempt draws again
        files = [*self.home.images.rglob("*"), *self.home.gallery.glob(f"{'[0-9a-f]' * 16}.png")]
        content |= {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()
        }
        return content

    def _waiting_task(self) -> str:
        waiting = [task for task in self.queue.all() if task.status is TaskStatus.WAITING]
        if not waiting:
            # the owner continues to request pictures
            return self.queue.add(PROMPT)
        return waiting[0].task_id

    def _install(self, shared: SharedState) -> None:
        pipe, base_hash = base_model(self.config.model)
        Device(self.home.root, pipe, base_hash=base_hash, taxonomy=taxonomy()).receive(shared)


ASKS = {
    "hello": Ask.HELLO,
    "train": Ask.TRAIN,
    "install": Ask.INSTALL,
    "signatures": Ask.SIGNATURES,
    "share": Ask.SHARE,
    "finish": Ask.FINISH,
    "alone": Ask.FINISH,
    **prompt_messages.ASKS,
}
KINDS = tuple(ASKS)
# quick messages more often than a round of training
_WEIGHED = (
    *KINDS,
    *("hello", "signatures", "share", "finish", "finish", "alone", "install"),
    *("offer", "keys", "masked", "masked", "blind", "equal", "equal", "twins"),
)


@st.composite
def device_message(draw: st.DrawFn, target: DeviceTarget) -> tuple[str, str, RecordDict]:
    """Draw kind, configuration and content of a message, of which configuration, content or both are broken."""
    kind = draw(st.sampled_from(_WEIGHED))
    _, content = target.honest(kind)
    text = target.text_of(kind)
    broken = draw(st.sampled_from(["content", "content", "config", "both"]))
    if broken != "config":
        content = draw(broken_record(content))
    if broken != "content":
        text = draw(broken_json(text))
    return kind, text, content


@contextmanager
def served(target: DeviceTarget, failures: list[str]) -> Iterator[None]:
    """Serve the agent on its socket, and record unhandled errors of its server as failures."""
    with listening(target.agent) as server:
        server.handle_error = lambda *_: failures.append("the socket's server failed")  # type: ignore[method-assign]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@st.composite
def frame(draw: st.DrawFn, target: DeviceTarget) -> bytes:
    """Draw the bytes of a broken request."""
    _, content = target.honest(draw(st.sampled_from(("hello", "install", "finish"))))
    header = f'{{"ask": "{draw(st.sampled_from(["query.hello", STATUS]))}", "config": ""}}'
    try:
        payload = recorddict_to_proto(draw(broken_record(content))).SerializeToString()
    except ValueError:
        # no frame can contain such a number, because protobuf cannot write it
        reject()
    if draw(st.booleans()):
        header = draw(broken_json(header))
    if draw(st.booleans()):
        payload = draw(broken_bytes(payload))
    text = header.encode(errors="surrogatepass")
    lengths = (len(text), len(payload))
    if draw(st.integers(0, 3)) == 0:
        lengths = draw(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)))
    return lengths[0].to_bytes(4, "big") + lengths[1].to_bytes(8, "big") + text + payload


def send_bytes(target: DeviceTarget, data: bytes) -> Outcome:
    """Send bytes to the agent's socket, and check that it still reports its status."""
    began, outcome = time.process_time(), Outcome("bytes", 0.0)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_FRAME_S)
        try:
            connection.connect(str(socket_path(target.home.root)))
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):
                pass
        except TimeoutError:
            outcome.failures.append(f"no end of a connection within {_FRAME_S:.0f} s")
        except OSError:
            # the agent closed the connection before it had read everything
            pass
    status: Any = ask_agent(target.home.root, Request(STATUS), timeout_s=_FRAME_S).status
    outcome.seconds = time.process_time() - began
    if status is None or status["client"] != 0:
        outcome.failures.append("the agent does not tell its status")
    return outcome
