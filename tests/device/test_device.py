"""The device on the embedded model: what it trains, draws, stores and refuses."""

import errno
import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from fedaigc.data.scenes import scenes_dataset
from fedaigc.device.device import Device
from fedaigc.device.home.prompts import TaskStatus
from fedaigc.device.home.versions import KEPT_RUNS
from fedaigc.device.replies import (
    DeviceError,
    Failure,
    UnknownTask,
    failure_of,
    reading_an_order,
    refusing,
)
from fedaigc.device.scoring import Confidence
from fedaigc.device.training.encoded_cache import encoded_images
from fedaigc.diffusion.adapters.shared_state_file import write_shared_state
from fedaigc.diffusion.adapters.stages import Adapter, SharedState, new_adapter
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.diffusion.schedule.plan import DenoisingPlan, boundary_step, build_plan, even_steps
from fedaigc.diffusion.training import TrainingSettings
from fedaigc.errors import DamagedFile, PacketError, UserError
from fedaigc.extras import MissingExtra
from fedaigc.semantics.concepts.taxonomy import Taxonomy
from fedaigc.storage.tensor_file import read_parts
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received, Update

SETTINGS = TrainingSettings(local_steps=2, personal_steps=2, batch_size=2, learning_rate=1e-2)
SIZE: dict[str, Any] = {"height": 64, "width": 64}


@pytest.fixture(scope="module")
def shared(pipe: Any, base_hash: str) -> SharedState:
    factors = new_adapter(pipe, generator=torch.Generator().manual_seed(0), rank=2)
    return SharedState(base_hash, factors.lora, 2, 2.0, boundary_log_snr=boundary_log_snr(pipe, 500))


@pytest.fixture(scope="module")
def plan(pipe: Any, base_hash: str, shared: SharedState) -> DenoisingPlan:
    return build_plan(
        pipe,
        num_inference_steps=4,
        guidance_scale=5.0,
        base_hash=base_hash,
        shared_hash=shared.hash(),
        **SIZE,
    )


@pytest.fixture
def device(tmp_path: Path, pipe: Any, base_hash: str, taxonomy: Taxonomy) -> Device:
    made = Device(tmp_path / "home", pipe, base_hash=base_hash, taxonomy=taxonomy, seed=1)
    made.add_images(scenes_dataset(styles=("noto",), n=4, seed=0))
    return made


def _train(device: Device, shared: SharedState, round: int, run: str = "run") -> Update:
    rule = load_strategy("fedit")
    return device.train(run, Received(shared, round), rule, SETTINGS, local_steps=2, personal_rank=2, **SIZE)


def _equal(one: Adapter | None, other: Adapter | None) -> bool:
    assert one is not None
    assert other is not None
    left, right = one.tensors(), other.tensors()
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_training_sends_the_shared_factors_and_keeps_the_personal_ones(
    device: Device, shared: SharedState
) -> None:
    update = _train(device, shared, 1)
    assert update.tensors.keys() == shared.adapter.tensors().keys()
    assert (update.num_examples, update.num_steps) == (4, 2)
    moved = [
        name for name, tensor in update.tensors.items() if not torch.equal(tensor, shared.tensors()[name])
    ]
    assert moved
    personal = device.versions.current_personal()
    assert personal is not None
    for name, tensor in personal.tensors().items():
        assert not (tensor.any() and torch.equal(tensor, update.tensors[name]))
    assert any(tensor.any() for name, tensor in personal.tensors().items() if name.endswith("lora_B"))


def test_a_repeated_round_starts_from_the_version_before_it(device: Device, shared: SharedState) -> None:
    first = _train(device, shared, 1)
    after_first = device.versions.current_personal()
    second = _train(device, shared, 2)
    after_second = device.versions.current_personal()
    again = _train(device, shared, 2)
    assert _equal(device.versions.current_personal(), after_second)
    assert not _equal(after_first, after_second)
    assert all(torch.equal(second.tensors[name], again.tensors[name]) for name in second.tensors)
    assert any(not torch.equal(first.tensors[name], second.tensors[name]) for name in first.tensors)
    # another run does not go on where this one stopped
    _train(device, shared, 1, run="other")
    assert _equal(device.versions.current_personal(), after_first)


