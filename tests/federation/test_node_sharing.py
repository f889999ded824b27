"""A run whose devices disclose nodes of an atlas: prompts of any words share, and no word of them leaves."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.home.ledger_report import ledger_report
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.device.node_answers import node_signature
from fedaigc.diffusion.loading import load_pipeline
from fedaigc.errors import UserError
from fedaigc.federation.client import handlers
from fedaigc.federation.config.run_config import FederationConfig, parse_config, read_config
from fedaigc.federation.node_sharing import node_disclosure
from fedaigc.federation.output.recorder import refusals
from fedaigc.federation.output.records import read_record
from fedaigc.federation.output.run_summary import disclosed_words
from fedaigc.federation.runtime.launcher import run_in_process
from fedaigc.federation.wire.generation_messages import read_signatures, signatures_record
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.local_privacy import RandomizedNode
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from tests.small_atlas import small_atlas
from tests.small_run import MakeRun, generation_of

# none of these parses as an object in a relation to a place
PROMPTS = ("1girl, solo, zorblax", "ein Hund am Strand", "two red cars, photorealistic", "1girl, solo, quux")


@pytest.fixture
def atlas(tmp_path: Path, small_model: Path) -> Path:
    return small_atlas(tmp_path, small_model)


def denoiser_run(make_run: MakeRun, atlas: Any, *, folder: Any = "run", **section: Any) -> FederationConfig:
    generation = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none"}
    return make_run(
        folder,
        num_clients=4,
        prompts=PROMPTS,
        rounds={"count": 1},
        generation={**generation, "denoiser": {"atlas": atlas, "min_captions": 2, **section}},
    )


def test_prompts_that_no_graph_knows_share_their_first_steps(
    make_run: MakeRun, atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    answer = handlers.answer

    def recorded(*arguments: Any) -> Any:
        reply = answer(*arguments)
        sent.append(json.dumps([str(value) for value in reply.values()]).encode())
        return reply

    monkeypatch.setattr(handlers, "answer", recorded)
    config = denoiser_run(make_run, atlas, calibration=atlas.with_name("small.json"))
    run_in_process(config)
    generation = generation_of(read_record(config.output))
    assert generation.policy == "node"
    (group,) = generation.groups
    # all distances are near enough: the largest group, at the deepest node that its members have in common
    read = Atlas.read(atlas)
    told = [task.disclosed or {} for task in group.tasks]
    ways = [set(read.lifted(int(each["node"]), int(each["highest"]))) for each in told]
    assert group.prompt == read.captions[read.medoid(max(set.intersection(*ways)))]
    assert len(group.tasks) == 4
    assert all(task.outcome == "shared" and task.handoff_step == 2 for task in group.tasks)
    assert group.evaluations == 2 + 4 * 2
    for task in group.tasks:
        assert task.disclosed is not None
        assert task.disclosed["atlas"] == read.hash
        assert "node" in disclosed_words(task)
    # what a device says of its prompt is two numbers: no word of it is in any reply or record
    everything = b" ".join(sent) + (config.output / "record.json").read_bytes()
    for word in ("girl", "zorblax", "Hund", "Strand", "photorealistic", "quux"):
        assert word.encode() not in everything
    home = Home.open(config.home(0))
    (line,) = PromptQueue(home).disclosures.entries()
    assert line.policy == "node"
    assert NodeSignature(**json.loads(line.signature)).atlas == read.hash


@pytest.fixture
def ladder(make_run: MakeRun, atlas: Path, small_model: Path) -> FederationConfig:
    """A run with the hand-offs 1, 2, 3, of which two devices take the second and two the third."""
    base = denoiser_run(make_run, atlas)
    told = node_disclosure(base)
    pipe = load_pipeline(str(small_model))
    apart = sorted(told.to_caption(told.vector(pipe, prompt), 0) for prompt in PROMPTS)
    assert apart[1] < apart[2]
    # at the third hand-off the damage is too large beyond the two nearest prompts
    middle = (apart[1] + apart[2]) / 2
    distances = (*np.linspace(0, middle - 1e-4, 4000).tolist(), *np.linspace(middle + 1e-4, 1e6, 40).tolist())
    damages: dict[str, tuple[float, ...]] = {
        "1": (0.0,) * 4040,
        "2": (0.0,) * 4040,
        "3": (0.0,) * 4000 + (0.9,) * 40,
    }
    curve = Calibration(
        told.space.hash, told.space.plan.fingerprint(), "DDIMScheduler", 4, 5.0, "c", 0, distances, damages
    )
    path = atlas.with_name("ladder.json")
    curve.write(path)
    generation = {"num_inference_steps": 4, "num_shared_steps": 1, "scorer": "none"}
    section = {"atlas": atlas, "calibration": path, "ladder": [2, 3], "min_captions": 9}
    return make_run(
        num_clients=4,
        prompts=PROMPTS,
        rounds={"count": 1},
        adapter={"boundary_timestep": 100},
        generation={**generation, "denoiser": section},
    )


def test_each_device_takes_the_last_handoff_that_its_tolerance_allows(
    ladder: FederationConfig, small_model: Path
) -> None:
    run_in_process(ladder)
    (group,) = generation_of(read_record(ladder.output)).groups
    told, pipe = node_disclosure(ladder), load_pipeline(str(small_model))
    assert told.calibration is not None
    for task in group.tasks:
        prompt = PromptQueue(Home.open(ladder.home(task.client))).get(task.task_id).prompt
        apart = told.to_caption(told.vector(pipe, prompt), 0)
        assert task.handoff_step == told.calibration.last_handoff(apart, told.tolerance)
        # its answer, one of three hand-offs or none, is counted
        ledger = PromptQueue(Home.open(ladder.home(task.client))).ledger
        of_task = [entry for entry in ledger.entries() if entry.task_id == task.task_id]
        (answer,) = [entry for entry in of_task if entry.kind == "hand-off"]
        assert answer.said == str(task.handoff_step)
        # a prompt that a home has twice tells nothing new
        assert answer.bits == (0.0 if answer.again else 2.0)
    # the executor runs to the last one, and each member what is left after its own
    taken = [task.handoff_step for task in group.tasks]
    assert (
        group.evaluations
        == group.planned_evaluations
        == max(t or 0 for t in taken) + sum(4 - (t or 0) for t in taken)
    )
    assert len(set(taken)) > 1
    assert all(task.outcome == "shared" for task in group.tasks)


def test_nodes_with_noise_are_drawn_from_the_seeds_of_the_homes_and_counted(
    make_run: MakeRun, atlas: Path
) -> None:
    drawing = RandomizedNode.of(Atlas.read(atlas), 2, 3.0)
    assert drawing is not None
    found = []
    for folder in ("one", "two"):
        config = denoiser_run(make_run, atlas, epsilon=3.0, folder=folder)
        run_in_process(config)
        groups = generation_of(read_record(config.output)).groups
        nodes = {task.task_id: task.disclosed for group in groups for task in group.tasks}
        found.append(nodes)
        for each in nodes.values():
            assert each is not None
            assert each["node"] in drawing.nodes
            assert each["highest"] == each["node"]
        for client in range(4):
            report = ledger_report(PromptQueue(Home.open(config.home(client))))
            assert (report.total.nodes, report.total.epsilon) == (1, 3.0)
            assert report.total.bits == pytest.approx(drawing.bits)
    assert found[0] == found[1]
    with pytest.raises(UserError, match="epsilon and calibration need a ladder"):
        denoiser_run(make_run, atlas, epsilon=3.0, calibration=atlas.with_name("small.json"))


def test_alone_when_no_other_device_is_near_enough(make_run: MakeRun, atlas: Path) -> None:
    far = atlas.with_name("small.json")
    config = denoiser_run(make_run, atlas, calibration=far, min_devices=5)
    run_in_process(config)
    groups = generation_of(read_record(config.output)).groups
    assert [len(group.tasks) for group in groups] == [1, 1, 1, 1]
    assert all(task.outcome == "alone" for group in groups for task in group.tasks)


def test_the_signature_is_that_of_the_base_model(make_run: MakeRun, atlas: Path, small_model: Path) -> None:
    """Training must not move a prompt in the atlas: the shared and the personal adapter stay out of the answer."""
    config = denoiser_run(make_run, atlas)
    pipe = load_pipeline(str(small_model))
    device = Device(config.home(0), pipe)
    (task,) = device.waiting()
    before = node_signature(device, task, node_disclosure(config))
    run_in_process(
        config.model_copy(update={"generation": config.generation.model_copy(update={"enabled": False})})
    )
    trained = Device(config.home(0), pipe)
    assert trained.versions.current_personal() is not None
    assert node_signature(trained, task, node_disclosure(config)) == before


def test_files_that_do_not_fit_the_run_are_refused_before_it(make_run: MakeRun, atlas: Path) -> None:
    curve = atlas.with_name("small.json")
    for section, generation, message in (
        ({"noises": 2}, {}, "another space"),
        ({"calibration": curve}, {"guidance_scale": 2.0}, r"guidance \(5.0 there, 2.0 here\)"),
        ({"calibration": atlas}, {}, "no calibration"),
        ({"atlas": curve}, {}, "damaged"),
        ({"atlas": atlas.with_name("none")}, {}, "no tensor file"),
    ):
        values: dict[str, Any] = {"atlas": atlas, **section}
        config = denoiser_run(make_run, **values)
        changed = config.generation.model_copy(update=generation)
        with pytest.raises(UserError, match=message):
            run_in_process(config.model_copy(update={"generation": changed}))
        assert not (config.output / "record.json").exists() or read_record(config.output).status == "failed"
    with pytest.raises(UserError, match="exclude each other"):
        parse_config(
            {
                "homes": "h",
                "output": "o",
                "generation": {"policy": "open", "denoiser": {"atlas": "a"}},
            }
        )


def test_a_device_with_another_atlas_is_named_with_both_hashes(
    make_run: MakeRun, atlas: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stock = handlers.node_signature  # type: ignore[attr-defined]

    def of_another(device: Device, *further: Any) -> NodeSignature | None:
        told = stock(device, *further)
        other = told is not None and device.prompts.home.root == config.home(2)
        return replace(told, atlas="f" * 64) if told is not None and other else told

    monkeypatch.setattr(handlers, "node_signature", of_another)
    config = denoiser_run(make_run, atlas, calibration=atlas.with_name("small.json"))
    run_in_process(config)
    record = read_record(config.output)
    (line,) = refusals(record)
    assert line.startswith(
        "1 prompt(s) of client 2 ran alone: its device has atlas ffffffffffffffff, and the run "
    )
    assert Atlas.read(atlas).hash[:16] in line
    assert "--atlas FILE" in line
    alone = [group for group in generation_of(record).groups if len(group.tasks) == 1]
    assert [group.tasks[0].client for group in alone] == [2]


def test_paths_count_from_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(
        'homes = "h"\noutput = "o"\n[generation.denoiser]\natlas = "a/b.atlas"\ncalibration = "c.json"\n'
    )
    section = read_config(path).generation.denoiser
    assert section is not None
    assert section.atlas == tmp_path / "a/b.atlas"
    assert section.calibration == tmp_path / "c.json"


def test_a_reply_of_the_other_space_is_refused() -> None:
    node = NodeSignature("a" * 64, 3, 1)
    record = signatures_record({"0" * 16: node}, 0)
    assert read_signatures(record, nodes=True) == ({"0" * 16: node}, 0)
    with pytest.raises(ValueError, match="another space: expected concepts"):
        read_signatures(record)
