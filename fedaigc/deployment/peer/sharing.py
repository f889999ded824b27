"""Two paired devices share the first steps of two prompts, one of each.

Both disclose a signature of one prompt. One device then runs the shared steps on the public prompt that follows from
both signatures, and sends the packet; each finishes its own picture with its own prompt. Whatever the other device
does or fails to do costs only the sharing: the own prompt is then drawn alone, by the same counted attempts as for
servers. The connection is closed before a picture is finished, so nothing that depends on it can be sent.
"""

import math
import secrets
import time
from collections import deque
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace

from fedaigc.bounds import MAX_PEER_REQUESTS
from fedaigc.collaboration.sealing import SealError, packet_room, seal, sealed_bytes, unseal
from fedaigc.deployment.agent.agent import Agent
from fedaigc.deployment.agent.reply_time import held_back
from fedaigc.deployment.peer import messages
from fedaigc.deployment.peer.agreement import Agreement, Side, agreement
from fedaigc.deployment.peer.frames import Frames, PeerGone, PeerMistake
from fedaigc.deployment.peer.matching import Matching, Refusal, Work, check_steps
from fedaigc.deployment.peer.messages import Agreed, Hello, Match, PeerRefused, Reason, Received, Refused
from fedaigc.deployment.peer.paired import Card, Peers
from fedaigc.device.device import Device
from fedaigc.device.replies import DeviceError, FinishReport, UnknownTask
from fedaigc.diffusion.sampling.segment import latents_shape
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.errors import PacketError, UserError
from fedaigc.federation.preloaded import taxonomy
from fedaigc.semantics.pairs import common
from fedaigc.semantics.policy import Policy

# seconds that the other device may take for a frame, and for the shared steps
FRAME_S = 30.0
COMPUTE_S = 600.0
_HOUR_S = 3600.0
# how long it takes to compare depends on the waiting prompts
_MATCH_FLOOR_S = 0.25
_FAILURES = (PeerGone, PeerMistake, PeerRefused, SealError, UserError, DeviceError, UnknownTask, OSError)


@dataclass(frozen=True)
class Terms:
    """What the owner of the device that calls wants to draw.

    Attributes:
        steps: Number of denoising steps.
        shared_steps: K, how many of them are shared.
        guidance_scale: Guidance scale.
        height: Height of the picture in pixels.
        width: Width of the picture in pixels.
    """

    steps: int
    shared_steps: int
    guidance_scale: float
    height: int
    width: int

    def plan(self, device: Device) -> DenoisingPlan:
        """Return the plan of the pictures on this device. UserError if it cannot be drawn, or handed on after K."""
        plan = build_plan(
            device.pipe,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance_scale,
            height=self.height,
            width=self.width,
            base_hash=device.base_hash,
        )
        check_steps(plan, self.shared_steps)
        return plan


def plan_room(device: Device, plan: DenoisingPlan) -> int:
    """Return the size up to which packets of a plan are padded: they have one size for every K."""
    return packet_room(math.prod(latents_shape(device.pipe, plan)))


@dataclass(frozen=True)
class Reached:
    """A paired device at the other end of a connection.

    Attributes:
        frames: The connection, over TLS.
        name: The owner's name for the device.
        card: Its keys.
    """

    frames: Frames
    name: str
    card: Card


@dataclass(frozen=True)
class Outcome:
    """How a sharing ended for this device.

    Attributes:
        peer: The owner's name for the other device; "" if it is not known which one it was.
        task_id: The task that was drawn; None: none was.
        report: Report about its picture.
        executor: Whether this device or the other one ran the shared steps ("own", "other"), or nobody ("").
        why: What went wrong, for the owner; "" for nothing.
    """

    peer: str = ""
    task_id: str | None = None
    report: FinishReport | None = None
    executor: str = ""
    why: str = ""