def test_old_versions_are_dropped_and_the_disk_stays_bounded(device: Device, shared: SharedState) -> None:
    for round in range(1, 6):
        device.versions.save_round("run", round, shared.adapter)
        device.receive(replace(shared, alpha=float(round)))
    kept = sorted(path.name for path in (device._home.adapters / "rounds" / "run").iterdir())
    assert kept == [f"{number:06d}.safetensors" for number in (3, 4, 5)]
    assert len(list((device._home.adapters / "shared").iterdir())) == 2


def test_old_runs_are_dropped_but_never_the_one_that_the_current_adapter_is_from(
    device: Device, shared: SharedState
) -> None:
    device.versions.save_round("first", 1, shared.adapter)
    for number in range(KEPT_RUNS + 3):
        # a strategy without a personal stage: the current adapter stays that of the first run
        device.versions.save_round(f"run{number}", 1, None)
    kept = {path.name for path in (device._home.adapters / "rounds").iterdir()}
    assert kept == {"first", *(f"run{number}" for number in range(2, KEPT_RUNS + 3))}
    assert _equal(device.versions.current_personal(), shared.adapter)


def test_of_runs_of_one_name_two_earlier_ones_are_kept(device: Device, shared: SharedState) -> None:
    device.versions.save_round("other", 1, None)
    for number in range(5):
        device.versions.save_round(f"run.{number:016x}", 1, shared.adapter)
        assert _equal(device.versions.latest(f"run.{number:016x}")[0], shared.adapter)
    kept = {path.name for path in (device._home.adapters / "rounds").iterdir()}
    assert kept == {"other", *(f"run.{number:016x}" for number in (2, 3, 4))}


def test_latents_are_computed_once_and_again_when_the_images_change(device: Device, pipe: Any) -> None:
    first = encoded_images(device.images, pipe, device.base_hash, **SIZE)
    (cached,) = device._home.cache.iterdir()
    written = cached.stat().st_mtime_ns
    again = encoded_images(device.images, pipe, device.base_hash, **SIZE)
    assert torch.equal(first.latents, again.latents)
    assert cached.stat().st_mtime_ns == written
    device.add_images(scenes_dataset(styles=("noto",), n=1, seed=5))
    more = encoded_images(device.images, pipe, device.base_hash, **SIZE)
    assert more.latents.shape[0] == 5
    assert len(list(device._home.cache.iterdir())) == 1


def test_a_home_reopened_goes_on_and_everything_in_it_is_private(
    device: Device, pipe: Any, base_hash: str, taxonomy: Taxonomy, shared: SharedState, plan: DenoisingPlan
) -> None:
    task_id = device.add_prompt("an apple on a table")
    _train(device, shared, 1)
    again = Device(device._home.root, pipe, base_hash=base_hash, taxonomy=taxonomy)
    assert again.waiting() == [task_id]
    again.alone(task_id, 7, plan, strip_steps=(0, 2))
    assert again.waiting() == []
    assert again.prompts.get(task_id).status is TaskStatus.FINISHED
    (entry,) = again.gallery.all()
    assert entry.prompt == "an apple on a table"
    assert [image.size for image in again.gallery.strip(entry)] == [(64, 64)] * 2
    root = device._home.root
    assert not [path for path in (root, *root.rglob("*")) if stat.S_IMODE(path.stat().st_mode) & 0o077]


def test_shared_and_own_steps_are_counted_on_either_side_of_the_boundary(
    device: Device, shared: SharedState, plan: DenoisingPlan
) -> None:
    boundary = boundary_step(plan, shared.boundary_log_snr)
    assert boundary == 2  # trailing timesteps 999, 749, 499, 249: the first two are noisier than 500
    _train(device, shared, 1)
    task_id = device.add_prompt("an apple on a table")
    steps = device.share(task_id, "a fruit on a table", plan, 1, noise_seed=3)
    assert (steps.denoiser_calls, steps.denoiser_samples) == (1, 2)
    report = device.finish(task_id, steps.packet, plan)
    assert (report.shared_stage_steps, report.personal_stage_steps) == (1, 2)
    assert (report.denoiser_calls, report.denoiser_samples) == (3, 6)
    assert report.object_confidence is None


