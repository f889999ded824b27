"""`import fedaigc as fa` is all that a researcher imports; a cell can be run twice."""

import ast
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fedaigc as fa
from fedaigc import errors

TRAINING = {"local_steps": 2, "personal_steps": 0, "batch_size": 2, "learning_rate": 1e-2}


def in_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_import_loads_nothing_heavy() -> None:
    heavy = in_fresh_process(
        "import sys, fedaigc; print(*{name.split('.')[0] for name in sys.modules} "
        "& {'torch', 'flwr', 'diffusers', 'transformers', 'numpy', 'pandas', 'pydantic'})"
    )
    assert heavy == ""


def test_every_public_name_is_there_once_and_documented() -> None:
    tree = ast.parse(Path(str(fa.__file__)).read_text(encoding="utf-8"))
    imported = [alias for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    typed = {alias.asname for alias in imported if alias.asname is not None}
    assert set(fa.__all__) - {"__version__"} == typed
    for name in sorted(typed):
        assert getattr(fa, name) is getattr(fa, name)
        assert getattr(fa, name).__doc__, name
        assert name in str(fa.__doc__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        fa.nonsense  # noqa: B018


def test_errors_have_one_base() -> None:
    from fedaigc.device.replies import DeviceError, UnknownTask
    from fedaigc.errors import PacketError
    from fedaigc.federation.wire.read_update import RefusedUpdate

    for kind in (errors.UserError, errors.DamagedFile, PacketError, DeviceError, UnknownTask, RefusedUpdate):
        assert issubclass(kind, fa.Error)


def test_a_run_with_noise_in_its_steps_is_divided_if_it_is_one_s_own(small_model: Path) -> None:
    from diffusers import EulerAncestralDiscreteScheduler

    pipe: Any = fa.load_pipeline(str(small_model))
    pipe.scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    plan = fa.plan(pipe, num_inference_steps=4, guidance_scale=3.0)
    begun = fa.start(pipe, plan, seed=3)
    whole = np.asarray(begun.finish("a car on a road"))
    half = begun.run("a car on a road", until=2)
    own = fa.unpack(pipe, plan, half.pack(noise_stream=True))
    assert np.array_equal(np.asarray(own.finish("a car on a road")), whole)
    # the packet of a group does not say the noise, so each member goes on with noise of its own
    shared = half.pack()
    with pytest.raises(fa.Error, match=r"EulerAncestral.*pack it with noise_stream=True.*noise_seed="):
        fa.unpack(pipe, plan, shared).finish("a car on a road")
    first, same, other = (
        np.asarray(fa.unpack(pipe, plan, shared, noise_seed=seed).finish("a car on a road"))
        for seed in (5, 5, 6)
    )
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)


def test_what_a_cell_shows_is_a_line(small_model: Path) -> None:
    """A notebook shows the last value of a cell: a line, and not a million numbers."""
    pipe: Any = fa.load_pipeline(str(small_model))
    begun = fa.start(pipe, fa.plan(pipe, num_inference_steps=4))
    assert repr(begun).startswith("<Denoising at step 0 of 4, DDIMScheduler, latents (1, 4, ")
    factors = {"to_q": (torch.zeros(2, 300), torch.zeros(300, 2))}
    shared = fa.SharedState("0123456789abcdef", factors, rank=2, alpha=4.0)
    assert repr(shared) == "<SharedState of base 0123456789ab: 1 layer of rank 2, alpha 4>"
    tensors = shared.tensors()
    for shown in (
        shared.adapter,
        fa.Received(shared, 1, tensors),
        fa.LocalResult(tensors, tensors),
        fa.Update(0, 8, 2, tensors),
    ):
        assert len(repr(shown)) < 160
        assert "tensor(" not in repr(shown)


def test_a_run_is_divided_between_two_objects(small_model: Path) -> None:
    pipe: Any = fa.load_pipeline(str(small_model))
    plan = fa.plan(pipe, num_inference_steps=4, guidance_scale=3.0)
    assert (plan.height, plan.width) == (32, 32)
    begun = fa.start(pipe, plan, seed=5)
    packet = begun.run("a fruit on a table", until=2).pack()
    there = fa.unpack(pipe, plan, packet)
    assert (begun.step, there.step) == (0, 2)
    image = there.finish("an apple on a table")
    # the stock call of one prompt, in one piece and in two
    stock = pipe(
        "an apple on a table",
        num_inference_steps=4,
        guidance_scale=3.0,
        height=32,
        width=32,
        generator=torch.Generator().manual_seed(5),
    ).images[0]
    whole = begun.finish("an apple on a table")
    halves = begun.run("an apple on a table", until=2).finish("an apple on a table")
    assert np.array_equal(np.asarray(whole), np.asarray(stock))
    assert np.array_equal(np.asarray(halves), np.asarray(stock))
    assert not np.array_equal(np.asarray(image), np.asarray(stock))
    with pytest.raises(fa.Error, match="damaged body"):
        fa.unpack(pipe, plan, packet[:-1] + bytes([packet[-1] ^ 1]))


@dataclass
class Halfway(fa.AveragingRule):
    """The mean of what was received and of what the clients send."""

    share: float = 0.5
    traits = fa.Traits(averaging=False)

    def finish(self) -> fa.SharedState:
        """Move by `share` of the way."""
        before = self._shared.tensors()
        after = super().finish().tensors()
        return self._shared.with_tensors(
            {name: mixed(before[name], tensor, self.share) for name, tensor in after.items()}
        )


def mixed(before: torch.Tensor, after: torch.Tensor, share: float) -> torch.Tensor:
    return (1 - share) * before + share * after


@pytest.fixture
def homes(tmp_path: Path) -> Path:
    return fa.scenes(tmp_path / "homes", clients=2, images=3)


def run(homes: Path, pipe: Any, **settings: Any) -> fa.Run:
    common = {"rounds": 1, "training": TRAINING, "adapter": {"rank": 2}, "generation": {"enabled": False}}
    if isinstance(pipe, str):
        settings["model"] = {"name": pipe, "height": 32, "width": 32}
        return fa.simulate(homes, progress=False, **{**common, **settings})
    return fa.simulate(homes, model=pipe, progress=False, **{**common, **settings})


def test_a_rule_of_one_s_own_runs_by_class_and_by_instance(homes: Path, small_model: Path) -> None:
    pipe = fa.load_pipeline(str(small_model))
    plain = run(homes, pipe, strategy="fedit")
    whole = run(homes, pipe, strategy=Halfway(share=1.0))
    half = run(homes, pipe, strategy=Halfway)
    assert whole.record.shared_hash == plain.record.shared_hash != half.record.shared_hash
    # a cell that is run again
    assert run(homes, pipe, strategy=Halfway).record.shared_hash == half.record.shared_hash
    assert half.rounds.to_pandas().shape[0] == 1
    assert half.config.rounds.strategy == f"{Path(__file__).absolute()}:Halfway"
    fa.install(pipe, half.shared)
    # its weights are no base model any more
    with pytest.raises(fa.Error, match=r"adapters are installed in this pipeline \(shared\)"):
        run(homes, pipe, strategy="fedit")
    fa.remove(pipe)
    assert run(homes, pipe, strategy="fedit").record.shared_hash == plain.record.shared_hash
    with pytest.raises(fa.Error, match="the shared state of a later run"):
        _ = run_of(half).shared


def run_of(run: fa.Run) -> fa.Run:
    """Return the same run, which has read nothing from its folder yet."""
    return fa.Run(run.config, run.record)


def test_a_run_of_many_rounds_can_be_repeated(homes: Path, small_model: Path) -> None:
    """A home keeps three rounds; a run that begins anew does not find those of the last one."""
    training = {**TRAINING, "local_steps": 1, "personal_steps": 1}
    first, second = (run(homes, str(small_model), rounds=5, training=training) for _ in range(2))
    assert first.record.shared_hash == second.record.shared_hash
    assert len(second.rounds) == 5


def test_a_run_that_goes_on_keeps_its_rounds(homes: Path, small_model: Path) -> None:
    """A second start of the same run is refused before anything of the first is dropped."""
    from fedaigc.federation.output.run_lock import writing_to

    training = {**TRAINING, "personal_steps": 1}
    done = run(homes, str(small_model), rounds=2, training=training)
    kept = sorted(homes.glob("*/adapters/rounds/run.*/*"))
    assert len(kept) == 4
    with writing_to(done.output), pytest.raises(fa.Error, match="another run writes to"):
        run(homes, str(small_model), rounds=2, training=training)
    assert sorted(homes.glob("*/adapters/rounds/run.*/*")) == kept


def test_another_pipeline_is_another_model(homes: Path, small_model: Path) -> None:
    pipes = [fa.load_pipeline(str(small_model)) for _ in range(2)]
    with torch.no_grad():
        next(pipes[1].unet.parameters()).mul_(1.01)  # type: ignore[attr-defined]
    first = run(homes, pipes[0], strategy="fedit")
    with pytest.warns(
        UserWarning, match=r"held a run of other settings \(1 round, .*earlier/001; give each run"
    ):
        second = run(homes, pipes[1], strategy="fedit")
    assert first.record.base != second.record.base
    assert (first.output / "earlier" / "001" / "record.json").is_file()


def test_a_lora_of_another_name_is_not_switched_off(small_model: Path) -> None:
    from peft import LoraConfig

    pipe: Any = fa.load_pipeline(str(small_model))
    plan = fa.plan(pipe, num_inference_steps=2)
    pipe.unet.add_adapter(LoraConfig(r=1, target_modules=["to_q"]), adapter_name="mine")
    with pytest.raises(fa.Error, match="the LoRA mine, which the stages would switch off"):
        fa.start(pipe, plan)
    with pytest.raises(fa.Error, match=r"adapters are installed in this pipeline \(mine\)"):
        fa.plan(pipe, num_inference_steps=2)


def test_homes_are_kept_or_refused(homes: Path) -> None:
    before = (homes / "00" / "device.json").stat().st_mtime_ns
    assert fa.scenes(homes, clients=2, images=3, exist_ok=True) == homes
    assert (homes / "00" / "device.json").stat().st_mtime_ns == before
    with pytest.raises(fa.Error, match="already exists"):
        fa.scenes(homes, clients=2, images=3)
    others: tuple[dict[str, Any], ...] = ({"clients": 3}, {"images": 4}, {"seed": 1}, {"partition": "iid"})
    for other in others:
        with pytest.raises(fa.Error, match="holds homes of other arguments"):
            fa.scenes(homes, **{"clients": 2, "images": 3, "exist_ok": True, **other})
    with pytest.raises(fa.Error, match="no homes in"):
        fa.simulate(homes / "nothing")


def test_steps_outside_of_the_plan_are_refused_before_any_is_run() -> None:
    pipe = fa.load_pipeline()
    run = fa.start(pipe, fa.plan(pipe, num_inference_steps=3), seed=0)
    with pytest.raises(fa.Error, match="from step 0 to 9: expected 0 to 3"):
        run.run("an apple on a table", until=9)
    later = run.run("an apple on a table", until=2)
    with pytest.raises(fa.Error, match="from step 2 to 1: expected 2 to 3"):
        later.run("an apple on a table", until=1)