class Sharer:
    """One device that shares with paired ones.

    Args:
        agent: The agent of the device.
        cost: What computing costs it, see `agreement.own_cost`.
        frame_s: Seconds that the other device may take for a message.
        compute_s: Seconds that it may take to compare its prompts, and for the shared steps.

    Raises:
        UserError: Under the policy `open`, which would send prompts.
    """

    def __init__(
        self, agent: Agent, cost: int, *, frame_s: float = FRAME_S, compute_s: float = COMPUTE_S
    ) -> None:
        if agent.settings.policy is Policy.OPEN:
            raise UserError("the policy open would send prompts to other devices: choose another one")
        self._agent = agent
        self.home = agent.home.root
        self.peers = Peers(agent.home)
        self.frame_s = frame_s
        self._matching = Matching(agent)
        self._own = self.peers.own()
        self._cost = cost
        self._compute_s = compute_s
        self._asked: dict[str, deque[float]] = {}

    def call(
        self, connection: AbstractContextManager[Reached], terms: Terms, task_id: str | None = None
    ) -> Outcome:
        """Share a prompt with a device that listens, and draw it in any case.

        Args:
            connection: Opens the connection.
            terms: What to draw.
            task_id: The task; None: the oldest that waits.

        Raises:
            UserError: If no such task waits, or this device cannot draw it so.
        """
        with self._agent.pipeline_lock:
            device = self._agent.open_device()
            task_id = _waiting(device, task_id)
            plan = terms.plan(device)
            request = PlanRequest.of(plan)
            nodes = self._matching.nodes(request, terms.shared_steps)
            signature = self._matching.signature(device, task_id, nodes)
            if signature is None:
                outcome = Outcome(
                    why="nothing of this prompt may be disclosed, or no public prompt is near enough"
                )
                return self._drawn(outcome, device, task_id, plan, None)
            work = Work(device, task_id, signature, plan, terms.shared_steps, nodes)
            outcome, packet = Outcome(), None
            try:
                with connection as reached:
                    outcome = replace(outcome, peer=reached.name)
                    found = self._called(reached, request, work)
                    outcome, packet = self._exchanged(reached, found, work, outcome)
            except _FAILURES as error:
                outcome = self._failed(outcome, error)
            return self._drawn(outcome, device, task_id, plan, packet)

    def answer(self, connection: AbstractContextManager[Reached]) -> Outcome:
        """Share a waiting prompt with a device that calls, if one fits. From then on it is drawn in any case.

        Args:
            connection: The connection.
        """
        outcome, packet, work = Outcome(), None, None
        with ExitStack() as working:
            try:
                with connection as reached:
                    outcome = replace(outcome, peer=reached.name)
                    hello = messages.receive(reached.frames, Hello)
                    try:
                        lock = self._agent.pipeline_lock
                        if self._asked_often(reached.card) or not lock.acquire(blocking=False):
                            raise Refusal(Reason.BUSY, "busy, or asked too often")
                        working.callback(lock.release)
                        with held_back(_MATCH_FLOOR_S):
                            work = self._matching.fitting(hello)
                    except Refusal as refusal:
                        messages.send(reached.frames, Refused(refusal.reason))
                        return replace(outcome, why=str(refusal))
                    found = self._answered(reached, hello, work)
                    outcome, packet = self._exchanged(reached, found, work, outcome)
            except _FAILURES as error:
                outcome = self._failed(outcome, error)
            if work is None:
                return outcome
            return self._drawn(outcome, work.device, work.task_id, work.plan, packet)

    def _called(self, reached: Reached, request: PlanRequest, work: Work) -> Agreement:
        """Agree with the device that answers."""
        if self._matching.counted(work.device, work.task_id, work.nodes) != work.signature:
            raise PeerMistake("the budget of disclosures is used up")
        mine = Side(self._own.fingerprint, secrets.token_hex(32), self._cost, work.signature)
        hello = Hello(
            messages.VERSION,
            request.values(),
            work.shared_steps,
            work.space,
            mine.nonce,
            mine.cost,
            work.signature.to_json(),
        )
        messages.send(reached.frames, hello)
        # it compares all its waiting prompts
        match = messages.receive(reached.frames, Match, self._compute_s)
        theirs = messages.disclosed(match.signature, nodes=work.nodes is not None)
        found = _agreement(mine, Side(reached.card.fingerprint, match.nonce, match.cost, theirs), work)
        messages.send(reached.frames, Agreed(found.digest))
        return found

    def _answered(self, reached: Reached, hello: Hello, work: Work) -> Agreement:
        """Agree with the device that called."""
        theirs = messages.disclosed(hello.signature, nodes=work.nodes is not None)
        mine = Side(self._own.fingerprint, secrets.token_hex(32), self._cost, work.signature)
        messages.send(reached.frames, Match(mine.nonce, mine.cost, work.signature.to_json()))
        agreed = messages.receive(reached.frames, Agreed)
        found = _agreement(Side(reached.card.fingerprint, hello.nonce, hello.cost, theirs), mine, work)
        if agreed.agreement != found.digest:
            raise PeerMistake("the other device agreed to something else")
        return found

    def _exchanged(
        self, reached: Reached, found: Agreement, work: Work, outcome: Outcome
    ) -> tuple[Outcome, bytes]:
        """Run the shared steps and send the packet, or receive it; return the packet."""
        room = plan_room(work.device, work.plan)
        if found.executor != self._own.fingerprint:
            sealed = reached.frames.receive(sealed_bytes(room, 1), self._compute_s)
            packet = unseal(sealed, found.binding, self.peers.seal_key(), reached.card.seal_key)
            messages.send(reached.frames, Received())
            return replace(outcome, executor="other"), packet
        steps = work.device.share(
            work.task_id, found.prompt, work.plan, work.shared_steps, noise_seed=found.noise_seed
        )
        outcome = replace(outcome, executor="own")
        try:
            sealed = seal(steps.packet, found.binding, self.peers.seal_key(), [reached.card.seal_key], room)
            reached.frames.send(sealed)
            messages.receive(reached.frames, Received)
        except _FAILURES as error:
            # the own picture goes on from these steps
            return self._failed(outcome, error), steps.packet
        return outcome, steps.packet

    def _drawn(
        self, outcome: Outcome, device: Device, task_id: str, plan: DenoisingPlan, packet: bytes | None
    ) -> Outcome:
        """Draw the prompt: from the packet, or alone."""
        # of samplers that draw noise: this task's own
        seed = secrets.randbits(63)
        try:
            if packet is not None:
                try:
                    report = device.finish(task_id, packet, plan, noise_seed=seed)
                    return replace(outcome, task_id=task_id, report=report)
                except (PacketError, UserError, DeviceError) as error:
                    outcome = replace(self._failed(outcome, error), executor="")
            return replace(outcome, task_id=task_id, report=device.alone(task_id, seed, plan))
        except UnknownTask:
            return replace(outcome, why="the prompt waits no longer")

    def _failed(self, outcome: Outcome, error: BaseException) -> Outcome:
        self._agent.note(f"sharing with {outcome.peer or 'another device'}: {error}\n")
        return replace(outcome, why=str(error))

    def _asked_often(self, card: Card) -> bool:
        """Count a request; each answer says whether any waiting prompt fits."""
        now = time.monotonic()
        asked = self._asked.setdefault(card.fingerprint, deque())
        while asked and asked[0] < now - _HOUR_S:
            asked.popleft()
        if len(asked) >= MAX_PEER_REQUESTS:
            return True
        asked.append(now)
        return False


def _waiting(device: Device, task_id: str | None) -> str:
    waiting = device.waiting()
    if not waiting:
        raise UserError("no prompt waits on this device: add one with `fedaigc device add-prompt HOME TEXT`")
    if task_id is not None and task_id not in waiting:
        raise UserError(f"no task {task_id!r:.40} waits: `fedaigc device queue HOME` lists them")
    return waiting[0] if task_id is None else task_id


def _agreement(calls: Side, answers: Side, work: Work) -> Agreement:
    atlas = work.nodes.atlas if work.nodes is not None else None
    shared = common(calls.signature, answers.signature, atlas, taxonomy())
    if shared is None:
        raise PeerMistake("the other device chose a prompt that does not fit")
    return agreement(calls, answers, shared, work.plan.fingerprint(), work.shared_steps)
