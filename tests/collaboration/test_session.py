"""Plans that real devices carry out on the embedded model: costs, failures, order."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fedaigc.collaboration.planner import Executor, plan_assignments, planned_evaluations
from fedaigc.collaboration.results import Outcome
from fedaigc.collaboration.session import ShareOrder, carry_out
from fedaigc.device.device import Device
from fedaigc.device.replies import Failure, SharedSteps
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.semantics.grouping import Group, group
from tests.collaboration.peers import LocalPeers
from tests.plans import with_boundary

FRUITS = ("apple", "lemon", "pear", "strawberry", "pineapple", "lemon", "apple", "pear")

Party = tuple[dict[int, Device], dict[str, int], list[Group]]
MakeParty = Callable[..., Party]


@pytest.fixture(scope="module")
def plan(pipe: Any, base_hash: str) -> DenoisingPlan:
    return build_plan(
        pipe, num_inference_steps=4, guidance_scale=5.0, height=64, width=64, base_hash=base_hash
    )


@pytest.fixture
def party(tmp_path: Path, pipe: Any, base_hash: str, taxonomy: Taxonomy) -> MakeParty:
    """Devices by client, one prompt each; with the owners of the tasks, and their groups."""

    def make(prompts: Sequence[str], name: str = "party") -> Party:
        devices: dict[int, Device] = {}
        owners: dict[str, int] = {}
        signatures = {}
        for client, prompt in enumerate(prompts):
            home = tmp_path / name / str(client)
            device = Device(home, pipe, base_hash=base_hash, taxonomy=taxonomy, seed=100 + client)
            task_id = device.add_prompt(prompt)
            devices[client], owners[task_id] = device, client
            signatures[task_id] = device.signature(task_id)
        return devices, owners, group(signatures, taxonomy)

    return make


def _edge(pipe: Any) -> Callable[[ShareOrder], SharedSteps]:
    def run(order: ShareOrder) -> SharedSteps:
        return run_shared_steps(
            pipe,
            order.group_prompt,
            order.plan,
            order.stop,
            noise_seed=order.noise_seed,
        )

    return run


def _images(devices: Mapping[int, Device], owners: Mapping[str, int]) -> dict[int, np.ndarray]:
    return {owner: np.asarray(devices[owner].gallery.image(task)) for task, owner in owners.items()}


@pytest.mark.parametrize("executor", list(Executor))
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_a_group_of_u_costs_k_plus_u_times_the_rest(
    pipe: Any, plan: DenoisingPlan, party: MakeParty, size: int, executor: Executor
) -> None:
    # N = 4, K = 2: 4, 6, 10 and 18 evaluations for groups of 1 (which shares nothing), 2, 4 and 8
    devices, owners, groups = party([f"a {fruit} on a table" for fruit in FRUITS[:size]])
    assert [len(found.members) for found in groups] == [size]
    assignments = plan_assignments(groups, owners, plan, num_shared_steps=2, seed=0, executor=executor)
    peers = LocalPeers(devices)
    (result,) = carry_out(assignments, owners, plan, peers, _edge(pipe))
    shared_steps = 2 if size > 1 else 0
    assert (
        result.evaluations
        == planned_evaluations([shared_steps] * size, 4)
        == {1: 4, 2: 6, 4: 10, 8: 18}[size]
    )
    # guidance: each step sees the prompt and the empty prompt
    assert result.samples == 2 * result.evaluations
    outcome = Outcome.SHARED if size > 1 else Outcome.ALONE
    assert [task.outcome for task in result.tasks] == [outcome] * size
    assert sum(not device.prompts.waiting() for device in devices.values()) == size
    sizes = [len(order.packet) for order in peers.orders if order.packet is not None]
    assert result.packet_bytes == sum(sizes)
    assert len(sizes) == (size if size > 1 else 0)


def test_a_group_of_one_is_the_stock_pipeline_s_image(
    pipe: Any, plan: DenoisingPlan, party: MakeParty
) -> None:
    import torch

    devices, owners, groups = party(["a dog on a bed"])
    (assignment,) = plan_assignments(groups, owners, with_boundary(plan, 4), num_shared_steps=2, seed=5)
    carry_out([assignment], owners, plan, LocalPeers(devices), _edge(pipe))
    stock = pipe(
        "a dog on a bed",
        num_inference_steps=4,
        guidance_scale=5.0,
        generator=torch.Generator().manual_seed(assignment.noise_seed),
    ).images[0]
    assert np.array_equal(_images(devices, owners)[0], np.asarray(stock))


def test_who_computes_and_in_which_order_changes_no_pixel(
    pipe: Any, plan: DenoisingPlan, party: MakeParty
) -> None:
    prompts = ["an apple on a table", "a car near a road", "a lemon on a table", "a bus near a road", "x y z"]
    runs = []
    for name, executor, backwards in (
        ("a", Executor.EDGE, 1),
        ("b", Executor.MEMBER, 1),
        ("c", Executor.EDGE, -1),
    ):
        devices, owners, groups = party(prompts, name)
        owners = dict(list(owners.items())[::backwards])
        assignments = plan_assignments(
            groups[::backwards], owners, with_boundary(plan, 4), num_shared_steps=2, seed=3, executor=executor
        )
        carry_out(assignments, owners, plan, LocalPeers(devices), _edge(pipe))
        runs.append(_images(devices, owners))
    for client, image in runs[0].items():
        assert np.array_equal(image, runs[1][client])
        assert np.array_equal(image, runs[2][client])


def test_members_that_share_end_with_pictures_of_their_own(
    pipe: Any, plan: DenoisingPlan, party: MakeParty
) -> None:
    devices, owners, groups = party(["an apple on a table", "a lemon on a table"])
    assignments = plan_assignments(groups, owners, with_boundary(plan, 4), num_shared_steps=1, seed=0)
    carry_out(assignments, owners, plan, LocalPeers(devices), _edge(pipe))
    first, second = _images(devices, owners).values()
    assert not np.array_equal(first, second)


def test_a_member_that_fails_loses_its_own_task_only(
    pipe: Any, plan: DenoisingPlan, party: MakeParty
) -> None:
    devices, owners, groups = party([f"a {fruit} on a table" for fruit in FRUITS[:3]])
    del devices[1]
    assignments = plan_assignments(groups, owners, with_boundary(plan, 4), num_shared_steps=2, seed=0)
    (result,) = carry_out(assignments, owners, plan, LocalPeers(devices), _edge(pipe))
    ends = {task.client: (task.outcome, task.failure) for task in result.tasks}
    assert ends == {
        0: (Outcome.SHARED, None),
        1: (Outcome.FAILED, Failure.UNREACHABLE),
        2: (Outcome.SHARED, None),
    }
    assert result.evaluations == 2 + 2 * (4 - 2)


def test_when_the_helper_fails_the_others_run_alone_from_the_same_noise(
    pipe: Any, plan: DenoisingPlan, party: MakeParty
) -> None:
    devices, owners, groups = party([f"a {fruit} on a table" for fruit in FRUITS[:3]])
    assignments = plan_assignments(
        groups, owners, with_boundary(plan, 4), num_shared_steps=2, seed=0, executor=Executor.MEMBER
    )
    helper = assignments[0].executor
    assert isinstance(helper, int)
    del devices[helper]
    (result,) = carry_out(assignments, owners, plan, LocalPeers(devices), _edge(pipe))
    assert result.share_failure is Failure.UNREACHABLE
    assert sorted(task.outcome for task in result.tasks) == [Outcome.ALONE, Outcome.ALONE, Outcome.FAILED]
    assert result.evaluations == 2 * 4


def test_a_damaged_packet_is_refused_and_its_tasks_run_alone(
    pipe: Any, plan: DenoisingPlan, party: MakeParty
) -> None:
    devices, owners, groups = party(["an apple on a table", "a lemon on a table"])
    assignments = plan_assignments(groups, owners, with_boundary(plan, 4), num_shared_steps=2, seed=0)

    def damaged(order: ShareOrder) -> SharedSteps:
        steps = _edge(pipe)(order)
        body = bytearray(steps.packet)
        body[-40] ^= 1
        return SharedSteps(bytes(body), steps.denoiser_calls, steps.denoiser_samples)

    (result,) = carry_out(assignments, owners, plan, LocalPeers(devices), damaged)
    assert [task.outcome for task in result.tasks] == [Outcome.ALONE, Outcome.ALONE]
    assert result.evaluations == 2 + 2 * 4
    assert all(
        isinstance(device.gallery.image(task), Image.Image)
        for task, device in zip(owners, devices.values(), strict=True)
    )
