"""Prompts drawn together from Python, what a device discloses, and a packet over the simulated link."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import fedaigc as fa
from fedaigc.cli.main import app
from fedaigc.diffusion.model_steps import default_shared_steps

PROMPTS = ["an apple on a table", "a lemon on a table", "a car on a road"]


@pytest.fixture(scope="module")
def tiny(small_model: Path) -> Any:
    return fa.load_pipeline(str(small_model))


def generate(output: Path, model: Any, **settings: Any) -> fa.Generation:
    common = {"num_inference_steps": 4, "num_shared_steps": 2, "scorer": "none", "progress": False}
    return fa.generate(PROMPTS, output=output, model=model, **{**common, **settings})


def test_prompts_are_drawn_in_groups_and_again(tmp_path: Path, tiny: Any) -> None:
    drawn, again = (generate(tmp_path / "out", tiny, seed=3) for _ in range(2))
    assert [image.size for image in drawn.images] == [(32, 32)] * 3
    assert sorted(sorted(task.client for task in group.tasks) for group in drawn.groups) == [[0, 1], [2]]
    assert {group.prompt for group in drawn.groups} == {"a fruit on a table", "a vehicle on a road"}
    assert len(drawn.tasks.to_pandas()) == 3
    assert repr(drawn) == "<Generation of 3 prompts in 2 groups>"
    told = drawn.summary().splitlines()
    assert told[-1].startswith("2 of 3 prompts shared their first steps; ")
    assert "client 0, disclosed “a fruit on a table”, group 1" in told
    for one, other in zip(drawn.images, again.images, strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_the_command_draws_the_same_images(tmp_path: Path, small_model: Path) -> None:
    from typer.testing import CliRunner

    command = ["generate", *PROMPTS, "--output", str(tmp_path / "command"), "--model", str(small_model)]
    sizes = ["--size", "32", "--steps", "4", "--shared-steps", "2", "--negative-prompt", "a river"]
    done = CliRunner().invoke(app, [*command, *sizes])
    assert done.exit_code == 0, done.output
    model = {"name": str(small_model), "height": 32, "width": 32}
    drawn = generate(tmp_path / "api", model, negative_prompt="a river")
    plain = generate(tmp_path / "plain", model)
    for number, image in enumerate(drawn.images):
        with Image.open(tmp_path / "command" / f"{number:02d}.png") as other:
            assert np.array_equal(np.asarray(image), np.asarray(other))
        assert not np.array_equal(np.asarray(image), np.asarray(plain.images[number]))


@pytest.mark.parametrize(("steps", "shared"), [(1, 0), (2, 0), (4, 1)])
def test_few_steps_leave_at_least_one_to_each_prompt(
    tmp_path: Path, tiny: Any, steps: int, shared: int
) -> None:
    assert default_shared_steps(steps) == shared
    drawn = generate(tmp_path / "out", tiny, num_inference_steps=steps, num_shared_steps=None)
    first, second = (np.asarray(image) for image in drawn.images[:2])
    assert not np.array_equal(first, second)
    assert {group.num_shared_steps for group in drawn.groups} <= {0, shared}
    assert all(default_shared_steps(number) < number for number in range(1, 200))


def test_without_an_adapter_all_steps_but_the_last_can_be_shared(tmp_path: Path, tiny: Any) -> None:
    drawn = generate(tmp_path / "out", tiny, num_shared_steps=3)
    first, second = (np.asarray(image) for image in drawn.images[:2])
    assert {group.num_shared_steps for group in drawn.groups} == {0, 3}
    assert not np.array_equal(first, second)


def test_a_link_is_in_the_tasks(tmp_path: Path, tiny: Any) -> None:
    drawn = generate(tmp_path / "out", tiny, link={"snr_db": 8.0}, delivery="tolerant")
    tasks = drawn.tasks.to_pandas()
    assert (tasks["link_snr_db"] == 8.0).sum() == 2


@pytest.mark.parametrize(
    ("prompts", "settings", "told"),
    [
        ("an apple on a table", {}, "expected a list with one prompt per device"),
        ([], {}, "no prompts"),
        ([" "], {}, "empty"),
        (PROMPTS, {"num_shared_steps": 12}, "12 shared steps of 11"),
        (
            PROMPTS,
            {"num_inference_steps": 1, "num_shared_steps": 1},
            "1 shared step of 1: .* share at most 0",
        ),
        (PROMPTS, {"policy": "opne"}, "generation.policy"),
        (PROMPTS, {"guidance": 3.0}, "nearest known one is 'guidance_scale'"),
    ],
)
def test_mistakes_are_refused(tmp_path: Path, prompts: Any, settings: dict[str, Any], told: str) -> None:
    with pytest.raises(fa.Error, match=told):
        fa.generate(prompts, output=tmp_path / "out", progress=False, **settings)


def test_what_is_disclosed() -> None:
    def words(policy: str, minimum: int = 3) -> str | None:
        found = fa.disclose("a shiny apple on a table", policy=policy, min_public_prompts=minimum)
        return None if found is None else found.words

    assert words("kind") == "a fruit on a table"
    assert words("exact", 1) == "an apple on a table"
    assert words("open") == "a shiny apple on a table"
    assert words("silent") is None
    assert fa.disclose("nothing that it knows") is None
    with pytest.raises(
        fa.Error, match='policy \'opne\' is unknown: expected one of "silent", "general", "kind"'
    ):
        words("opne")
    with pytest.raises(fa.Error, match="min_public_prompts must be at least 1, got 0"):
        words("kind", 0)


@pytest.fixture(scope="module")
def sent(tiny: Any) -> tuple[Any, Any, bytes]:
    plan = fa.plan(tiny, num_inference_steps=4)
    half = fa.start(tiny, plan, seed=1).run("a fruit on a table", until=2)
    return tiny, plan, half.pack(number_format="fixed8-gray")


def test_a_packet_crosses_a_link(sent: tuple[Any, Any, bytes]) -> None:
    pipe, plan, packet = sent
    assert fa.transmit(packet)[0] == packet
    clean, report = fa.transmit(packet, snr_db=12.0)
    assert (clean, report.bit_errors) == (packet, 0)
    noisy, report = fa.transmit(packet, seed=1, snr_db=4.0, scheme="uncoded-qpsk")
    assert report.bit_errors > 0
    assert report.send_j > 0
    assert fa.transmit(packet, seed=1, snr_db=4.0, scheme="uncoded-qpsk")[0] == noisy
    assert fa.transmit(packet, seed=2, snr_db=4.0, scheme="uncoded-qpsk")[0] != noisy
    with pytest.raises(fa.Error, match="damaged body"):
        fa.unpack(pipe, plan, noisy)
    assert fa.unpack(pipe, plan, noisy, delivery="tolerant").finish("an apple on a table").size == (32, 32)


def test_implausible_values_are_clipped(tiny: Any) -> None:
    plan = fa.plan(tiny, num_inference_steps=4)
    packet = fa.start(tiny, plan, seed=1).run("a fruit on a table", until=2).pack(number_format="float32")
    noisy, _ = fa.transmit(packet, seed=1, bit_error_rate=0.05)
    largest = {}
    for repair in ("clip", "zero"):
        run = fa.unpack(tiny, plan, noisy, delivery="tolerant", repair=repair)
        largest[repair] = float(run.state.latents.abs().max())
    assert largest["zero"] <= largest["clip"] < 100
    with pytest.raises(fa.Error, match="finite"):
        fa.unpack(tiny, plan, noisy, delivery="tolerant", repair="nothing")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"number_format": "float16"}, r"give it to `Denoising\.pack`"),
        ({"repair": "zero"}, "give it to `unpack`"),
        ({"multicast": True}, "give it to `generate`"),
        ({"distance_m": [1.0, 2.0]}, "one packet has one receiver"),
        ({"snr": 3.0}, "nearest known one is 'snr_db'"),
        ({"rayleigh": True}, "no effect without a radio"),
    ],
)
def test_wrong_settings_of_a_link_are_refused(
    sent: tuple[Any, Any, bytes], settings: dict[str, Any], told: str
) -> None:
    with pytest.raises(fa.Error, match=told):
        fa.transmit(sent[2], **settings)


def test_a_device_is_opened_with_home_and_pipeline(tmp_path: Path, tiny: Any) -> None:
    device = fa.Device(str(tmp_path / "home"), tiny, seed=0)
    signature = device.signature(device.add_prompt("a shiny apple on a table"))
    assert signature is not None
    assert signature.words == "a fruit on a table"
    assert len(device.base_hash) == 64


def test_prompts_of_any_words_share_as_their_devices_decide(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    prompts = ["a doggo near a river", "a horse near a river", "a lemon on a table"]
    drawn = fa.generate(
        prompts, nodes=True, calibration="scenes", scorer="none", output=tmp_path / "api", progress=False
    )
    taken = {task.client: task.handoff_step for task in drawn.tasks}
    assert taken[2] is None
    (shared,) = (group for group in drawn.groups if len(group.tasks) > 1)
    assert {taken[0], taken[1]} == {7}
    assert shared.evaluations == 22 - 7
    assert "client 0, disclosed node" in drawn.summary()
    assert "7 of 33 steps saved" in drawn.summary()

    # the first hand-off that is offered is the asked one
    bold = [
        "--nodes",
        "--calibration",
        "scenes",
        "--shared-steps",
        "8",
        "--output",
        str(tmp_path / "command"),
    ]
    done = CliRunner().invoke(app, ["generate", *prompts[:2], *bold])
    assert done.exit_code == 0, done.output
    assert "2 of 2 prompts shared their first steps; 8 of 22 steps saved" in done.output

    refused = CliRunner().invoke(app, ["generate", prompts[0], "--calibration", "scenes"])
    assert isinstance(refused.exception, fa.Error)
    assert "--nodes" in str(refused.exception)
    with pytest.raises(fa.Error, match="nodes=True"):
        fa.generate(prompts, atlas="any.atlas", output=tmp_path / "refused")
    with pytest.raises(fa.Error, match="hand-offs"):
        fa.generate(prompts, nodes=True, num_shared_steps=11, output=tmp_path / "refused")
