"""Groups whose shared steps run on the mean of their members' conditionings, or on that of one member."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flwr.app import RecordDict

from fedaigc.collaboration.conditioning import GroupConditioning
from fedaigc.collaboration.results import GroupRecord, Outcome
from fedaigc.collaboration.secure_sum import fixed_point
from fedaigc.device import node_answers
from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.home.sums import SumLog
from fedaigc.device.replies import DeviceError, Failure
from fedaigc.device.shared_steps import run_shared_steps
from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.adapters.stages import install
from fedaigc.diffusion.conditioning import prompt_conditioning
from fedaigc.errors import UserError
from fedaigc.federation.client import handlers
from fedaigc.federation.config.run_config import FederationConfig, packet_warnings
from fedaigc.federation.node_sharing import node_disclosure
from fedaigc.federation.output.records import read_record
from fedaigc.federation.preloaded import base_model
from fedaigc.federation.runtime.launcher import run_in_process, simulate
from fedaigc.federation.server.generation import plan_generation
from fedaigc.federation.server.initial_state import initial_shared_state
from fedaigc.federation.server.sharing.group_conditioning import vectors_of
from fedaigc.federation.wire.messages import Ask
from fedaigc.federation.wire.sum_messages import read_masked
from fedaigc.flower_private import recorddict_to_proto
from fedaigc.semantics.denoiser.offer import NO_NODE
from fedaigc.semantics.denoiser.sharing_distance import phi, phi_of
from tests.small_atlas import CAPTIONS, small_atlas
from tests.small_run import MakeRun, generation_of, images

PROMPTS = ("1girl, solo, zorblax", "ein Hund am Strand", "two red cars, photorealistic", "a lemon")
GENERATION = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none"}


@pytest.fixture
def atlas(tmp_path: Path, small_model: Path) -> Path:
    """An atlas of the small model. With the minimum of all its captions, each prompt discloses the root."""
    return small_atlas(tmp_path, small_model)


def run_of(
    make_run: MakeRun, atlas: Path, folder: str, generation: Any = None, **section: Any
) -> FederationConfig:
    return make_run(
        folder,
        num_clients=4,
        prompts=PROMPTS,
        rounds={"count": 0},
        generation={
            **GENERATION,
            **(generation or {}),
            "denoiser": {"atlas": atlas, "min_captions": len(CAPTIONS), **section},
        },
    )


def group_of(config: FederationConfig) -> GroupRecord:
    run_in_process(config)
    (group,) = generation_of(read_record(config.output)).groups
    assert [task.outcome for task in group.tasks] == [Outcome.SHARED] * 4
    return group


def drawn_on(config: FederationConfig, group: GroupRecord, prompts: tuple[str, ...]) -> dict[str, bytes]:
    """Draw the tasks of untouched homes from shared steps on the plain mean of these prompts' conditionings."""
    pipe, base_hash = base_model(config.model)
    shared = initial_shared_state(config)
    plan = plan_generation(shared, config)
    parts = [prompt_conditioning(pipe, prompt) for prompt in prompts]
    mean = {name: torch.cat([part[name] for part in parts]).mean(0, keepdim=True) for name in parts[0]}
    install(pipe, shared)
    steps = run_shared_steps(pipe, "", plan, 2, noise_seed=group.noise_seed, conditioning=mean)
    for client in range(4):
        device = Device(config.home(client), pipe, base_hash=base_hash)
        device.receive(shared)
        for task in device.waiting():
            device.finish(task, steps.packet, plan, noise_seed=0)
    return images(config)


def difference(one: dict[str, bytes], other: dict[str, bytes]) -> int:
    """Return the largest difference of two runs' pictures, in levels of 256."""
    assert one.keys() == other.keys()
    assert len(one) == 4
    return max(
        int(np.abs(np.frombuffer(one[k], np.uint8).astype(int) - np.frombuffer(other[k], np.uint8)).max())
        for k in one
    )


