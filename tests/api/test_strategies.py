"""Strategies by name, file, class and instance; those of a notebook, and what their fingerprints follow."""

import itertools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import fedaigc as fa
from fedaigc.api.strategies import named_strategy
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.registry import describe, load_strategy

CELL = """
import functools
from dataclasses import dataclass, field

import torch

import fedaigc as fa
from fedaigc.strategy.builtin.fedit import Strategy as FedIT

FACTOR = 0.5
TABLE = {"a": [1, 2]}
unrelated = 1
history = []


def helper(x, scale=2.0):
    return x * scale * FACTOR


def maker(mu):
    class Closed(fa.AveragingRule):
        traits = fa.Traits()

        def sent(self, state, round):
            return {name: x * mu for name, x in super().sent(state, round).items()}

    return Closed


@dataclass
class Mine(FedIT):
    \"\"\"A rule.\"\"\"

    share: float = 0.5
    seen: list = field(default_factory=list, init=False)

    def sent(self, state, round):
        return {name: helper(x) + len(TABLE) for name, x in super().sent(state, round).items()}
"""
count = itertools.count()


def cell(folder: Path, text: str, name: str = "Mine") -> Any:
    """Run a notebook's cell, whose module nothing can import, and return a class of it."""
    file = folder / f"cell{next(count)}.ipynb"
    file.write_text(text)
    names: dict[str, Any] = {"__name__": "notebook"}
    exec(compile(text, str(file), "exec"), names)
    return names[name]


def code_of(folder: Path, text: str = CELL) -> str:
    return strategy_code(named_strategy(cell(folder, text), folder)[0])


def test_a_class_of_a_notebook_is_carried(tmp_path: Path) -> None:
    name, options = named_strategy(cell(tmp_path, CELL)(share=0.25), tmp_path / "carried")
    assert name.endswith(".strategy")
    assert options == {"share": 0.25}
    rule = load_strategy(name, options)
    assert (rule.share, type(rule).__name__) == (0.25, "Mine")  # type: ignore[attr-defined]
    assert describe(name).about == "A rule."
    # the same class has the same file
    assert named_strategy(cell(tmp_path, CELL), tmp_path / "carried")[0] == name


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("FACTOR = 0.5", "FACTOR = 0.25"),
        ("scale=2.0", "scale=3.0"),
        ("x * scale", "x + scale"),
        ("+ len(TABLE)", "- len(TABLE)"),
        ('"a": [1, 2]', '"a": [1, 3]'),
        ("share: float = 0.5", "share: float = 0.75"),
        ("default_factory=list", "default_factory=dict"),
        ("class Mine(FedIT)", "class Mine(fa.AveragingRule)"),
    ],
)
def test_what_changes_the_rule_changes_the_fingerprint(tmp_path: Path, before: str, after: str) -> None:
    changed = CELL.replace(before, after)
    if "AveragingRule)" in after:
        changed = changed.replace("    share: float", "    traits = fa.Traits()\n    share: float")
    assert changed != CELL
    assert code_of(tmp_path, changed) != code_of(tmp_path)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("unrelated = 1", "unrelated = 2\nseed = 3\nrank = 4"),
        ("A rule.", "The same rule."),
        ("def helper(x, scale=2.0):", "def helper(x, scale=2.0):\n    # a comment"),
        ("history = []", "history = [object()]"),
    ],
)
def test_what_does_not_change_the_rule_leaves_the_fingerprint(
    tmp_path: Path, before: str, after: str
) -> None:
    assert code_of(tmp_path, CELL.replace(before, after)) == code_of(tmp_path)


def test_closures_count(tmp_path: Path) -> None:
    codes = {
        strategy_code(named_strategy(cell(tmp_path, f"{CELL}\nMine = maker({mu})"), tmp_path)[0])
        for mu in (1, 2, 2)
    }
    assert len(codes) == 2


def test_what_no_fingerprint_covers_is_refused(tmp_path: Path) -> None:
    text = CELL.replace("FACTOR = 0.5", "FACTOR = torch.ones(1)")
    with pytest.raises(fa.Error, match=r"global FACTOR is a Tensor, whose content no fingerprint covers"):
        named_strategy(cell(tmp_path, text), tmp_path)
    names: dict[str, Any] = {"__name__": "notebook"}
    exec(CELL, names)
    with pytest.raises(fa.Error, match=r"the source of .* is not available"):
        named_strategy(names["Mine"], tmp_path)


