"""The example in strategies/README.md does what it claims, as a file among the others."""

import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.errors import UserError
from fedaigc.federation.runtime.launcher import simulate
from fedaigc.strategy.registry import load_strategy
from fedaigc.strategy.rule import Received
from fedaigc.strategy.sources import strategy_names
from tests.small_run import MakeRun
from tests.strategies.conftest import MakeWork
from tests.strategies.quadratic import CLIENTS, Federation, effective, largest_difference

README = Path(__file__).parents[2] / "strategies" / "README.md"


@pytest.fixture
def _equal_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example as strategies/equal_say.py, in a folder that is part of the built-in strategies."""
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "equal_say.py").write_text(code, encoding="utf-8")
    package = importlib.import_module("fedaigc.strategy.builtin")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    monkeypatch.delitem(sys.modules, "fedaigc.strategy.builtin.equal_say", raising=False)


@pytest.mark.usefixtures("_equal_say")
def test_it_is_found_by_its_file_and_its_options_are_checked() -> None:
    assert "equal_say" in strategy_names()
    assert load_strategy("equal_say", {"mu": 0.5}).mu == 0.5  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"no option 'nu'.*mu"):
        load_strategy("equal_say", {"nu": 0.5})


@pytest.mark.usefixtures("_equal_say")
def test_every_client_counts_alike() -> None:
    """For clients of equal size, it is FedIT."""
    alike = [replace(client, num_examples=7) for client in CLIENTS]
    plain, example = Federation("fedit", alike), Federation("equal_say")
    example.rule = load_strategy("equal_say", {"mu": 0.0})
    updates = example.updates()
    assert len({update.num_examples for update in updates}) > 1
    same = [replace(update, num_examples=7) for update in updates]
    found = effective(example.fold(updates, example.rule))
    assert largest_difference(found, effective(plain.fold(same))) < 2e-5
    assert largest_difference(found, effective(plain.fold(updates))) > 1e-3


@pytest.mark.usefixtures("_equal_say")
def test_the_pull_is_mu_times_the_way_gone(start: SharedState, make_work: MakeWork) -> None:
    """Plain SGD with two steps: the term is zero in the first, and -eta mu (x_1 - x') in the second."""
    mu, eta = 3.0, 0.05
    received = Received(start, 1)

    def after(steps: int, mu: float) -> Mapping[str, Tensor]:
        return load_strategy("equal_say", {"mu": mu}).client(make_work(steps, rate=eta), received, {}).upload

    first, free, held = after(1, mu), after(2, 0.0), after(2, mu)
    for name, x in start.tensors().items():
        torch.testing.assert_close(
            held[name] - free[name], -eta * mu * (first[name] - x), atol=2e-6, rtol=1e-3
        )
    assert any((first[name] - x).abs().max() > 1e-3 for name, x in start.tensors().items())


@pytest.mark.usefixtures("_equal_say")
def test_it_runs_in_a_federation(make_run: MakeRun) -> None:
    record = simulate(
        make_run(
            rounds={"count": 2, "strategy": "equal_say", "options": {"mu": 0.1}},
            generation={"enabled": False},
        )
    )
    assert record.status == "finished"
    assert len({done.shared_hash for done in record.rounds}) == 2