@pytest.mark.slow
def test_two_ray_workers_draw_on_a_mean_what_this_process_draws(make_run: MakeRun, atlas: Path) -> None:
    """Keys, masks and sums of devices that live in several processes: the pictures agree bit for bit."""
    local = run_of(make_run, atlas, "local", conditioning="mean")
    expected = group_of(local)
    there = run_of(make_run, atlas, "ray", conditioning="mean")
    record = simulate(there.model_copy(update={"backend": "ray", "workers": 2}))
    (group,) = generation_of(record).groups
    assert (group.conditioning, group.summed, group.fell_back) == ("mean", 4, None)
    assert (group.prompt, group.noise_seed) == (expected.prompt, expected.noise_seed)
    assert [task.outcome for task in group.tasks] == [Outcome.SHARED] * 4
    assert len(images(there)) == 4
    assert images(there) == images(local)


def test_pictures_from_a_sum_are_those_from_the_plain_mean(make_run: MakeRun, atlas: Path) -> None:
    config = run_of(make_run, atlas, "summed", conditioning="mean")
    group = group_of(config)
    assert (group.conditioning, group.summed, group.fell_back) == ("mean", 4, None)
    assert group.evaluations == 2 + 4 * 2
    directly = drawn_on(run_of(make_run, atlas, "directly"), group, PROMPTS)
    assert difference(images(config), directly) <= 1
    # and nothing else gives these pictures
    public = run_of(make_run, atlas, "public")
    told = group_of(public)
    assert (told.conditioning, told.summed, told.noise_seed) == ("public", 0, group.noise_seed)
    assert difference(images(config), images(public)) > 3
    (entry,) = SumLog(Home.open(config.home(0))).entries()
    assert (entry.status, entry.members, entry.private) == ("given", 4, "")
    # a helper is sent the mean with its order
    helped = run_of(make_run, atlas, "helped", {"executor": "member"}, conditioning="mean")
    assert group_of(helped).executor == 0
    assert difference(images(helped), images(config)) <= 1


def failing(on: Ask, clients: tuple[int, ...], patch: pytest.MonkeyPatch) -> None:
    """Let the devices of some clients fail at an order."""
    stock = handlers._HANDLERS[on]

    def answer(content: RecordDict, host: handlers.Host, config: FederationConfig) -> RecordDict:
        if host.client in clients:
            raise DeviceError(Failure.STORAGE, "gone")
        return stock(content, host, config)

    patch.setitem(handlers._HANDLERS, on, answer)


