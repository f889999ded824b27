"""A member that finishes from a packet cannot infer the initial noise.

At b8a6c4d, every packet's header and every order to finish contained the group's noise seed. A member could run the
720 prompts of Scenes from the known noise, and found the executor's prompt in 20 of 20 cases after one step.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import Context, Message
from flwr.common.serde import recorddict_to_proto

from fedaigc.collaboration.planner import plan_assignments
from fedaigc.collaboration.results import Outcome
from fedaigc.collaboration.session import ShareOrder, carry_out
from fedaigc.device.device import Device
from fedaigc.device.replies import SharedSteps
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.diffusion.handoff.packing import pack, unpack
from fedaigc.diffusion.sampling.segment import finish_segment, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.errors import PacketError
from fedaigc.federation.client.client_app import app
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import read_record
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.launcher import in_process_run
from fedaigc.federation.runtime.local_grid import LocalGrid
from fedaigc.federation.server.generation import _shared_steps
from fedaigc.federation.server.server_app import serve
from fedaigc.federation.wire.generation_messages import shared_steps_record
from fedaigc.federation.wire.messages import Ask, values_of
from fedaigc.rng import derived_seed
from fedaigc.semantics.grouping import Group
from tests.collaboration.peers import LocalPeers
from tests.plans import with_boundary
from tests.small_run import MakeRun, generation_of


def forms_of(number: int) -> Iterator[bytes]:
    """Return a number as text, as words in both byte orders, and as protobuf encodes it (plain and zigzag)."""
    yield str(number).encode()
    yield f"{number & (2**64 - 1):x}".encode()
    for order in ("little", "big"):
        yield (number & (2**64 - 1)).to_bytes(8, order)
    for value in (number & (2**64 - 1), ((number << 1) ^ (number >> 63)) & (2**64 - 1)):
        digits = bytearray()
        while value > 0x7F:
            digits.append(value & 0x7F | 0x80)
            value >>= 7
        yield bytes([*digits, value])


def test_the_forms_find_a_seed_where_a_member_could() -> None:
    """The search finds a seed in the values of a message and in a packet's header."""
    from fedaigc.federation.wire.messages import body

    for seed in (derived_seed(0, "x"), -derived_seed(0, "y")):
        content = recorddict_to_proto(body(noise_seed=seed)).SerializeToString()
        assert any(form in content for form in forms_of(seed))
        assert not any(form in content for form in forms_of(seed ^ 0x10))


def messages_of(config: FederationConfig) -> list[tuple[str, int, dict[str, Any], bytes]]:
    """Collect every message to a device in a run: kind, client, values and bytes."""
    seen = []

    def noting(message: Message, context: Context) -> Message:
        content = recorddict_to_proto(message.content).SerializeToString()
        client = int(context.node_config["partition-id"])
        values = values_of(message.content) if "body" in message.content else {}
        seen.append((message.metadata.message_type, client, values, content))
        return app(message, context)

    with in_process_run(config) as run_id:
        grid = LocalGrid(
            noting, num_clients=config.num_clients, run_config=config.to_run_config(), run_id=run_id
        )
        serve(grid, config)
    return seen


@pytest.mark.parametrize("executor", ["edge", "member"])
@pytest.mark.parametrize("handoff", ["exact", "latents"])
def test_no_byte_of_a_group_s_seed_reaches_a_member(make_run: MakeRun, executor: str, handoff: str) -> None:
    config = make_run(
        rounds={"count": 0},
        generation={
            "num_inference_steps": 4,
            "num_shared_steps": 2,
            "scorer": "none",
            "executor": executor,
            "handoff": handoff,
            "policy": "open",
        },
    )
    seen = messages_of(config)
    shared = [g for g in generation_of(read_record(config.output)).groups if g.num_shared_steps]
    assert shared
    finishing = 0
    for group in shared:
        tasks = {task.task_id for task in group.tasks}
        assert {task.outcome for task in group.tasks} == {"shared"}
        for kind, _, values, content in seen:
            if kind == Ask.FINISH and values["task_id"] in tasks:
                finishing += 1
                assert values["noise_seed"] != group.noise_seed
                assert not any(form in content for form in forms_of(group.noise_seed))
            elif kind == Ask.SHARE:
                # the executor alone is told, of its own group
                assert values["task_id"] in tasks or values["noise_seed"] != group.noise_seed
    assert finishing == sum(len(group.tasks) for group in shared)


