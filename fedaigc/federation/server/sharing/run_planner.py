"""The planner of a run: what it is given, and what the devices say to its plan."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float

from fedaigc.collaboration.planner import Executor
from fedaigc.collaboration.tree import Branch, nodes_along, settled
from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.handoff.packing import can_hand_off
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.node_sharing import node_disclosure, space_of
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.server.edges.generation import per_edge
from fedaigc.federation.server.roster import Roster
from fedaigc.federation.server.sharing.known_concepts import ConceptTasks
from fedaigc.federation.server.sharing.known_nodes import NodeTasks
from fedaigc.federation.server.sharing.known_tasks import KnownTasks, Rules
from fedaigc.federation.server.sharing.offers import ask_offers
from fedaigc.federation.server.sharing.planned import (
    PlannedGroups,
    machines_of,
    planned_groups,
    with_those_alone,
)
from fedaigc.planning.planners.registry import planner
from fedaigc.planning.setting import Weights
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.offer import NO_NODE, Offer
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, phi
from fedaigc.semantics.denoiser.shipped import SCENES, sharing_files
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.grouping import Group
from fedaigc.semantics.signature import Signature


def plan_sharing(
    signatures: Mapping[str, Disclosed | None],
    owners: Mapping[str, int],
    plan: DenoisingPlan,
    config: FederationConfig,
) -> PlannedGroups:
    """Return the groups and trees of the planner that a configuration names.

    They depend on the signatures and the configuration alone. If each edge serves its own devices, each plans for them.

    Args:
        signatures: Task id -> what its device disclosed, of all tasks that are to be planned.
        owners: Task id -> its client.
        plan: The denoising plan.
        config: The configuration.

    Raises:
        UserError: If the planner cannot plan so many tasks, or a calibration is missing or for another setting.
    """
    settings = config.generation
    if settings.planner is None:
        raise UserError("the configuration names no planner: set generation.planner")
    machines = machines_of(settings.executor)
    weights = Weights.joules(machines) if settings.planning.cost == "joules" else Weights.evaluations()
    edges: list[int | None] = [None]
    if per_edge(config) and signatures:
        edges = [*sorted({config.edge(owners[task]) for task in signatures})]
    found = PlannedGroups(())
    for edge in edges:
        own = {task: owners[task] for task in signatures if edge in (None, config.edge(owners[task]))}
        known = known_tasks({task: signatures[task] for task in own}, own, plan, config)
        try:
            planned = planned_groups(planner(settings.planner), known, own, machines, weights)
        except UserError as error:
            raise UserError(f'generation.planner = "{settings.planner}": {error}') from None
        found = found.and_those_of(planned)
    return found


def known_tasks(
    signatures: Mapping[str, Disclosed | None],
    owners: Mapping[str, int],
    plan: DenoisingPlan,
    config: FederationConfig,
) -> KnownTasks:
    """Return what the server knows of tasks, in the space that a configuration names; arguments as of `plan_sharing`.

    Raises:
        UserError: If a calibration is missing or for another setting.
    """
    settings, section = config.generation, config.generation.denoiser
    first = settings.num_shared_steps
    if section is not None:
        nodes = {task: each for task, each in signatures.items() if not isinstance(each, Signature)}
        told = node_disclosure(config)
        if told.calibration is None:
            raise UserError("a planner needs generation.denoiser.calibration, which says what sharing costs")
        # a device discloses only nodes where it would take the first hand-off, unless it draws them
        least = first if told.epsilon is None else 0
        ladder = settings.ladder or (first,)
        rules = Rules(told.calibration, told.tolerance, told.risk, ladder, least)
        return NodeTasks(nodes, owners, told, rules, section.min_devices)
    concepts = {task: each for task, each in signatures.items() if not isinstance(each, NodeSignature)}
    measured = _measured(config)
    further = measured.calibration.handoffs if settings.executor is Executor.EDGE else ()
    ladder = (
        first,
        *(k for k in further if first < k <= plan.boundary and can_hand_off(plan, k, settings.handoff)),
    )
    rules = Rules(measured.calibration, settings.planning.tolerance, settings.planning.risk, ladder, least=0)
    return ConceptTasks(concepts, taxonomy(), measured.vectors, rules, settings.min_public_prompts)


@dataclass(eq=False)
class _Measured:
    """What sharing costs, and the vectors of public prompts, for prompts that are compared by concepts."""

    config: FederationConfig
    space: DenoiserSpace
    calibration: Calibration
    _kept: dict[str, Float[np.ndarray, " d"]] = field(default_factory=dict)

    def vectors(self, prompts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Return the vectors of prompts, as the base model sees them."""
        new = [prompt for prompt in dict.fromkeys(prompts) if prompt not in self._kept]
        if new:
            pipe, _ = base_model(self.config.model)
            put_adapters(pipe, None, None)
            self._kept |= zip(new, phi(pipe, self.space, new), strict=True)
        return np.array([self._kept[prompt] for prompt in prompts])


