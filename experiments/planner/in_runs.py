"""What planners save in runs: on public prompts alone, and after each device decided by its own risk; prints JSON.

    python -m experiments.planner.in_runs --record experiments/records/planner/in_runs.json

Each device has one prompt of Scenes, drawn with Zipf popularity (exponent 1), and discloses it as in a run: a node of
the shipped atlas, or concepts under the policy "kind". The server groups or plans by the same functions as a run does.
With nodes, each device then answers by its own distance; "without a planner" are the groups of a run that names none.
With concepts devices are not asked, and a run without a planner does not know the risk. Nothing is denoised: steps are
counted.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.planner.output import write
from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.node_sharing import node_disclosure, space_of
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.server.generation import plan_generation
from fedaigc.federation.server.initial_state import initial_shared_state
from fedaigc.federation.server.sharing.by_topology import groups_by_topology
from fedaigc.federation.server.sharing.planned import PlannedGroups, machines_of, planned_groups
from fedaigc.federation.server.sharing.run_planner import after_answers, known_tasks, offers_of
from fedaigc.planning.planners.registry import PLANNERS, planner
from fedaigc.planning.setting import Weights
from fedaigc.rng import numpy_rng
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.concepts.vocabulary import Relation, Role, drawn_nouns, render_prompt
from fedaigc.semantics.denoiser.node_disclosure import NodeDisclosure
from fedaigc.semantics.denoiser.sharing_distance import phi
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose

NAMES = tuple(name for name in PLANNERS if name not in ("none", "optimal"))
NOW = "without a planner"
RESAMPLES = 2000


def configs(first: int, ladder: Sequence[int]) -> dict[str, FederationConfig]:
    """Return the configurations of both spaces."""
    common = {"num_shared_steps": first, "planner": "greedy_tree"}
    nodes = {**common, "denoiser": {"calibration": "scenes", "ladder": list(ladder)}}
    return {
        name: parse_config({"homes": "homes", "output": "out", "generation": generation})
        for name, generation in (("nodes", nodes), ("concepts", common))
    }


def prompts() -> list[str]:
    """Return all prompts of Scenes."""
    return [
        render_prompt(thing, relation, place)
        for relation in Relation
        for thing in drawn_nouns(Role.OBJECT)
        for place in drawn_nouns(Role.PLACE)
    ]


def drawn(count: int, seed: int, among: Sequence[str]) -> list[str]:
    """Return the prompts of `count` devices."""
    random = numpy_rng(seed, "prompts in runs")
    weights = 1 / np.arange(1, len(among) + 1)
    order = random.permutation(len(among))
    return [among[order[row]] for row in random.choice(len(among), count, p=weights / weights.sum())]


def saved(planned: PlannedGroups, steps: int, count: int) -> float:
    """Return the share of all denoising steps that a plan saves."""
    shared = 0
    for group in planned.groups:
        taken = [planned.handoffs.get(task, 0) for task in group.members]
        branches = planned.branches.get(group.members[0], ())
        in_branches = {task for branch in branches for task in branch.members}
        ends = [planned.handoffs.get(task, 0) for task in group.members if task not in in_branches]
        line = max([*ends, *(branch.start for branch in branches if not branch.parent)])
        shared += sum(taken) - line - sum(branch.stop - branch.start for branch in branches)
    return shared / (steps * count)


def answered(
    planned: PlannedGroups, vectors: dict[str, np.ndarray], disclosure: NodeDisclosure, ladder: Sequence[int]
) -> PlannedGroups:
    """Return what is left of a plan after each device answered by the distances of its own prompt."""
    taken = {}
    for offer in offers_of(planned, ladder, {}):
        nodes = offer.nodes or (offer.node,) * len(offer.ladder)
        apart = [disclosure.to_caption(vectors[offer.task_id], node) for node in nodes]
        taken[offer.task_id] = disclosure.handoff_along(apart, offer.ladder)
    return after_answers(planned, taken)


def interval(values: Sequence[float]) -> dict[str, float]:
    """Return the mean over seeds with its 95 % interval, by bootstrap."""
    random = numpy_rng(0, "bootstrap")
    array = np.array(values)
    means = array[random.integers(len(array), size=(RESAMPLES, len(array)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return {"mean": float(array.mean()), "low": float(low), "high": float(high)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=1, help="num_shared_steps")
    parser.add_argument("--ladder", type=int, nargs="+", default=(2, 3, 5))
    parser.add_argument("--record", type=Path)
    options = parser.parse_args()
    found: dict[str, dict[str, list[float]]] = {}
    rows = []
    both = configs(options.first, options.ladder)
    # model, plan and space are those of both
    pipe, base_hash = base_model(both["nodes"].model)
    plan = plan_generation(initial_shared_state(both["nodes"]), both["nodes"])
    among = prompts()
    vector = vectors_of_prompts(pipe, base_hash, both["nodes"], among)
    for space, config in both.items():
        for seed in range(options.seeds):
            said = drawn(options.devices, seed, among)
            tasks = [f"{number:016x}" for number in range(len(said))]
            owners = {task: number for number, task in enumerate(tasks)}
            vectors = {task: vector[prompt] for task, prompt in zip(tasks, said, strict=True)}
            signatures: dict[str, Any] = {
                task: (
                    node_disclosure(config).of_vector(vectors[task])
                    if space == "nodes"
                    else disclose(parse(prompt, taxonomy()), Policy.KIND, taxonomy(), 3)
                )
                for task, prompt in zip(tasks, said, strict=True)
            }
            known = known_tasks(signatures, owners, plan, config)
            machines = machines_of(config.generation.executor)
            plans = {
                name: planned_groups(planner(name), known, owners, machines, Weights.evaluations())
                for name in NAMES
            }
            ladder = known.rules.ladder
            if space == "nodes":
                groups = groups_by_topology(signatures, owners, config)
                shared = [group for group in groups if len(group.members) > 1]
                # each member is offered the whole ladder
                handoffs = {task: ladder[-1] for group in shared for task in group.members}
                plans[NOW] = PlannedGroups(tuple(groups), handoffs)
            for name, planned in plans.items():
                done = planned
                if space == "nodes":
                    done = answered(planned, vectors, node_disclosure(config), ladder)
                value = saved(done, plan.num_steps, len(tasks))
                found.setdefault(space, {}).setdefault(name, []).append(value)
                rows.append({"space": space, "seed": seed, "planner": name, "saved": round(value, 5)})
    write(
        {
            "what": "share of the denoising steps saved in runs, on public prompts",
            "devices": options.devices,
            "seeds": options.seeds,
            "num_shared_steps": options.first,
            "ladder": list(options.ladder),
            "saved": {
                space: {name: interval(values) for name, values in each.items()}
                for space, each in found.items()
            },
            "rows": rows,
        },
        options.record,
    )


def vectors_of_prompts(
    pipe: Pipeline, base_hash: str, config: FederationConfig, among: Sequence[str]
) -> dict[str, np.ndarray]:
    """Return the vectors of prompts in the space of a configuration."""
    space, _ = space_of(pipe, base_hash, config)
    return dict(zip(among, phi(pipe, space, among), strict=True))


if __name__ == "__main__":
    main()
