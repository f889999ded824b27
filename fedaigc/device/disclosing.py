"""What a device says of a prompt to a server: within its policy, with its noise, and within its owner's budget.

Whatever is said is counted in the ledger first, then logged for its owner, and only then returned to be sent. A prompt
for which the budget is used up is treated as one of which nothing may be disclosed: it runs alone.
"""

import hashlib
import math
import secrets

from fedaigc.bounds import MAX_EPSILON
from fedaigc.device.home.budget import Price, budget_of
from fedaigc.device.home.ledger import Kind
from fedaigc.device.home.prompts import PromptQueue, Task
from fedaigc.device.limits import OwnerLimits
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.rng import numpy_rng
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.denoiser.local_privacy import RandomizedNode
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.offer import Offer
from fedaigc.semantics.disclosed import Disclosed, read_signature
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import Signature, disclose, signature_bits


class Discloser:
    """Says what may be disclosed of prompts, and counts it.

    Args:
        prompts: The prompts of the home.
        limits: Limits of the owner; None in a simulation, where noise is drawn from the home's seed. The budget of the
            home (`fedaigc device budget`) holds in either case.
    """

    def __init__(self, prompts: PromptQueue, limits: OwnerLimits | None) -> None:
        self._home = prompts.home
        self._prompts = prompts
        self._limits = limits

    def concepts(
        self, task_id: str, policy: Policy, taxonomy: Taxonomy, min_public_prompts: int
    ) -> Signature | None:
        """Return what the policy lets the device disclose of a prompt; None if the task must run alone."""
        task = self._prompts.get(task_id)
        found = disclose(parse(task.prompt, taxonomy), policy, taxonomy, min_public_prompts)
        if found is None:
            return None
        price = Price(signature_bits(found, min_public_prompts, taxonomy))
        return found if self._exact("concepts", task, found, price) else None

    def node(self, task_id: str, disclosure: NodeDisclosure, pipe: Pipeline) -> NodeSignature | None:
        """Return the node that the device discloses of a prompt; None if the task must run alone.

        Args:
            task_id: The task.
            disclosure: How nodes are disclosed. The owner's largest epsilon of a node holds too.
            pipe: The base model, without adapters.
        """
        task = self._prompts.get(task_id)
        owner = budget_of(self._home, self._limits).node_epsilon
        asked = disclosure.epsilon if disclosure.epsilon is not None else math.inf
        epsilon = min(asked, owner)
        if epsilon < math.inf:
            return self._random_node(task, disclosure, min(epsilon, MAX_EPSILON), pipe)
        if disclosure.calibration is not None:
            return self._calibrated_node(task, disclosure, pipe)
        found = disclosure.disclose(pipe, task.prompt)
        if found is None:
            return None
        return found if self._exact("node", task, found, Price(disclosure.bits)) else None

    def answer(self, task: Task, offer: Offer, taken: int, disclosure: NodeDisclosure) -> int:
        """Return the hand-off to say to an offer, 0 for none; 0 too where the budget does not allow an answer.

        Args:
            task: The task.
            offer: The offer.
            taken: The hand-off that the device would take; 0: none.
            disclosure: What else decides the answer: atlas, calibration, tolerance and risk.
        """
        node = " ".join(map(str, offer.nodes or (offer.node,)))
        about = f"{disclosure.atlas.hash} {node} {disclosure.tolerance} {disclosure.risk}"
        digest = hashlib.sha256(f"{about} {disclosure.calibration}".encode() + offer.vector.tobytes())
        said = self._prompts.ledger.answer_offer(
            task.task_id,
            task.prompt,
            digest.hexdigest(),
            offer.ladder,
            taken or None,
            budget_of(self._home, self._limits),
        )
        return said or 0

    def _exact(self, kind: Kind, task: Task, signature: Disclosed, price: Price) -> bool:
        text = signature.to_json()
        budget = budget_of(self._home, self._limits)
        ledger = self._prompts.ledger
        said = ledger.disclose(
            kind, task.task_id, task.prompt, price, budget, lambda: text, before=task.disclosed
        )
        if said is None:
            return False
        self._prompts.note_disclosed(task.task_id, signature)
        return True

    def _calibrated_node(
        self, task: Task, disclosure: NodeDisclosure, pipe: Pipeline
    ) -> NodeSignature | None:
        """Return the node that the calibration allows.

        A server chooses tolerance, risk, hand-off and minimum. Each such question counts once for a prompt, whatever
        the answer is, also that nothing is disclosed: otherwise many questions would measure the prompt's distances.
        """

        def say() -> str:
            found = disclosure.disclose(pipe, task.prompt)
            return found.to_json() if found is not None else ""

        said = self._prompts.ledger.disclose(
            "node",
            task.task_id,
            task.prompt,
            Price(disclosure.bits),
            budget_of(self._home, self._limits),
            say,
            form=f"node {disclosure.question}",
        )
        return self._noted(task, said) if said else None

    def _noted(self, task: Task, said: str) -> NodeSignature:
        """Log a node for the owner, and return it."""
        signature = read_signature(said)
        assert isinstance(signature, NodeSignature)
        self._prompts.note_disclosed(task.task_id, signature)
        return signature

    def _random_node(
        self, task: Task, disclosure: NodeDisclosure, epsilon: float, pipe: Pipeline
    ) -> NodeSignature | None:
        # the same for every prompt: without a ladder a device with noise could not keep to its tolerance
        if disclosure.calibration is not None and not disclosure.ladder:
            return None
        drawing = RandomizedNode.of(disclosure.atlas, disclosure.minimum, epsilon)
        if drawing is None:
            return None
        form = f"node {disclosure.atlas.hash} {disclosure.minimum} {epsilon!r}"

        def say() -> str:
            node = drawing.drawn(disclosure.vector(pipe, task.prompt), below)
            return NodeSignature(disclosure.atlas.hash, node, node).to_json()

        def below(bound: int) -> int:
            if self._limits is not None:
                return secrets.randbelow(bound)
            return int(numpy_rng(self._home.seed, form, task.task_id).integers(bound))

        said = self._prompts.ledger.disclose(
            "node",
            task.task_id,
            task.prompt,
            Price(drawing.bits, epsilon),
            budget_of(self._home, self._limits),
            say,
            form=form,
        )
        return self._noted(task, said) if said is not None else None
