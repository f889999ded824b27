"""The resident agent of a device: the only process that opens its home, with the pipeline warm.

It answers over a Unix socket that its owner alone can open, one message at a time. It computes with the code
and the base model that are installed here, whatever a server names, and discloses no more of a prompt than
its owner permits.
"""

import contextlib
import logging
import os
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from flwr.app import RecordDict

from fedaigc.deployment.agent.agent_socket import STATUS, read_request, send_frame, socket_path
from fedaigc.deployment.agent.reply_time import held_back
from fedaigc.device.device import Device
from fedaigc.device.home.home import Home, note_error
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.scoring import Scorer
from fedaigc.errors import UserError
from fedaigc.federation.client import handlers
from fedaigc.federation.config.config_bounds import config_from_server
from fedaigc.federation.config.run_config import ModelSection
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.wire.messages import Ask
from fedaigc.semantics.signature import LEAST_FIRST, Policy
from fedaigc.storage.file_lock import locked

LOCK = "agent.lock"
REPLY_FLOOR_S = 1.0
# to parse the prompts that wait takes milliseconds, which depend on them
_SIGNATURES_FLOOR_S = 0.25
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AgentSettings:
    """What the owner of a device decides.

    client: the number under which the server knows the device. model: the base model, from this machine.
    policy: the most that may be disclosed of a prompt; a server that asks for more gets this.
    min_public_prompts: how many objects of Scenes must share a signature (see `semantics.signature`); servers
    may ask for more. scores: whether reports hold the judge's coarse
    scores, with which a server could search for the prompt. threads: of torch. strip_pictures: how many
    pictures of the way to an image are kept where the server asks for none; they stay on the device. limits:
    see `OwnerLimits`. reply_floor_s: the least time to the reply to an order to finish, see `reply_time`.
    """

    client: int
    model: ModelSection
    policy: Policy = Policy.KIND
    min_public_prompts: int = 3
    scores: bool = False
    threads: int = 1
    strip_pictures: int = 0
    limits: OwnerLimits = field(default_factory=OwnerLimits)
    reply_floor_s: float = REPLY_FLOOR_S


class Agent:
    """Answers messages for the home of one device; a `Host` of the federation's handlers."""

    def __init__(self, home: Path, settings: AgentSettings) -> None:
        self.home = Home.open(home)
        self.client = settings.client
        self.scores = settings.scores
        self.limits: OwnerLimits | None = settings.limits
        self._settings = settings
        self._busy = threading.Lock()
        torch.set_num_threads(settings.threads)
        self._pipe, self._base_hash = base_model(settings.model)

    def base_hash(self) -> str:
        """Of the model that this machine has."""
        return self._base_hash

    def open_device(self, scorer: Scorer | None = None) -> Device:
        """The device, with the warm pipeline."""
        return Device(
            self.home.root,
            self._pipe,
            base_hash=self._base_hash,
            taxonomy=taxonomy(),
            scorer=scorer,
            strip_pictures=self._settings.strip_pictures,
        )

    def permitted(self, policy: Policy, min_public_prompts: int) -> tuple[Policy, int]:
        """The less disclosing policy of the server's and the owner's, and the larger number."""
        less = min(policy, self._settings.policy, key=LEAST_FIRST.index)
        return less, max(min_public_prompts, self._settings.min_public_prompts)

    def note(self, text: str) -> None:
        """Into errors.log of the home."""
        note_error(self.home.root, text)

    def status(self) -> dict[str, int | str | bool]:
        """Numbers and a fingerprint: what anyone who may open the socket can know.

        Also where a prompt's file is damaged: the agent is there, and the others wait.
        """
        waiting = len(PromptQueue(self.home).waiting())
        return {
            "pid": os.getpid(),
            "client": self.client,
            "base": self._base_hash,
            "waiting": waiting,
            "busy": self._busy.locked(),
        }

    def answer(self, ask: Ask, config: str, content: RecordDict) -> RecordDict:
        """The reply to a message of the federation; one at a time, for there is one pipeline.

        What depends on a prompt leaves at times that do not; nobody is answered meanwhile, who could tell by
        that when it was done.
        """
        try:
            # before the lock: a wrong configuration keeps nobody waiting
            parsed = config_from_server(config)
        except UserError as error:
            self.note(f"{error}\n")
            return handlers.refused(ask, error)
        floor_s = {Ask.FINISH: self._settings.reply_floor_s, Ask.SIGNATURES: _SIGNATURES_FLOOR_S}.get(ask)
        with self._busy, contextlib.nullcontext() if floor_s is None else held_back(floor_s):
            return handlers.answer(ask, content, self, parsed)


@contextlib.contextmanager
def listening(agent: Agent) -> Iterator[socketserver.BaseServer]:
    """A server on the agent's socket; `serve_forever` answers until `shutdown`.

    UserError when another agent has this home already.
    """
    with _only_agent(agent.home):
        path = socket_path(agent.home.root)
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server = _Server(str(path), _Connection)
        finally:
            os.umask(before)
        server.agent = agent
        try:
            yield server
        finally:
            server.server_close()
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _only_agent(home: Home) -> Iterator[None]:
    busy = f"an agent runs for {home.root} already: `fedaigc device stop {home.root}` ends it"
    with locked(home.root / LOCK, busy=busy):
        yield


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    agent: Agent


class _Connection(socketserver.BaseRequestHandler):
    """One request, one reply."""

    def handle(self) -> None:
        server = self.server
        assert isinstance(server, _Server)
        try:
            request = read_request(self.request)
            if request.ask == STATUS:
                send_frame(self.request, {"status": server.agent.status()}, None)
                return
            content = request.content if request.content is not None else RecordDict()
            reply = server.agent.answer(Ask(request.ask), request.config, content)
            send_frame(self.request, {}, reply)
        except Exception as error:
            # not one of ours, or gone: it gets no answer, and its text is nowhere but at its sender's
            _LOG.info("a request was dropped: %s", type(error).__name__)
