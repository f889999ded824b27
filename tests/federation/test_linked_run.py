"""Whole runs whose latents are sent over a simulated radio link."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from diffusers import DPMSolverMultistepScheduler

from fedaigc.collaboration.link import LinkReport
from fedaigc.collaboration.results import TaskRecord
from fedaigc.device.device import Device
from fedaigc.device.home.home import Home
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.recorder import refusals
from fedaigc.federation.output.records import read_record
from fedaigc.federation.output.run_summary import generation_lines
from fedaigc.federation.runtime.launcher import run_in_process, simulate
from tests.small_run import MakeRun, generation_of, images

LINKED = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none", "delivery": "tolerant"}


def sent_packets(config: FederationConfig) -> list[TaskRecord]:
    groups = generation_of(read_record(config.output)).groups
    return [task for group in groups for task in group.tasks if group.num_shared_steps]


def links_of(packets: list[TaskRecord]) -> list[LinkReport]:
    links = [task.link for task in packets if task.link is not None]
    assert len(links) == len(packets)
    return links


def test_packets_cross_the_link_of_the_run(make_run: MakeRun) -> None:
    """Bit errors change the pictures, are the same under the same seed, and every bit is counted."""
    link = {"bit_error_rate": 0.02}
    clean = make_run("clean", rounds={"count": 0}, generation={**LINKED, "link": {}})
    noisy = make_run("noisy", rounds={"count": 0}, generation={**LINKED, "link": link})
    again = make_run("again", rounds={"count": 0}, generation={**LINKED, "link": link, "executor": "member"})
    for config in (clean, noisy, again):
        run_in_process(config)
    assert images(noisy) == images(again) != images(clean)
    packets = sent_packets(noisy)
    assert packets
    assert [task.link for task in packets] == [task.link for task in sent_packets(again)]
    for task in packets:
        assert task.outcome == "shared"
    assert all(0 < link.bit_errors < 0.1 * link.information_bits for link in links_of(packets))
    assert all(link.bit_errors == 0 for link in links_of(sent_packets(clean)))
    # the wire of the federation carries the same bytes: the record's packets, eight bits each
    groups = generation_of(read_record(noisy.output)).groups
    sent = sum(group.packet_bytes for group in groups)
    assert sum(link.serialized_bits for link in links_of(packets)) == 8 * sent


def test_strict_devices_refuse_what_the_link_damaged_and_run_alone(make_run: MakeRun) -> None:
    strict = {**LINKED, "delivery": "strict", "link": {"bit_error_rate": 0.02}}
    config = make_run(rounds={"count": 0}, generation=strict)
    run_in_process(config)
    assert {task.outcome for task in sent_packets(config)} == {"alone"}
    assert all(link.bit_errors > 0 for link in links_of(sent_packets(config)))


@pytest.mark.slow
def test_noise_matched_devices_resume_earlier_and_report_the_steps(make_run: MakeRun) -> None:
    """More errors cost more steps on the device. Pictures differ from those after clipping, and none is refused."""
    settings = {**LINKED, "num_inference_steps": 12, "num_shared_steps": 5}
    own: list[int] = []
    drawn = []
    for name, link in (
        ("clip", {"bit_error_rate": 0.02}),
        ("few", {"bit_error_rate": 0.02, "repair": "noise-matched"}),
        ("many", {"bit_error_rate": 0.2, "repair": "noise-matched"}),
    ):
        config = make_run(name, rounds={"count": 0}, generation={**settings, "link": link})
        run_in_process(config)
        packets = sent_packets(config)
        assert {task.outcome for task in packets} == {"shared"}
        reports = [task.report for task in packets if task.report is not None]
        assert len(reports) == len(packets)
        own.append(sum(r.shared_stage_steps + r.personal_stage_steps for r in reports))
        assert all(7 <= r.shared_stage_steps + r.personal_stage_steps <= 13 for r in reports)
        drawn.append(images(config))
    assert own[0] <= own[1] < own[2]
    assert drawn[0] != drawn[1] != drawn[2]


def test_noise_matched_resume_is_refused_for_a_model_whose_sampler_cannot(
    make_run: MakeRun, small_model: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other sampler"
    shutil.copytree(small_model, other)
    settings = DPMSolverMultistepScheduler.load_config(other / "scheduler")
    DPMSolverMultistepScheduler.from_config(settings).save_pretrained(other / "scheduler")
    index = json.loads((other / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "DPMSolverMultistepScheduler"]
    (other / "model_index.json").write_text(json.dumps(index))
    config = make_run(
        rounds={"count": 0},
        generation={**LINKED, "link": {"bit_error_rate": 0.02, "repair": "noise-matched"}},
        model={"name": str(other), "height": 32, "width": 32},
    )
    with pytest.raises(UserError, match="DPMSolverMultistepScheduler cannot resume between its steps"):
        run_in_process(config)
    assert images(config) == {}


def test_an_edge_waits_out_fades_and_counts_the_steps(make_run: MakeRun) -> None:
    link = {"snr_db": 12.0, "rayleigh": True, "speed_m_s": 1.0, "send_above_db": 13.0, "wait_steps": 2}
    config = make_run(
        "waits", rounds={"count": 0}, generation={**LINKED, "num_shared_steps": 1, "link": link}
    )
    record = simulate(config)
    groups = [group for group in generation_of(record).groups if group.num_shared_steps]
    boundary = generation_of(record).boundary_step
    assert boundary is not None
    for group in groups:
        leaving = [task.handoff_step for task in group.tasks if task.handoff_step is not None]
        assert len(leaving) == len(group.tasks)
        assert all(1 <= step <= min(3, boundary) for step in leaving)
        # the executor's steps, and each member's own from where its packet left
        assert group.evaluations == group.planned_evaluations
        assert group.evaluations == max(leaving) + sum(4 - step for step in leaving)
    assert any((task.handoff_step or 0) > 1 for group in groups for task in group.tasks)


def test_a_link_that_no_packet_survives_is_told_and_a_prompt_that_was_not_drawn_waits(
    make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At f4520cc, nothing told why all prompts were drawn alone."""
    strict = {**LINKED, "delivery": "strict", "link": {"bit_error_rate": 0.02}}
    config = make_run(rounds={"count": 0}, generation=strict)
    alone, lost = Device.alone, next(iter(waiting(config)))

    def fails(device: Device, task_id: str, *arguments: Any, **options: Any) -> Any:
        if task_id == lost:
            device.prompts.begin_attempt(task_id)
            raise ArithmeticError("by hand")
        return alone(device, task_id, *arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Device, "alone", fails)
        record = simulate(config)
    warnings = refusals(record)
    assert any(line.startswith("4 of 4 packets were refused after the link") for line in warnings)
    assert any('generation.delivery = "strict"' in line for line in warnings)
    assert any("was not drawn: not_finished" in line for line in warnings)
    lines = generation_lines(record, config.home)
    assert sum("alone (its device refused the packet)" in line for line in lines) == 3
    assert sum("not drawn: not_finished (it waits for the next run)" in line for line in lines) == 1
    assert lines[-1].endswith("1 not drawn; 4 steps more than alone")
    assert waiting(config) == {lost}
    simulate(config)
    assert not waiting(config)


def waiting(config: FederationConfig) -> set[str]:
    queues = [PromptQueue(Home.open(config.home(client))) for client in range(config.num_clients)]
    return {task.task_id for queue in queues for task in queue.waiting()}
