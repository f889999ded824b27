"""Runs whose groups and shared steps a planner chose."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaigc.collaboration.results import GroupRecord, TaskRecord
from fedaigc.device.home.gallery import Gallery
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.adapters.stages import finish_stages, run_stages
from fedaigc.diffusion.sampling.segment import initial_state
from fedaigc.errors import UserError
from fedaigc.federation.config.edges_section import EdgesSection
from fedaigc.federation.config.run_config import FederationConfig, parse_config
from fedaigc.federation.node_sharing import node_disclosure
from fedaigc.federation.output.recorder import load_shared_state
from fedaigc.federation.output.records import GenerationRecord, read_record
from fedaigc.federation.preloaded import base_model, taxonomy
from fedaigc.federation.runtime.launcher import run_in_process
from fedaigc.federation.server.generation import plan_generation
from fedaigc.federation.server.initial_state import initial_shared_state
from fedaigc.federation.server.sharing.by_topology import executors, planned_by_topology
from fedaigc.federation.server.sharing.planned import PlannedGroups
from fedaigc.federation.server.sharing.run_planner import plan_sharing
from fedaigc.semantics.concepts.parser import parse
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.sharing_distance import distance
from fedaigc.semantics.policy import Policy
from fedaigc.semantics.signature import disclose
from tests.small_atlas import small_atlas
from tests.small_run import MakeRun, generation_of

STEPS = {"num_inference_steps": 4, "scorer": "none"}


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory, small_model: Path) -> Path:
    """An atlas of nine captions, and a calibration: one step harms none, more harm beyond the nearest captions."""
    path = small_atlas(tmp_path_factory.mktemp("atlas"), small_model)
    read = Atlas.read(path)
    within = max(distance(read.vectors[a], read.vectors[b]) for a, b in pairs(read))
    assert within < min(
        distance(read.vectors[read.medoid(0)], read.vectors[row]) for a in pairs(read) for row in a
    )
    middle = 1.1 * within
    shipped = Calibration.read(path.with_name("small.json"))
    far = (*np.linspace(0, middle, 1000).tolist(), *np.linspace(middle + 1e-3, 3.0, 40).tolist())
    harm = (0.0,) * 1000 + (0.9,) * 40
    curve = Calibration(
        shipped.space,
        shipped.plan,
        shipped.scheduler,
        4,
        5.0,
        "c",
        0,
        far,
        {"1": (0.0,) * 1040, "2": harm, "3": harm},
    )
    curve.write(path.with_name("tree.json"))
    # nothing does harm up to a distance that all prompts of Scenes keep
    near = Calibration(
        shipped.space, shipped.plan, shipped.scheduler, 4, 5.0, "c", 0, far, {"3": (0.0,) * len(far)}
    )
    near.write(path.with_name("near.json"))
    return path


def pairs(atlas: Atlas) -> list[list[int]]:
    """Return two captions of one node that a device discloses, on either side of the root, the medoid first."""
    found = []
    for side in atlas.children[0].tolist():
        near = []
        for node in atlas.ends(2):
            if set(atlas.members[node]) <= set(atlas.members[side]):
                away = {
                    row: distance(atlas.vectors[row], atlas.vectors[atlas.medoid(node)])
                    for row in atlas.members[node]
                }
                one, other = sorted(away, key=lambda row: away[row])[:2]
                near.append((away[other], int(one), int(other)))
        found.append([*min(near)[1:]])
    return found


def node_run(
    make_run: MakeRun, atlas: Path, planner: str | None, folder: str, *, edge_batch: int = 1, **section: Any
) -> FederationConfig:
    read = Atlas.read(atlas)
    prompts = [read.captions[row] for pair in pairs(read) for row in pair]
    told = {"atlas": atlas, "calibration": atlas.with_name("tree.json"), "min_captions": 2, "ladder": [2, 3]}
    return make_run(
        folder,
        num_clients=4,
        prompts=prompts,
        rounds={"count": 0},
        adapter={"boundary_timestep": 100},
        generation={
            **STEPS,
            "num_shared_steps": 1,
            "planner": planner,
            "edge_batch": edge_batch,
            "denoiser": told | section,
        },
    )


def run(config: FederationConfig) -> GenerationRecord:
    run_in_process(config)
    return generation_of(read_record(config.output))


def prompt_of(config: FederationConfig, task: TaskRecord) -> str:
    return PromptQueue(Home.open(config.home(task.client))).get(task.task_id).prompt


def drawn_again(config: FederationConfig, group: GroupRecord, task: TaskRecord) -> np.ndarray:
    """Return the picture of a task from one undivided run that changes its prompt where the task's steps did."""
    shared = load_shared_state(config.output)
    plan = plan_generation(shared, config)
    pipe, _ = base_model(config.model)
    put_adapters(pipe, shared, None)
    way = [group.prompt, *(b.prompt for b in group.branches if task.task_id in b.members)]
    ends = [*(b.start for b in group.branches if task.task_id in b.members), task.handoff_step]
    state = initial_state(pipe, plan, group.noise_seed)
    for prompt, end in zip(way, ends, strict=True):
        assert end is not None
        state = run_stages(pipe, state, {"prompt": prompt}, plan, end)
    return np.asarray(finish_stages(pipe, state, {"prompt": prompt_of(config, task)}, plan)[0])