@pytest.fixture
def party(make_run: MakeRun) -> tuple[Any, DenoisingPlan, dict[int, Device], dict[str, int], Group]:
    """Two devices in one group, with one prompt each."""
    from fedaigc.federation.preloaded import taxonomy

    config = make_run(num_clients=2, prompts=("an apple on a table", "a lemon on a table"))
    pipe, base_hash = base_model(config.model)
    plan = build_plan(
        pipe, num_inference_steps=4, guidance_scale=5.0, height=32, width=32, base_hash=base_hash
    )
    devices = {
        client: Device(config.home(client), pipe, base_hash=base_hash, taxonomy=taxonomy())
        for client in range(2)
    }
    owners = {device.waiting()[0]: client for client, device in devices.items()}
    return pipe, plan, devices, owners, Group(tuple(sorted(owners)), "a fruit on a table", None)


def edge_of(pipe: Any, damage: bool = False) -> Any:
    def run(order: ShareOrder) -> SharedSteps:
        steps = run_shared_steps(
            pipe,
            order.group_prompt,
            order.plan,
            order.stop,
            noise_seed=order.noise_seed,
        )
        if not damage:
            return steps
        packet = bytearray(steps.packet)
        packet[-40] ^= 1
        return replace(steps, packet=bytes(packet))

    return run


def test_a_member_that_refused_its_packet_runs_from_other_noise(party: Any) -> None:
    """The helper may have kept the packet. At b8a6c4d, it then also received its seed."""
    pipe, plan, devices, owners, group = party
    assignments = plan_assignments([group], owners, with_boundary(plan, 4), num_shared_steps=2, seed=3)
    seed = assignments[0].noise_seed
    peers = LocalPeers(devices)
    (result,) = carry_out(assignments, owners, plan, peers, edge_of(pipe, damage=True))
    assert [task.outcome for task in result.tasks] == [Outcome.ALONE, Outcome.ALONE]
    alone = {order.task_id: order.noise_seed for order in peers.orders if order.packet is None}
    assert alone == {task: derived_seed(seed, "alone", task) for task in owners}
    assert seed not in {order.noise_seed for order in peers.orders}


def test_a_member_without_any_packet_has_the_noise_of_its_group(party: Any) -> None:
    pipe, plan, devices, owners, group = party
    (assignment,) = plan_assignments([group], owners, with_boundary(plan, 4), num_shared_steps=2, seed=3)
    peers = LocalPeers(devices)
    # a helper that is not there
    away = replace(assignment, executor=7)
    carry_out([away], owners, plan, peers, edge_of(pipe))
    assert {order.noise_seed for order in peers.orders} == {assignment.noise_seed}