@dataclass
class Halved(fa.AveragingRule):
    """Half of what was trained is sent."""

    share: Any = 0.5
    traits = fa.Traits(averaging=False)


class Plain(fa.AveragingRule):
    """Without a decorator."""

    traits = fa.Traits()


def test_names_files_and_classes_of_modules(tmp_path: Path) -> None:
    assert named_strategy("fedit", tmp_path) == ("fedit", {})
    own = type(load_strategy("scaffold"))
    assert named_strategy(own(server_learning_rate=0.5), tmp_path) == (  # type: ignore[call-arg]
        "scaffold",
        {"server_learning_rate": 0.5},
    )
    name = f"{Path(__file__).absolute()}:Halved"
    assert named_strategy(Halved(share=1.0), tmp_path) == (name, {"share": 1.0})
    assert load_strategy(name).share == 0.5  # type: ignore[attr-defined]
    assert named_strategy(Plain(), tmp_path)[1] == {}
    rule = Plain()
    rule.weighting = "uniform"
    assert named_strategy(rule, tmp_path)[1] == {"weighting": "uniform"}
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_strategy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(fa.Error, match=r"Halved.share is \[1\]: an option is a number"):
        named_strategy(Halved(share=[1]), tmp_path)

    class Bare(fa.AveragingRule):
        """No traits."""

    with pytest.raises(fa.Error, match="declares no traits"):
        named_strategy(Bare, tmp_path)
    with pytest.raises(fa.Error, match="unknown"):
        named_strategy("fedti", tmp_path)
    with pytest.raises(fa.Error, match=r"has no class"):
        load_strategy(f"{Path(__file__).absolute()}:Nothing")
    (tmp_path / "broken.strategy").write_bytes(b"nonsense")
    with pytest.raises(fa.Error, match=r"broken\.strategy' cannot be read"):
        load_strategy(str(tmp_path / "broken.strategy"))


SCRIPT = """
import sys

import fedaigc as fa


class Mine(fa.AveragingRule):
    traits = fa.Traits(averaging=False)

    def finish(self):
        before, after = self._shared.tensors(), super().finish().tensors()
        return self._shared.with_tensors({name: (before[name] + x) / 2 for name, x in after.items()})


if __name__ == "__main__":
    homes, model = sys.argv[1:]
    settings = dict(
        rounds=1,
        model={"name": model, "height": 32, "width": 32},
        adapter={"rank": 2},
        training={"local_steps": 1, "personal_steps": 0, "batch_size": 2},
        generation={"enabled": False},
        progress=False,
    )
    for strategy, workers in ((Mine, None), (Mine, 1), ("fedit", None)):
        settings["output"] = f"{homes}-{strategy}-{workers}".replace("<", "").replace(">", "")
        print(fa.simulate(homes, strategy=strategy, workers=workers, **settings).record.shared_hash)
"""


@pytest.mark.slow
def test_a_rule_of_a_script_travels_to_worker_processes(tmp_path: Path, small_model: Path) -> None:
    homes = fa.scenes(tmp_path / "homes", clients=2, images=2)
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py"), str(homes), str(small_model)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    here, on_ray, other = done.stdout.split()
    assert here == on_ray != other


REFERRING_SCRIPT = '''
import sys
from dataclasses import dataclass
from pathlib import Path

import fedaigc as fa
from fedaigc.api.strategies import named_strategy


@dataclass
class Own(fa.AveragingRule):
    """A rule whose client half refers to the module."""

    traits = fa.Traits()

    def client(self, work, received, memory):
        return fa.LocalResult({"a": memory["a"] + 1})


print(named_strategy(Own, Path(sys.argv[1]))[0])
'''


def test_a_class_of_a_script_that_refers_to_modules_is_carried(tmp_path: Path) -> None:
    """Modules go by name, also those outside of site-packages, as in an editable install."""
    script = tmp_path / "script.py"
    script.write_text(REFERRING_SCRIPT, encoding="utf-8")
    command = [sys.executable, str(script), str(tmp_path)]
    name = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    nothing: Any = None
    result = load_strategy(name).client(nothing, nothing, {"a": torch.ones(1)})
    assert result.upload["a"].item() == 2
    assert Path(name).stat().st_size < 20_000