def test_a_tree_is_carried_out_exactly_alone_and_in_batches(make_run: MakeRun, atlas: Path) -> None:
    config = node_run(make_run, atlas, "greedy_tree", "tree")
    tree = run(config)
    (group,) = tree.groups
    assert group.branches
    assert len(group.tasks) == 4
    assert {task.handoff_step for task in group.tasks} == {3}
    # one step for all, then two for each pair; each device runs the last one
    assert group.evaluations == group.planned_evaluations == 1 + 2 * 2 + 4
    for task in group.tasks:
        assert task.outcome == "shared"
        image = np.asarray(Gallery(Home.open(config.home(task.client))).image(task.task_id))
        assert np.array_equal(image, drawn_again(config, group, task))
    assert len({group.prompt, *(branch.prompt for branch in group.branches)}) > 1
    for branch in group.branches:
        assert len({task.client for task in group.tasks if task.task_id in branch.members}) == 2
    assert (config.output / "sharing.png").stat().st_size > 10_000
    # the two branches in one batch: the same steps, and the same pictures up to rounding
    batched = node_run(make_run, atlas, "greedy_tree", "batched", edge_batch=2)
    (again,) = run(batched).groups
    assert again.model_copy(update={"tasks": ()}) == group.model_copy(update={"tasks": ()})
    for task in group.tasks:
        one, other = (
            np.asarray(Gallery(Home.open(each.home(task.client))).image(task.task_id)).astype(int)
            for each in (config, batched)
        )
        assert np.abs(one - other).max() <= 1


def test_the_plan_depends_on_what_was_disclosed_alone(make_run: MakeRun, atlas: Path) -> None:
    config = node_run(make_run, atlas, "greedy_tree", "plan")
    disclosure = node_disclosure(config)
    read = disclosure.atlas
    rows = [row for pair in pairs(read) for row in pair]
    told = {f"{row:016x}": disclosure.of_vector(read.vectors[row]) for row in rows}
    told |= {"e" * 16: None, "f" * 16: NodeSignature("0" * 64, 3, 0)}
    owners = {task: number for number, task in enumerate(told)}
    plan = plan_generation(initial_shared_state(config), config)

    def planned_by(planner: str) -> PlannedGroups:
        generation = config.generation.model_copy(update={"planner": planner})
        return plan_sharing(told, owners, plan, config.model_copy(update={"generation": generation}))

    first = planned_by("greedy_tree")
    backwards = dict(reversed(told.items()))
    assert plan_sharing(backwards, owners, plan, config) == first
    # nothing is known of two of the tasks
    assert {"e" * 16, "f" * 16} == {group.members[0] for group in first.groups if len(group.members) == 1}
    (tree,) = first.branches.values()
    assert {branch.members for branch in tree} <= {tuple(sorted(f"{r:016x}" for r in p)) for p in pairs(read)}
    # fewer devices than the atlas asks for on one caption
    section = config.generation.denoiser
    assert section is not None
    strict = config.generation.model_copy(update={"denoiser": section.model_copy(update={"min_devices": 3})})
    wide = plan_sharing(told, owners, plan, config.model_copy(update={"generation": strict}))
    assert not wide.branches
    assert max(len(group.members) for group in wide.groups) == 4
    # each edge plans for its own devices
    edges = config.model_copy(
        update={
            "edges": EdgesSection(count=2),
            "num_clients": len(owners),
            "generation": config.generation.model_copy(update={"topology": "edges"}),
        }
    )
    apart = plan_sharing(told, owners, plan, edges)
    assert sorted(task for group in apart.groups for task in group.members) == sorted(told)
    assert all(len({edges.edge(owners[task]) for task in group.members}) == 1 for group in apart.groups)
    # the optimum is the same, two levels have one node a pair, and "none" shares nothing
    assert planned_by("optimal").handoffs == first.handoffs
    assert planned_by("two_levels").handoffs == first.handoffs
    assert not planned_by("two_levels").branches
    assert planned_by("none").handoffs == {}


