"""A configuration by the denoiser's distance, and a server's messages about a prompt under it.

These are nodes, offers, sums and equality tests. Each is about a task that may still answer it.
"""

import numpy as np
from flwr.app import RecordDict

from fedaigc.bounds import MAX_EQUALITY_TESTS, MAX_OFFERS
from fedaigc.collaboration.equality.blinded_keys import BlindedKey
from fedaigc.collaboration.secure_sum.masks import Announced, SumKey
from fedaigc.collaboration.session import FinishOrder, ShareOrder, TwinSteps
from fedaigc.deployment.agent.agent import Agent
from fedaigc.device.home.equality import EqualityLog
from fedaigc.device.home.prompts import PromptQueue, TaskStatus
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.federation.config.denoiser_section import DenoiserSection
from fedaigc.federation.config.run_config import RUN_CONFIG_KEY, FederationConfig
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.wire import equality_messages, generation_messages, messages, sum_messages
from fedaigc.federation.wire.equality_messages import BlindOrder, EqualOrder
from fedaigc.federation.wire.messages import Ask
from fedaigc.federation.wire.sum_messages import KeyOrder, MaskOrder
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.atlas_build import build_tree
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.offer import Offer
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, phi

PROMPT = "a shiny apple on a table"
# each with the question that it asks
ASKS = {
    "nodes": Ask.SIGNATURES,
    "offer": Ask.OFFER,
    "keys": Ask.KEYS,
    "masked": Ask.MASKED,
    "blind": Ask.BLIND,
    "equal": Ask.EQUAL,
    "twins": Ask.TWINS,
    "twin's finish": Ask.FINISH,
}


def sharing_config(config: FederationConfig) -> FederationConfig:
    """Return a configuration by the denoiser's distance with a ladder, means and equality tests, and write its files.

    All captions of the atlas disclose its root, so that all prompts may be in one group.
    """
    pipe, base_hash = base_model(config.model)
    settings = config.generation
    plan = build_plan(
        pipe,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        height=config.model.height,
        width=config.model.width,
        base_hash=base_hash,
    )
    space = DenoiserSpace.of(plan)
    captions = [f"a {thing} on a {place}" for thing in ("cat", "dog") for place in ("bed", "road", "table")]
    first = settings.num_shared_steps - 1
    far = tuple(np.linspace(0, 1e6, 40).tolist())
    damages: dict[str, tuple[float, ...]] = {str(k): (0.0,) * 40 for k in (first, first + 1)}
    curve = Calibration(
        space.hash,
        plan.fingerprint(),
        plan.scheduler_class,
        plan.num_steps,
        settings.guidance_scale,
        "public",
        0,
        far,
        damages,
    )
    folder = config.homes.parent
    build_tree(space.hash, {}, captions, phi(pipe, space, captions), 2).write(folder / "public.atlas")
    curve.write(folder / "curve.json")
    section = DenoiserSection(
        atlas=folder / "public.atlas",
        calibration=folder / "curve.json",
        min_captions=len(captions),
        ladder=(first + 1,),
        conditioning="mean",
        equal_prompts=True,
    )
    shared = settings.model_copy(update={"num_shared_steps": first, "denoiser": section})
    return config.model_copy(update={"generation": shared})


class PromptMessages:
    """Valid messages about a prompt to the agent of a home.

    Args:
        agent: The agent. It must have the atlas of the configuration.
        config: A configuration of `sharing_config`, with equality tests.
        plan: The plan of orders to run steps.
    """

    def __init__(self, agent: Agent, config: FederationConfig, plan: DenoisingPlan) -> None:
        section = config.generation.denoiser
        assert section is not None
        assert section.atlas is not None
        self._agent, self._plan = agent, plan
        self._queue, self._tests = PromptQueue(agent.home), EqualityLog(agent.home)
        self._run, self._stop = config.run_key, config.generation.num_shared_steps
        self.text = config.for_devices().to_run_config()[RUN_CONFIG_KEY]
        self._atlas = Atlas.read(section.atlas)
        self._ladder = (config.generation.num_shared_steps, *section.ladder)
        self._task, self._number = "", 0

    def honest(self, kind: str) -> RecordDict:
        """Return a message of one of `ASKS`, as an honest server sends it, after those that have to precede it."""
        task_id = self._answering_task()
        self._number += 1
        number = f"{self._number:032x}"
        if kind == "nodes":
            return messages.body()
        if kind == "offer":
            return generation_messages.offer_record(Offer(task_id, 0, self._ladder, np.zeros(0, np.float32)))
        if kind in ("keys", "masked"):
            return self._of_a_sum(kind, task_id, number)
        return self._of_a_test(kind, task_id, number)

    def _of_a_sum(self, kind: str, task_id: str, number: str) -> RecordDict:
        order = sum_messages.key_order_record(KeyOrder(task_id, number))
        if kind == "keys":
            return order
        own = sum_messages.read_key(self._answer(Ask.KEYS, order))
        members = (own, *(Announced(SumKey().public) for _ in range(2)))
        caption = self._atlas.captions[self._atlas.medoid(0)]
        return sum_messages.mask_order_record(MaskOrder(task_id, number, caption, members))

    def _of_a_test(self, kind: str, task_id: str, number: str) -> RecordDict:
        blind = equality_messages.blind_order_record(BlindOrder(task_id, number))
        if kind == "blind":
            return blind
        own = equality_messages.read_blinded(self._answer(Ask.BLIND, blind))
        # with another prompt
        other = BlindedKey(bytes(32), self._run, number).public
        equal = equality_messages.equal_order_record(EqualOrder(task_id, number, (own, other)))
        if kind == "equal":
            return equal
        self._answer(Ask.EQUAL, equal)
        twins = TwinSteps(number, own, (own, other), self._stop)
        steps = equality_messages.twin_order_record(
            ShareOrder(0, task_id, "", 3, self._plan, self._stop, twins=twins)
        )
        if kind == "twins":
            return steps
        packet = messages.values_of(self._answer(Ask.TWINS, steps))["packet"]
        own_twin = TwinSteps(number, own, (), self._stop)
        return generation_messages.finish_record(FinishOrder(0, task_id, self._plan, 3, packet, own_twin))

    def _answer(self, ask: Ask, content: RecordDict) -> RecordDict:
        return self._agent.answer(ask, self.text, content)

    def _answering_task(self) -> str:
        """Return a waiting task of which a node was disclosed, and which may answer any message."""
        task = self._queue.get(self._task) if self._task else None
        waits = task is not None and task.status is TaskStatus.WAITING
        summed = {each.task_id for each in self._agent.open_device().sums.entries() if each.status == "given"}
        tested = {each.task_id for each in self._tests.entries() if each.tests >= MAX_EQUALITY_TESTS}
        if task is None or not waits or task.offers >= MAX_OFFERS or self._task in summed | tested:
            if waits:
                # or the queue would grow with each message
                self._queue.finish(self._task)
            self._task = self._queue.add(f"{PROMPT}, take {self._number}")
            self._answer(Ask.SIGNATURES, messages.body())
        return self._task
