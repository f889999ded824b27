"""The resident agent of a device: the only process that opens its home, with a warm pipeline.

It answers one message at a time over a Unix socket that only its owner can open. It computes with the code
and the base model installed on this machine, whatever a server names, and discloses no more of a prompt than
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
from fedaigc.deployment.agent.node_signing import Signer, node_signer
from fedaigc.deployment.agent.reply_time import held_back
from fedaigc.deployment.server.keys import DEVICE_KEY
from fedaigc.device.device import Device
from fedaigc.device.home.budget import note_agent_budget
from fedaigc.device.home.home import AGENT_LOCK, RUN_LOCK, Home, note_error
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError, Failure, refusing
from fedaigc.device.scoring import Scorer
from fedaigc.diffusion.loading import EMBEDDED
from fedaigc.errors import UserError
from fedaigc.federation.client import handlers
from fedaigc.federation.config.config_bounds import config_from_server
from fedaigc.federation.config.run_config import FederationConfig, ModelSection
from fedaigc.federation.node_sharing import load_disclosure
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.wire.messages import Ask
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.shipped import sharing_files
from fedaigc.semantics.policy import LEAST_FIRST, Policy
from fedaigc.storage.file_lock import is_locked, locked

REPLY_FLOOR_S = 1.0
# parsing the waiting prompts takes milliseconds, and the time depends on the prompts
_SIGNATURES_FLOOR_S = 0.25
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class AgentSettings:
    """Settings that the owner of a device decides.

    Attributes:
        client: Number under which the server knows the device.
        model: Base model, from this machine.
        policy: The most that may be disclosed of a prompt; a server that asks for more gets this.
        min_public_prompts: How many objects of Scenes must share a signature (see `semantics.signature`);
            servers may ask for more.
        scores: Whether reports hold the judge's coarse scores, with which a server could search for the
            prompt.
        threads: Number of torch threads.
        strip_pictures: How many intermediate images are kept per image if the server asks for none; they stay
            on the device.
        limits: See `OwnerLimits`.
        reply_floor_s: Least seconds to the reply to an order to finish or to give a conditioning, see `reply_time`.
        atlas: The public atlas by which nodes of prompts are disclosed. A server cannot choose it: one that it made
            could isolate a prompt. None: the one that ships with the embedded model; for other models only concepts
            are disclosed.
        atlas_hash: The hash that the atlas must have, or its first 16 digits or more. None: any.
        calibration: What sharing costs, from `fedaigc calibrate`. None: the one that ships with the shipped atlas; with
            another atlas nodes are never lifted, and of a ladder the first hand-off is taken.
        min_captions: How many public captions must disclose the same node; servers may ask for more.
        tolerance: Largest damage of a picture; servers may ask for less.
        risk: Largest share of pictures beyond the tolerance; servers may ask for less.
        trusted_keys: Node keys, in the OpenSSH format, of the devices with which conditionings are summed (`limits`
            has to permit sums); None: of any device that the server names.
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
    atlas: Path | None = None
    atlas_hash: str | None = None
    calibration: Path | None = None
    min_captions: int = 8
    tolerance: float = 0.5
    risk: float = 0.2
    trusted_keys: frozenset[bytes] | None = None