def test_concepts_are_planned_by_their_public_prompts(make_run: MakeRun, atlas: Path) -> None:
    """Groups share as long as the calibration says, and are cut where the public prompt above them is too far."""
    prompts = ("an apple on a table", "a pear on a table", "a dog near a river", "a bus on a road")
    config = make_run(
        num_clients=4,
        prompts=prompts,
        rounds={"count": 0},
        adapter={"boundary_timestep": 100},
        generation={
            **STEPS,
            "num_shared_steps": 1,
            "planner": "greedy_tree",
            "planning": {"calibration": atlas.with_name("near.json")},
        },
    )
    generation = run(config)
    by_prompt = {
        prompt_of(config, task): (group, task) for group in generation.groups for task in group.tasks
    }
    fruit, _ = by_prompt[prompts[0]]
    assert fruit is by_prompt[prompts[1]][0]
    assert fruit.num_shared_steps == 3
    # a relation of its own
    assert by_prompt[prompts[2]][1].outcome == "alone"
    assert fruit.evaluations == fruit.planned_evaluations
    for group, task in by_prompt.values():
        if task.outcome == "shared":
            image = np.asarray(Gallery(Home.open(config.home(task.client))).image(task.task_id))
            assert np.array_equal(image, drawn_again(config, group, task))
    # devices without an edge follow the same planner: with one K, and a member that computes
    values = config.model_dump()
    del values["generation"]["executor"]
    values["generation"] |= {"topology": "cluster", "costs": [2, 1]}
    cluster = FederationConfig.model_validate(values)
    told = {prompt: disclose(parse(prompt, taxonomy()), Policy.KIND, taxonomy()) for prompt in prompts}
    owners = {prompt: client for client, prompt in enumerate(prompts)}
    plan = plan_generation(load_shared_state(config.output), cluster)
    planned = planned_by_topology(told, owners, plan, cluster)
    together = tuple(sorted(prompt for prompt in prompts if " on a " in prompt))
    assert [group.members for group in planned.groups] == [together, (prompts[2],)]
    assert planned.handoffs == dict.fromkeys(together, 1)
    assert executors(planned.groups, owners, cluster) == {together[0]: 1}


@pytest.mark.parametrize(
    ("generation", "message"),
    [
        ({"planner": "best"}, "planner"),
        ({"planning": {"cost": "joules"}}, "no effect without a planner"),
        ({"planner": "ward", "num_shared_steps": 0}, "num_shared_steps is 0"),
        ({"planner": "optimal", "between_rounds": True}, '"optimal" plans a few tasks only'),
        ({"planner": "ward", "denoiser": {"atlas": "a"}}, "needs denoiser.calibration"),
        ({"planner": "ward", "denoiser": {}, "planning": {"risk": 0.5}}, "planning.risk"),
        (
            {"planner": "ward", "denoiser": {"ladder": [4], "conditioning": "mean"}},
            '"ward" gives every node of a tree a conditioning of its own',
        ),
        ({"planner": "ward", "negative_prompt": "blurry"}, "negative_prompt"),
        (
            {"planner": "ward", "link": {"snr_db": 3.0, "rayleigh": True, "send_above_db": 1.0}},
            "exclude each other",
        ),
    ],
)
def test_what_a_planner_cannot_do_is_refused_by_name(generation: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_config({"homes": "h", "output": "o", "generation": generation})


def test_another_model_needs_its_own_calibration() -> None:
    with pytest.raises(UserError, match=r"planning\.calibration is missing"):
        parse_config(
            {"homes": "h", "output": "o", "model": {"name": "other"}, "generation": {"planner": "ward"}}
        )


def test_devices_are_told_nothing_of_the_planner() -> None:
    config = parse_config(
        {"homes": "h", "output": "o", "generation": {"planner": "ward", "planning": {"risk": 0.4}}}
    )
    assert config.for_devices().generation.planner is None
    assert config.for_devices().generation.planning.risk == 0.2
