"""Which waiting tasks share, and who computes for them, under the topology of a run.

In the topologies "pair" and "cluster" every device would work this out from the signatures of all. It is a function of
these and of what computing costs the devices, so a simulation works it out once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedaigc.collaboration.topology import executors_of, on_several_devices
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.node_sharing import node_disclosure
from fedaigc.federation.preloaded import taxonomy
from fedaigc.federation.server.edges.generation import per_edge
from fedaigc.federation.server.sharing.planned import PlannedGroups
from fedaigc.federation.server.sharing.run_planner import plan_sharing
from fedaigc.semantics.denoiser.node_groups import expected_handoff, node_groups
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.disclosed import Disclosed
from fedaigc.semantics.grouping import Group, group
from fedaigc.semantics.pairs import pairs
from fedaigc.semantics.signature import Signature


def planned_by_topology(
    signatures: Mapping[str, Disclosed | None],
    owners: Mapping[str, int],
    plan: DenoisingPlan,
    config: FederationConfig,
) -> PlannedGroups:
    """Return the groups of the waiting tasks, by the planner of a run if it has one.

    Args:
        signatures: Task id -> what its device disclosed.
        owners: Task id -> its client.
        plan: The denoising plan.
        config: The configuration.

    Raises:
        UserError: As `node_disclosure` and `plan_sharing`.
    """
    settings = config.generation
    if settings.planner is None:
        return PlannedGroups(tuple(groups_by_topology(signatures, owners, config)))
    planned = plan_sharing(signatures, owners, plan, config)
    if not settings.between_devices:
        return planned
    return replace(planned, groups=tuple(on_several_devices(planned.groups, owners)))


def groups_by_topology(
    signatures: Mapping[str, Disclosed | None], owners: Mapping[str, int], config: FederationConfig
) -> list[Group]:
    """Return the groups of the waiting tasks without a planner; arguments and errors as of `planned_by_topology`.

    If each edge serves its own devices, the tasks of each are grouped by themselves.
    """
    settings = config.generation
    if settings.topology == "cluster":
        return on_several_devices(_grouped(signatures, owners, config), owners)
    if settings.topology == "pair":
        atlas = node_disclosure(config).atlas if settings.denoiser is not None else None
        return pairs(signatures, owners, atlas, taxonomy(), settings.max_distance)
    if not per_edge(config):
        return _grouped(signatures, owners, config)
    found: list[Group] = []
    for edge in sorted({config.edge(client) for client in owners.values()}):
        own = {task: client for task, client in owners.items() if config.edge(client) == edge}
        found += _grouped({task: signatures[task] for task in own if task in signatures}, own, config)
    return found


def executors(
    groups: Sequence[Group], owners: Mapping[str, int], config: FederationConfig
) -> dict[str, int] | None:
    """Return the client that runs the shared steps of each group, by its first task; None with an edge.

    Args:
        groups: The groups.
        owners: Task id -> its client.
        config: The configuration.
    """
    costs = {client: config.generation.cost(client) for client in set(owners.values())}
    return executors_of(config.generation.topology, groups, owners, costs)


def _grouped(
    signatures: Mapping[str, Disclosed | None], owners: Mapping[str, int], config: FederationConfig
) -> list[Group]:
    """Group tasks in the space that the configuration names; UserError as `node_disclosure`."""
    section = config.generation.denoiser
    if section is None:
        concepts = {task: each for task, each in signatures.items() if not isinstance(each, NodeSignature)}
        return group(concepts, taxonomy(), config.generation.max_distance)
    nodes = {task: each for task, each in signatures.items() if not isinstance(each, Signature)}
    told = node_disclosure(config)
    if told.calibration is None:
        return node_groups(nodes, owners, told.atlas, section.min_devices)
    expected = expected_handoff(
        told.atlas,
        told.calibration,
        told.tolerance,
        (told.shared_steps, *told.ladder),
        told.risk,
    )
    return node_groups(nodes, owners, told.atlas, section.min_devices, expected)