def test_a_member_that_vanishes_costs_the_mean_and_no_picture(
    make_run: MakeRun, atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = run_of(make_run, atlas, "public")
    group_of(public)
    failing(Ask.MASKED, (2,), monkeypatch)
    config = run_of(make_run, atlas, "vanished", conditioning="mean")
    group = group_of(config)
    assert (group.conditioning, group.summed, group.fell_back) == ("public", 0, "vanished")
    assert images(config) == images(public)


def test_who_announces_no_key_is_left_out_of_the_mean(
    make_run: MakeRun, atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(Ask.KEYS, (1,), monkeypatch)
    config = run_of(make_run, atlas, "three", conditioning="mean")
    group = group_of(config)
    assert (group.conditioning, group.summed) == ("mean", 3)
    three = tuple(prompt for client, prompt in enumerate(PROMPTS) if client != 1)
    directly = drawn_on(run_of(make_run, atlas, "directly"), group, three)
    assert difference(images(config), directly) <= 1
    failing(Ask.KEYS, (0, 1), monkeypatch)
    few = group_of(run_of(make_run, atlas, "two", conditioning="mean"))
    assert (few.conditioning, few.fell_back) == ("public", "too few devices")


def test_noise_changes_the_pictures_and_is_recorded(make_run: MakeRun, atlas: Path) -> None:
    config = run_of(make_run, atlas, "noisy", conditioning="mean", noise_epsilon=8.0)
    group = group_of(config)
    assert (group.conditioning, group.summed) == ("mean", 4)
    again = run_of(make_run, atlas, "again", conditioning="mean", noise_epsilon=8.0)
    group_of(again)
    assert difference(images(config), images(again)) > 0
    (entry,) = SumLog(Home.open(config.home(3))).entries()
    assert entry.noise_epsilon == 8.0
    with pytest.raises(UserError, match='noise_epsilon: conditioning is "public"'):
        run_of(make_run, atlas, "wrong", noise_epsilon=8.0)


def test_one_members_conditioning_is_the_papers_way(make_run: MakeRun, atlas: Path) -> None:
    config = run_of(make_run, atlas, "member", conditioning="member")
    group = group_of(config)
    assert (group.conditioning, group.summed) == ("member", 1)
    first = min(group.tasks, key=lambda task: task.task_id)
    directly = drawn_on(run_of(make_run, atlas, "directly"), group, (PROMPTS[first.client],))
    assert difference(images(config), directly) <= 1
    (entry,) = SumLog(Home.open(config.home(first.client))).entries()
    assert entry.status == "clear"
    (warning,) = packet_warnings(config)
    assert "the text embeddings of one member" in warning
    machines = config.model_copy(update={"bindings": {"1": 0}})
    with pytest.raises(UserError, match="for simulations"):
        plan_generation(initial_shared_state(machines), machines)


def test_what_a_device_gives_is_constant_in_size_and_one_vector_under_masks(
    make_run: MakeRun, atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[Ask, RecordDict]] = []
    stock = handlers.answer

    def recorded(kind: Ask, *arguments: Any) -> RecordDict:
        sent.append((kind, stock(kind, *arguments)))
        return sent[-1][1]

    monkeypatch.setattr(handlers, "answer", recorded)
    config = run_of(make_run, atlas, "recorded", conditioning="mean")
    group_of(config)
    given = [reply for kind, reply in sent if kind is Ask.MASKED]
    pipe, _ = base_model(config.model)
    own = [fixed_point.flat(prompt_conditioning(pipe, prompt)) for prompt in PROMPTS]
    assert len({len(recorddict_to_proto(reply).SerializeToString()) for reply in given}) == 1
    vectors = [read_masked(reply, own[0].size) for reply in given]
    for vector in vectors:
        # no value of any member's is there
        assert not any(np.count_nonzero(vector == fixed_point.encode(each)) for each in own)
    total = np.sum(vectors, axis=0, dtype=np.uint64)
    assert np.array_equal(total, np.sum([fixed_point.encode(each) for each in own], axis=0, dtype=np.uint64))


def test_devices_take_hand_offs_by_the_vector_of_the_mean(
    make_run: MakeRun, atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    stock = node_answers.taken_step

    def recorded(device: Device, offer: Any, *further: Any) -> int:
        asked.append(offer)
        return stock(device, offer, *further)

    monkeypatch.setattr(handlers, "taken_step", recorded)
    config = run_of(
        make_run,
        atlas,
        "ladder",
        {"num_shared_steps": 1},
        conditioning="mean",
        ladder=[2],
        calibration=atlas.with_name("small.json"),
    )
    group = group_of(config)
    assert (group.conditioning, group.summed, group.num_shared_steps) == ("mean", 4, 2)
    pipe, _ = base_model(config.model)
    put_adapters(pipe, None, None)
    space = node_disclosure(config).space
    parts = [prompt_conditioning(pipe, prompt) for prompt in PROMPTS]
    mean = {name: torch.cat([part[name] for part in parts]).mean(0, keepdim=True) for name in parts[0]}
    assert len(asked) == 4
    for offer in asked:
        assert offer.node == NO_NODE
        assert np.allclose(offer.vector, phi_of(pipe, space, mean)[0], atol=1e-4)
    # a conditioning of a caption has the vector of the caption
    same = {"0" * 16: GroupConditioning("mean", prompt_conditioning(pipe, CAPTIONS[0]), 3)}
    (vector,) = vectors_of(pipe, config, same).values()
    assert np.allclose(vector, phi(pipe, space, [CAPTIONS[0]])[0], atol=1e-4)
    assert not np.allclose(vector, asked[0].vector, atol=1e-2)