def _measured(config: FederationConfig) -> _Measured:
    # what else a configuration says does not matter here
    told = FederationConfig(homes=Path(), output=Path(), model=config.model, generation=config.generation)
    return _loaded(told.model_dump_json())


@functools.lru_cache(maxsize=2)
def _loaded(text: str) -> _Measured:
    config = FederationConfig.model_validate_json(text)
    given = config.generation.planning.calibration
    path = given
    if path in (None, SCENES):
        # the public prompts of concepts are captions of Scenes
        _, path = sharing_files(None, SCENES, config.model.name)
    assert path is not None
    pipe, base_hash = base_model(config.model)
    space, plan = space_of(pipe, base_hash, config)
    calibration = Calibration.read(path)
    calibration.check_fits(space.hash, plan, str(path))
    return _Measured(config, space, calibration)


def asked(
    roster: Roster,
    planned: PlannedGroups,
    owners: Mapping[str, int],
    ladder: Sequence[int],
    deadline_s: float | None,
    vectors: Mapping[str, Float[np.ndarray, " d"]],
) -> PlannedGroups:
    """Offer each task its way through its tree, and return what is left by what the devices take.

    Args:
        roster: The clients and how to reach them.
        planned: The plan.
        owners: Client number by task id.
        ladder: The hand-offs, ascending.
        deadline_s: Seconds after which a missing reply counts as none.
        vectors: By task id, the vector of what its group's steps run on, where that is no public caption.
    """
    taken = ask_offers(roster, offers_of(planned, ladder, vectors), owners, deadline_s)
    return after_answers(planned, taken)


def offers_of(
    planned: PlannedGroups, ladder: Sequence[int], vectors: Mapping[str, Float[np.ndarray, " d"]]
) -> list[Offer]:
    """Return the offer of each task that is to share: its way through the tree, up to the end of its last line."""
    return [
        offer
        for group in planned.groups
        if len(group.members) > 1
        for offer in _offers(group, planned, ladder, vectors)
    ]


def after_answers(planned: PlannedGroups, taken: Mapping[str, int]) -> PlannedGroups:
    """Return what is left of a plan by the hand-offs that devices take; a task that is not there takes none."""
    groups: list[Group] = []
    handoffs: dict[str, int] = {}
    branches: dict[str, tuple[Branch, ...]] = {}
    for group in planned.groups:
        found = settled(
            planned.branches.get(group.members[0], ()), {task: taken.get(task, 0) for task in group.members}
        )
        members = tuple(task for task in group.members if found.handoffs[task])
        if members:
            groups.append(Group(members, group.prompt, group.signature, group.node))
            handoffs |= {task: found.handoffs[task] for task in members}
            if found.branches:
                branches[members[0]] = found.branches
    tasks = [task for group in planned.groups for task in group.members]
    return PlannedGroups(with_those_alone(groups, tasks), handoffs, branches)


def _offers(
    group: Group,
    planned: PlannedGroups,
    ladder: Sequence[int],
    vectors: Mapping[str, Float[np.ndarray, " d"]],
) -> list[Offer]:
    branches = planned.branches.get(group.members[0], ())
    in_branches = {task for branch in branches for task in branch.members}
    leaving = [planned.handoffs[task] for task in group.members if task not in in_branches]
    own = max([*leaving, *(branch.start for branch in branches if not branch.parent)])
    found = []
    for task in group.members:
        end = max((branch.stop for branch in branches if task in branch.members), default=own)
        offered = tuple(step for step in ladder if step <= end)
        if task in vectors:
            found.append(Offer(task, NO_NODE, offered, vectors[task]))
            continue
        assert group.node is not None
        nodes = tuple(nodes_along(task, group.node, branches, offered))
        none = np.zeros(0, np.float32)
        found.append(Offer(task, nodes[0], offered, none, nodes if len(set(nodes)) > 1 else ()))
    return found
