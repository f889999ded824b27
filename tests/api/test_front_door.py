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
from fedaigc.strategy.fingerprint import strategy_code

TRAINING = {"local_steps": 2, "personal_steps": 0, "batch_size": 2, "learning_rate": 1e-2}


def in_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_import_loads_nothing_heavy() -> None:
    heavy = in_fresh_process(
        "import sys, fedaigc; print(*{name.split('.')[0] for name in sys.modules} "
        "& {'torch', 'flwr', 'diffusers', 'numpy', 'pandas', 'pydantic'})"
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
    from fedaigc.diffusion.handoff.packet import PacketError
    from fedaigc.federation.wire.read_update import RefusedUpdate

    for kind in (errors.UserError, errors.DamagedFile, PacketError, DeviceError, UnknownTask, RefusedUpdate):
        assert issubclass(kind, fa.Error)


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
    return fa.simulate(
        homes,
        rounds=1,
        model=pipe,
        progress=False,
        training=TRAINING,
        adapter={"rank": 2},
        **settings,
        generation={"enabled": False},
    )


def test_a_rule_of_one_s_own_runs_by_class_and_by_instance(homes: Path, small_model: Path) -> None:
    pipe = fa.load_pipeline(str(small_model))
    plain = run(homes, pipe, strategy="fedit")
    whole = run(homes, pipe, strategy=Halfway(share=1.0))
    half = run(homes, pipe, strategy=Halfway)
    assert whole.record.shared_hash == plain.record.shared_hash != half.record.shared_hash
    # a cell that is run again
    assert run(homes, pipe, strategy=Halfway).record.shared_hash == half.record.shared_hash
    assert half.rounds.to_pandas().shape[0] == 1
    assert half.config.rounds.strategy.endswith(".strategy")
    fa.install(pipe, half.shared)


def test_the_fingerprint_follows_the_source(tmp_path: Path) -> None:
    from fedaigc.api.strategies import named_strategy

    name, options = named_strategy(Halfway(share=0.25), tmp_path)
    assert options == {"share": 0.25}
    code = strategy_code(name)
    assert named_strategy(Halfway, tmp_path)[0] == name

    class Other(Halfway):
        """Another one."""

        def finish(self) -> fa.SharedState:
            """Nothing moves."""
            return self._shared

    assert strategy_code(named_strategy(Other, tmp_path)[0]) != code
    assert named_strategy("fedit", tmp_path) == ("fedit", {})


def test_what_cannot_be_an_option_is_refused(tmp_path: Path) -> None:
    from fedaigc.api.strategies import named_strategy

    with pytest.raises(fa.Error, match=r"Halfway.share is \[1\]: an option is a number"):
        named_strategy(Halfway(share=[1]), tmp_path)  # type: ignore[arg-type]

    class Bare(fa.AveragingRule):
        """No traits."""

    with pytest.raises(fa.Error, match="declares no traits"):
        named_strategy(Bare, tmp_path)


def test_homes_are_kept_or_refused(homes: Path) -> None:
    before = (homes / "00" / "device.json").stat().st_mtime_ns
    assert fa.scenes(homes, clients=2, images=3, exist_ok=True) == homes
    assert (homes / "00" / "device.json").stat().st_mtime_ns == before
    with pytest.raises(fa.Error, match="already exists"):
        fa.scenes(homes, clients=2, images=3)
    with pytest.raises(fa.Error, match=r"2 homes with 6 images, asked for were 3 with 9"):
        fa.scenes(homes, clients=3, images=3, exist_ok=True)
    with pytest.raises(fa.Error, match="seed"):
        fa.scenes(homes, clients=2, images=3, seed=1, exist_ok=True)
    with pytest.raises(fa.Error, match="no homes in"):
        fa.simulate(homes / "nothing")