class Agent:
    """Answers messages for the home of one device; a `Host` of the federation's handlers.

    Args:
        home: Home of the device.
        settings: Settings of the owner.

    Raises:
        UserError: If the atlas does not have the hash that its owner expects.
    """

    def __init__(self, home: Path, settings: AgentSettings) -> None:
        self.home = Home.open(home)
        self.client = settings.client
        self.scores = settings.scores
        self.limits: OwnerLimits | None = settings.limits
        self.trusted_keys = settings.trusted_keys
        self._settings = settings
        if settings.atlas_hash is not None:
            self._check_atlas(Atlas.read(sharing_files(settings.atlas, None, settings.model.name)[0]))
        note_agent_budget(self.home, settings.limits)
        self._busy = threading.Lock()
        torch.set_num_threads(settings.threads)
        self._pipe, self._base_hash = base_model(settings.model)
        # by the part of a run's configuration that they depend on
        self._disclosures: dict[str, NodeDisclosure] = {}

    def base_hash(self) -> str:
        """Return the fingerprint of the base model on this machine."""
        return self._base_hash

    def open_device(self, scorer: Scorer | None = None) -> Device:
        """Open the device with the warm pipeline."""
        return Device(
            self.home.root,
            self._pipe,
            base_hash=self._base_hash,
            taxonomy=taxonomy(),
            scorer=scorer,
            strip_pictures=self._settings.strip_pictures,
        )

    @property
    def settings(self) -> AgentSettings:
        """The settings of the owner."""
        return self._settings

    @property
    def pipeline_lock(self) -> threading.Lock:
        """Held while anything is computed, because there is one pipeline."""
        return self._busy

    def permitted(self, policy: Policy, min_public_prompts: int) -> tuple[Policy, int]:
        """Return the less disclosing of the server's and the owner's policy, and the larger number."""
        less = min(policy, self._settings.policy, key=LEAST_FIRST.index)
        return less, max(min_public_prompts, self._settings.min_public_prompts)

    def node_disclosure(self, config: FederationConfig) -> NodeDisclosure:
        """Return how this device discloses nodes: by the files of its owner, and no more than these permit.

        Raises:
            DeviceError: If the owner chose no atlas, and none ships with the model.
            UserError: If atlas or calibration is missing, damaged, or for another model or plan.
        """
        asked, own = config.generation.denoiser, self._settings
        if asked is None or (own.atlas is None and own.model.name != EMBEDDED):
            raise DeviceError(
                Failure.CONFIGURATION_REFUSED,
                "the server asks for nodes of an atlas, and this device has none: `fedaigc device start --atlas FILE`",
            )
        section = asked.model_copy(
            update={
                "atlas": own.atlas,
                "calibration": own.calibration,
                "min_captions": max(asked.min_captions, own.min_captions),
                "tolerance": min(asked.tolerance, own.tolerance),
                "risk": min(asked.risk, own.risk),
                # without a calibration the first hand-off is the only one
                "ladder": () if own.calibration is None and own.atlas is not None else asked.ladder,
            }
        )
        generation = config.generation.model_copy(update={"denoiser": section})
        told = FederationConfig(
            homes=Path(),
            output=Path(),
            model=own.model.model_copy(update={"height": config.model.height, "width": config.model.width}),
            generation=generation,
        )
        key = told.model_dump_json()
        if key not in self._disclosures:
            # of the last configuration only: a server cannot fill the memory
            loaded = load_disclosure(self._pipe, self._base_hash, told)
            # the file may have been changed since the start
            self._check_atlas(loaded.atlas)
            self._disclosures = {key: loaded}
        return self._disclosures[key]

    def _check_atlas(self, atlas: Atlas) -> None:
        expected = self._settings.atlas_hash
        if expected is not None and not atlas.hash.startswith(expected):
            raise UserError(
                f"the atlas has the hash {atlas.hash[:16]}, and the owner of this device expects {expected[:16]}: it "
                "is another file, or one that was altered; get the file again from who built it, or give its hash, "
                "which `fedaigc atlas show` prints, with --atlas-hash"
            )

    def signer(self) -> Signer | None:
        """Return the public node key and what signs with it; None for a device without TLS."""
        return node_signer(self.home.root / "keys" / DEVICE_KEY)

    def note(self, text: str) -> None:
        """Append the text to errors.log in the home."""
        note_error(self.home.root, text)

    def status(self) -> dict[str, int | str | bool]:
        """Return numbers and a fingerprint, which anyone with access to the socket can know.

        This works even if the file of a prompt is damaged: the agent runs, and the other prompts wait.
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
        """Return the reply to a message of the federation; one at a time, because there is one pipeline.

        Replies that depend on a prompt leave at times that do not depend on it. No other message is answered
        in the meantime, since that would reveal when the computation ended.

        Args:
            ask: Kind of the message.
            config: The run's configuration as JSON, as the server sent it.
            content: Content of the message.
        """
        try:
            # before the lock: an invalid configuration must not delay other messages
            with refusing(Failure.CONFIGURATION_REFUSED):
                parsed = config_from_server(config)
        except DeviceError as error:
            self.note(f"{error}\n")
            return handlers.refused(ask, error)
        floor_s = {
            Ask.FINISH: self._settings.reply_floor_s,
            Ask.SIGNATURES: _SIGNATURES_FLOOR_S,
            Ask.OFFER: _SIGNATURES_FLOOR_S,
            Ask.KEYS: _SIGNATURES_FLOOR_S,
            Ask.MASKED: self._settings.reply_floor_s,
            Ask.BLIND: _SIGNATURES_FLOOR_S,
            Ask.EQUAL: _SIGNATURES_FLOOR_S,
            Ask.TWINS: self._settings.reply_floor_s,
        }.get(ask)
        with self._busy, contextlib.nullcontext() if floor_s is None else held_back(floor_s):
            return handlers.answer(ask, content, self, parsed)


@contextlib.contextmanager
def listening(agent: Agent) -> Iterator[socketserver.BaseServer]:
    """Open a server on the agent's socket; its `serve_forever` answers until `shutdown`.

    Raises:
        UserError: If another agent already serves this home, or a simulation works in it.
    """
    with only_agent(agent.home):
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
def only_agent(home: Home) -> Iterator[None]:
    """Hold a home as its only agent; UserError as `listening`."""
    busy = f"an agent is already running for {home.root}: `fedaigc device stop {home.root}` ends it"
    with locked(home.root / AGENT_LOCK, busy=busy):
        # a simulation looks for agents once it holds its lock, so one of the two sees the other
        if is_locked(home.root.absolute().parent / RUN_LOCK):
            raise UserError(f"a simulation runs in {home.root.absolute().parent}: wait for its end")
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
            # an invalid request, or the peer is gone: no answer, and no text of the request is logged
            _LOG.info("dropped a request: %s", type(error).__name__)