@pytest.mark.parametrize("ancestral", [True, False])
def test_a_member_s_own_stream_comes_with_its_order_and_draws_the_same_picture(
    party: Any, ancestral: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For an ancestral sampler, the order has the seed that the member derived before, otherwise 0."""
    from diffusers import EulerAncestralDiscreteScheduler

    pipe, plan, devices, owners, group = party
    if ancestral:
        monkeypatch.setattr(
            pipe, "scheduler", EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
        )
        plan = build_plan(
            pipe, num_inference_steps=4, guidance_scale=5.0, height=32, width=32, base_hash=plan.base_hash
        )
    assignments = plan_assignments([group], owners, with_boundary(plan, 4), num_shared_steps=2, seed=3)
    seed = assignments[0].noise_seed
    peers = LocalPeers(devices)
    carry_out(assignments, owners, plan, peers, edge_of(pipe))
    for order in peers.orders:
        own = derived_seed(seed, "member", order.task_id) if ancestral else 0
        assert order.noise_seed == own
        state = run_segment(pipe, initial_state(pipe, plan, seed), {"prompt": group.prompt}, plan, 2)
        device = devices[owners[order.task_id]]
        prompt = device.prompts.get(order.task_id).prompt
        (expected,) = finish_segment(pipe, state.with_noise_stream(own), {"prompt": prompt}, plan)
        assert np.array_equal(np.asarray(device.gallery.image(order.task_id)), np.asarray(expected))


def test_a_helper_s_packet_with_the_stream_goes_to_nobody(party: Any) -> None:
    pipe, plan, _, owners, group = party
    state = run_segment(pipe, initial_state(pipe, plan, 5), {"prompt": group.prompt}, plan, 2)
    order = ShareOrder(0, min(owners), group.prompt, 5, plan, 2)
    honest, shape = SharedSteps(pack(state, plan), 2, 4), tuple(state.latents.shape)
    assert _shared_steps(shared_steps_record(honest), order, shape) == honest
    telling = replace(honest, packet=pack(state, plan, noise_stream=True))
    with pytest.raises(PacketError, match="noise stream"):
        _shared_steps(shared_steps_record(telling), order, shape)


def test_noise_of_a_deployment_follows_from_nothing_that_can_be_guessed(party: Any) -> None:
    """The same tasks get different noise in two runs, and no seed of 32 bits, which could be searched."""
    _, plan, _, owners, group = party

    def drawn() -> int:
        (found,) = plan_assignments([group], owners, with_boundary(plan, 4), num_shared_steps=2, seed=None)
        return found.noise_seed

    seeds = {drawn() for _ in range(20)}
    assert len(seeds) == 20
    assert all(-(2**63) <= seed < 0 for seed in seeds)


@pytest.mark.parametrize("executor", ["edge", "member"])
def test_such_noise_passes_through_the_messages_of_a_run(make_run: MakeRun, executor: str) -> None:
    """The server sends no seed to the helper, to members that share and to those that run alone."""
    config = make_run(
        prompts=("an apple on a table", "a lemon on a table", "a dog near a river", "x y z"),
        rounds={"count": 0},
        seeded_noise=False,
        generation={"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none", "executor": executor},
    )
    seen = messages_of(config)
    groups = generation_of(read_record(config.output)).groups
    outcomes = {task.outcome for group in groups for task in group.tasks}
    assert outcomes == {"shared", "alone"}
    assert all(group.noise_seed < 0 for group in groups)
    assert all(values["noise_seed"] < 0 for kind, _, values, _ in seen if kind == Ask.SHARE)


def test_the_history_of_a_multistep_sampler_gives_the_noise_away_and_latents_do_not(party: Any) -> None:
    """The warning about `handoff = "exact"`: the first step of PNDM keeps the initial noise itself."""
    from diffusers import PNDMScheduler

    pipe, _, _, _, group = party
    before = pipe.scheduler
    try:
        pipe.scheduler = PNDMScheduler.from_config(before.config, skip_prk_steps=True)
        plan = build_plan(
            pipe, num_inference_steps=4, guidance_scale=5.0, height=32, width=32, base_hash="base"
        )
        noise = initial_state(pipe, plan, 5)
        first = run_segment(pipe, noise, {"prompt": group.prompt}, plan, 1)
        kept = unpack(pack(first, plan), plan).history
        assert any(
            isinstance(value, torch.Tensor)
            and value.shape == noise.latents.shape
            and torch.equal(value, noise.latents)
            for value in (kept or {}).values()
        )
        second = run_segment(pipe, noise, {"prompt": group.prompt}, plan, 2)
        assert unpack(pack(second, plan, "latents"), plan).history is None
    finally:
        pipe.scheduler = before