def test_showing_a_strip_changes_no_pixel(device: Device, shared: SharedState, plan: DenoisingPlan) -> None:
    device.receive(shared)
    task_id = device.add_prompt("an apple on a table")
    device.alone(task_id, 7, plan)
    again = device.add_prompt("an apple on a table")
    device.alone(again, 7, plan, strip_steps=(0, 1, 2, 3))
    plain, shown = (np.asarray(device.gallery.image(each)) for each in (task_id, again))
    assert np.array_equal(shown, plain)


def test_the_personal_adapter_serves_its_own_device_only(
    device: Device,
    tmp_path: Path,
    pipe: Any,
    base_hash: str,
    taxonomy: Taxonomy,
    shared: SharedState,
    plan: DenoisingPlan,
) -> None:
    other = Device(tmp_path / "other", pipe, base_hash=base_hash, taxonomy=taxonomy, seed=1)
    pictures = []
    for trains in (False, True):
        if trains:
            _train(device, shared, 1)
        for each in (device, other):
            each.receive(shared)
            task_id = each.add_prompt("an apple on a table")
            each.alone(task_id, 7, plan)
            pictures.append(np.asarray(each.gallery.image(task_id)))
    untrained, other_before, trained, other_after = pictures
    assert np.array_equal(untrained, other_before)
    assert np.array_equal(other_before, other_after)
    assert not np.array_equal(untrained, trained)


def test_the_scorer_sees_the_private_concepts_and_tells_tenths(
    device: Device, shared: SharedState, plan: DenoisingPlan, pipe: Any, base_hash: str, taxonomy: Taxonomy
) -> None:
    seen = []

    def score(image: Image.Image, object: str | None, place: str | None, prompt: str = "") -> Confidence:
        seen.append((object, place))
        return Confidence(0.449, None)

    scored = Device(device._home.root, pipe, base_hash=base_hash, taxonomy=taxonomy, scorer=score)
    scored.receive(shared)
    report = scored.alone(scored.add_prompt("a shiny apple on a table"), 7, plan)
    assert (report.object_confidence, report.place_confidence) == (0.4, None)
    assert seen[0][0] == "n07755101"  # apple


def test_what_does_not_fit_is_refused_by_kind(
    device: Device,
    shared: SharedState,
    plan: DenoisingPlan,
    pipe: Any,
    base_hash: str,
    taxonomy: Taxonomy,
    tmp_path: Path,
) -> None:
    task_id = device.add_prompt("an apple on a table")
    with pytest.raises(DeviceError) as missing:
        device.alone(task_id, 7, plan)
    assert missing.value.failure is Failure.SHARED_STATE_MISSING
    device.receive(shared)
    packet = device.share(task_id, "a fruit on a table", plan, 2, noise_seed=3).packet
    with pytest.raises(UserError):
        device.share(task_id, "a fruit on a table", plan, 3, noise_seed=3)
    with pytest.raises(UnknownTask):
        device.share("0" * 16, "a fruit on a table", plan, 2, noise_seed=3)
    with pytest.raises(PacketError):
        device.finish(task_id, packet[:-1], plan)
    with pytest.raises(PacketError):
        device.finish(task_id, packet, replace(plan, guidance_scale=2.0))
    for foreign in (replace(plan, base_hash="0" * 64), replace(shared, base_hash="0" * 64)):
        with pytest.raises(DeviceError, match=base_hash) as refused:
            device.receive(foreign) if isinstance(foreign, SharedState) else device.alone(task_id, 7, foreign)
        assert refused.value.failure is Failure.BASE_DIFFERS
    empty = Device(tmp_path / "empty", pipe, base_hash=base_hash, taxonomy=taxonomy)
    with pytest.raises(DeviceError) as bare:
        _train(empty, shared, 1)
    assert bare.value.failure is Failure.NO_IMAGES
    assert device.waiting() == [task_id]


def test_names_from_outside_cannot_leave_the_home(
    device: Device, shared: SharedState, plan: DenoisingPlan
) -> None:
    task_id = device.add_prompt("an apple on a table")
    with pytest.raises(DeviceError):
        _train(device, shared, 1, run="../../escape")
    with pytest.raises(DeviceError):
        device.alone(task_id, 7, replace(plan, shared_hash="../prompts"))


