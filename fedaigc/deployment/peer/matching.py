"""Which waiting prompt of a device may be shared with another device's, and what is said of it."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedaigc.bounds import MAX_OFFERS, MAX_PEER_TASKS
from fedaigc.deployment.agent.agent import Agent
from fedaigc.deployment.peer import messages
from fedaigc.deployment.peer.messages import Hello, Reason
from fedaigc.device.device import Device
from fedaigc.device.disclosing import Discloser
from fedaigc.device.home.budget import budget_of
from fedaigc.device.replies import DeviceError
from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.handoff.packing import check_handoff
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.diffusion.schedule.plan_request import PlanRequest
from fedaigc.errors import UserError
from fedaigc.federation.config.denoiser_section import DenoiserSection
from fedaigc.federation.config.run_config import FederationConfig, GenerationSection
from fedaigc.federation.preloaded import taxonomy
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.pairs import best
from fedaigc.semantics.signature import disclose


@dataclass(frozen=True)
class Work:
    """One prompt of this device, and what is to be drawn.

    Attributes:
        device: The device.
        task_id: Task of the prompt.
        signature: What is said of it.
        plan: The plan of the picture.
        shared_steps: K.
        nodes: How nodes of the owner's atlas are disclosed; None: concepts are, without an atlas.
    """

    device: Device
    task_id: str
    signature: Disclosed
    plan: DenoisingPlan
    shared_steps: int
    nodes: NodeDisclosure | None

    @property
    def space(self) -> str:
        """How prompts are compared: hash of the atlas, "" for concepts."""
        return _space(self.nodes)


class Refusal(Exception):
    """This device does not share, for a reason that the other one may know and a text for its owner."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Matching:
    """The waiting prompts of one device, for other devices.

    Args:
        agent: The agent of the device.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def fitting(self, hello: Hello) -> Work:
        """Return the waiting prompt that shares most with the one of a hello, and count the answer.

        Raises:
            Refusal: If none does, or the device does not draw what is asked.
        """
        device, settings = self._agent.open_device(), self._agent.settings
        pipe: Any = device.pipe
        try:
            request, own = hello.request, type(pipe.scheduler).__name__
            if request.shared_hash or request.scheduler_class != own:
                raise UserError(f"the plan has a shared state, or another scheduler than {own}")
            plan = device.plan(request, settings.limits)
            check_steps(plan, hello.shared_steps)
            nodes = self.nodes(request, hello.shared_steps)
        except (UserError, DeviceError) as error:
            self._agent.note(f"{error}\n")
            raise Refusal(Reason.PLAN, str(error)) from error
        if hello.space != _space(nodes):
            raise Refusal(Reason.OTHER_SPACE, "it compares prompts by another atlas, or by concepts")
        theirs = messages.disclosed(hello.signature, nodes=nodes is not None)
        waiting = [task.task_id for task in device.prompts.waiting() if task.offers < MAX_OFFERS]
        found = [(task, self.signature(device, task, nodes)) for task in waiting[:MAX_PEER_TASKS]]
        sayable = [(task, signature) for task, signature in found if signature is not None]
        match = best(theirs, sayable, nodes.atlas if nodes is not None else None, taxonomy())
        if match is None:
            raise Refusal(Reason.NOTHING_FITS, "no waiting prompt fits its own")
        task_id, _ = match
        device.prompts.begin_offer(task_id)
        said = self.counted(device, task_id, nodes)
        if said is None:
            raise Refusal(Reason.NOTHING_FITS, "the budget of disclosures is used up")
        return Work(device, task_id, said, plan, hello.shared_steps, nodes)

    def nodes(self, request: PlanRequest, shared_steps: int) -> NodeDisclosure | None:
        """Return how nodes of the owner's atlas are disclosed under a plan; None: concepts are, without an atlas."""
        own = self._agent.settings
        if own.atlas is None:
            return None
        section = DenoiserSection(
            atlas=own.atlas, min_captions=own.min_captions, tolerance=own.tolerance, risk=own.risk
        )
        generation = GenerationSection(
            num_inference_steps=request.num_inference_steps,
            guidance_scale=request.guidance_scale,
            num_shared_steps=shared_steps,
            denoiser=section,
        )
        size = {"height": request.height, "width": request.width}
        model = own.model.model_copy(update=size)
        return self._agent.node_disclosure(
            FederationConfig(homes=Path(), output=Path(), model=model, generation=generation)
        )

    def signature(self, device: Device, task_id: str, nodes: NodeDisclosure | None) -> Disclosed | None:
        """Return what may be disclosed of a prompt, to compare it here; None: nothing.

        Nothing is, where the owner wants noise on nodes: the prompt may lie far from a node that was drawn.
        """
        prompt, own = device.prompts.get(task_id).prompt, self._agent.settings
        if nodes is None:
            return disclose(parse(prompt, taxonomy()), own.policy, taxonomy(), own.min_public_prompts)
        if budget_of(self._agent.home, own.limits).node_epsilon < math.inf:
            return None
        put_adapters(device.pipe, None, None)
        return nodes.disclose(device.pipe, prompt)

    def counted(self, device: Device, task_id: str, nodes: NodeDisclosure | None) -> Disclosed | None:
        """Return the same to be sent, counted in the ledger; None if the owner's budget does not allow it."""
        own = self._agent.settings
        discloser = Discloser(device.prompts, own.limits)
        if nodes is None:
            return discloser.concepts(task_id, own.policy, taxonomy(), own.min_public_prompts)
        put_adapters(device.pipe, None, None)
        return discloser.node(task_id, nodes, device.pipe)


def check_steps(plan: DenoisingPlan, shared_steps: int) -> None:
    """Raise UserError for a number of shared steps after which a plan cannot be handed on, or nothing is left."""
    if not 0 < shared_steps < plan.num_steps:
        raise UserError(
            f"{shared_steps} shared steps of {plan.num_steps}: expected 1 to {plan.num_steps - 1}"
        )
    check_handoff(plan, shared_steps)


def _space(nodes: NodeDisclosure | None) -> str:
    return "" if nodes is None else nodes.atlas.hash