def test_a_state_that_changed_on_the_disk_is_not_used(
    device: Device, shared: SharedState, plan: DenoisingPlan
) -> None:
    version = device.receive(shared)
    path = device._home.adapters / "shared" / f"{version}.safetensors"
    header, parts = read_parts(path)
    tensors = {f"shared/{name}": tensor for name, tensor in parts["shared"].items()}
    save_file(tensors, path, metadata={"fedaigc": json.dumps({"header": header, "digest": "0" * 64})})
    with pytest.raises(DamagedFile, match="differ from those that were written"):
        device.alone(device.add_prompt("an apple on a table"), 7, plan)
    # a whole file under another's name
    write_shared_state(path, replace(shared, alpha=3.0))
    with pytest.raises(DeviceError, match="on disk hashes to"):
        device.alone(device.add_prompt("an apple on a table"), 7, plan)


def test_every_error_has_a_kind_and_no_kind_has_a_text() -> None:
    assert failure_of(ValueError("an apple on a table")) is Failure.INTERNAL
    assert failure_of(OSError(errno.ENOSPC, "No space left on device")) is Failure.DISK_FULL
    assert failure_of(OSError(errno.EACCES, "Permission denied")) is Failure.STORAGE
    assert failure_of(DamagedFile("prompt.json")) is Failure.STORAGE
    assert failure_of(UserError("an apple on a table")) is Failure.ORDER_REFUSED
    assert failure_of(MissingExtra("pip install")) is Failure.PACKAGE_MISSING
    assert failure_of(MemoryError()) is Failure.OUT_OF_MEMORY
    assert failure_of(torch.OutOfMemoryError("tried to allocate")) is Failure.OUT_OF_MEMORY
    assert failure_of(UnknownTask()) is Failure.UNKNOWN_TASK
    assert failure_of(PacketError("damaged")) is Failure.PACKET_REFUSED


def test_what_is_refused_has_the_kind_of_the_part_that_refused_it() -> None:
    for error, failure in (
        (UserError("too many steps"), Failure.TRAINING_REFUSED),
        (DamagedFile("state"), Failure.STORAGE),
        (MissingExtra("pip install"), Failure.PACKAGE_MISSING),
        (DeviceError(Failure.NO_IMAGES, "none"), Failure.NO_IMAGES),
        (ValueError("a defect"), Failure.INTERNAL),
    ):
        with pytest.raises((type(error), DeviceError)) as found, refusing(Failure.TRAINING_REFUSED):
            raise error
        assert failure_of(found.value) is failure
    with pytest.raises(DeviceError) as unread, reading_an_order():
        raise KeyError("plan")
    assert failure_of(unread.value) is Failure.ORDER_REFUSED


def test_a_device_keeps_the_way_that_its_owner_asks_for_and_draws_the_same(
    device: Device,
    pipe: Any,
    base_hash: str,
    taxonomy: Taxonomy,
    shared: SharedState,
    plan: DenoisingPlan,
    tmp_path: Path,
) -> None:
    """Four steps from the packet's step 1, two pictures: before step 1, as received, and before step 2."""
    device.receive(shared)
    task_id = device.add_prompt("an apple on a table")
    packet = device.share(task_id, "a fruit on a table", plan, 1, noise_seed=3).packet
    assert [(work.task_id, work.steps) for work in device.shared_work.readable()[0]] == [(task_id, 1)]
    device.finish(task_id, packet, plan)
    assert not list((device._home.gallery).glob("*.strip*"))
    without = device.gallery.image(task_id).tobytes()
    showing = Device(device._home.root, pipe, base_hash=base_hash, taxonomy=taxonomy, strip_pictures=2)
    shown, asked = (showing.add_prompt("an apple on a table") for _ in range(2))
    showing.finish(shown, packet, plan)
    entries = {entry.task_id: entry for entry in showing.gallery.all()}
    assert entries[shown].strip_steps == (1, 2)
    assert len(showing.gallery.strip(entries[shown])) == 2
    assert showing.gallery.begun(shown) is None
    assert showing.gallery.image(shown).tobytes() == without
    # what a run asks for comes first
    showing.finish(asked, packet, plan, strip_steps=(3,))
    entries = {entry.task_id: entry for entry in showing.gallery.all()}
    assert entries[asked].strip_steps == (3,)


def test_steps_of_the_way_are_even_and_begin_with_the_first() -> None:
    assert even_steps(3, 11, 4) == (3, 5, 7, 9)
    assert even_steps(0, 2, 4) == (0, 1)
    assert even_steps(4, 4, 2) == ()
    assert even_steps(3, 11, 0) == ()
