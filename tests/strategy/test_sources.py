"""Strategies of installed packages and of files: found, checked, fingerprinted, run, and refused on devices."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fedaigc.errors import UserError
from fedaigc.federation.config.config_bounds import check_config
from fedaigc.federation.config.run_config import read_config
from fedaigc.federation.runtime.launcher import simulate
from fedaigc.strategy.fingerprint import strategy_code
from fedaigc.strategy.registry import describe, load_strategy
from fedaigc.strategy.sources import strategy_class, strategy_names
from tests.small_run import MakeRun

RULE = '''"""Half the way: the state goes half of the way to the clients' mean."""

from dataclasses import dataclass

from fedaigc.strategy.rule import AveragingRule, SharedState, Traits


@dataclass
class {name}(AveragingRule):
    """share: of the way."""

    share: float = 0.5

    traits = Traits(averaging=False)

    def finish(self) -> SharedState:
        start, mean = self._shared.tensors(), super().finish()
        return mean.with_tensors({{k: x.lerp(v, self.share) for (k, v), x in zip(
            mean.tensors().items(), start.values())}})
'''

Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install packages as pip does: a module, and metadata with an entry point."""

    def made(package: str, entry: str, module: str = "", text: str = RULE.format(name="Strategy")) -> None:
        folder = tmp_path / package
        info = folder / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fedaigc.strategies]\n{entry}\n")
        (folder / f"{module or package}.py").write_text(text)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.delitem(sys.modules, module or package, raising=False)

    return made


def test_a_package_adds_a_strategy_by_its_module_or_its_class(install: Install) -> None:
    install("half_module", "half = half_module")
    install("half_class", "half_way = half_class:Halfway", text=RULE.format(name="Halfway"))
    assert {"half", "half_way", "fedit", "fedadam"} <= set(strategy_names())
    assert load_strategy("half", {"share": 0.25}).share == 0.25  # type: ignore[attr-defined]
    assert describe("half_way").options["share"] == 0.5
    assert strategy_class("half_way").__name__ == "Halfway"
    with pytest.raises(UserError, match=r"no option 'shares'.*did you mean 'share'"):
        load_strategy("half", {"shares": 0.5})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import nothing_of_this_name\n", r"package broken cannot be imported: .*nothing_of_this_name"),
        ("Strategy = 3\n", r"broken\.py has no class `Strategy`, and not exactly one that extends Rule"),
        ("class Strategy:\n    pass\n", "has no class `Strategy`, and not exactly one that extends Rule"),
    ],
)
def test_a_package_that_holds_no_strategy_is_named(install: Install, text: str, expected: str) -> None:
    install("broken", "half = broken", text=text)
    with pytest.raises(UserError, match=expected):
        load_strategy("half")


def test_two_packages_with_one_name_are_both_named(install: Install) -> None:
    install("one", "half = one")
    install("two", "half = two")
    with pytest.raises(UserError, match=r"(?=.*\bone\b)(?=.*\btwo\b).*uninstall one"):
        load_strategy("half")


def test_a_built_in_strategy_cannot_be_replaced_by_a_package(install: Install) -> None:
    install("other", "fedit = other")
    assert type(load_strategy("fedit")).__module__ == "fedaigc.strategy.builtin.fedit"


def test_a_file_is_a_strategy_and_is_read_anew_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(RULE.format(name="Mine"))
    assert load_strategy(str(file)).share == 0.5  # type: ignore[attr-defined]
    before = strategy_code(str(file))
    moved = tmp_path / "elsewhere.py"
    moved.write_text("# a comment more\n" + file.read_text())
    assert strategy_code(str(moved)) == before
    file.write_text(RULE.format(name="Mine").replace("share: float = 0.5", "share: float = 0.75"))
    assert load_strategy(str(file)).share == 0.75  # type: ignore[attr-defined]
    assert strategy_code(str(file)) != before


@pytest.mark.parametrize(
    ("text", "expected"),
    [(None, "No such file"), ("def f(:\n", "cannot be imported: SyntaxError"), ("x = 1\n", "has no class")],
)
def test_a_file_without_a_strategy_is_refused(tmp_path: Path, text: str | None, expected: str) -> None:
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError, match=rf"mine\.py.*{expected}"):
        load_strategy(str(file))


def test_a_run_takes_the_file_beside_its_configuration(
    tmp_path: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(RULE.format(name="Strategy"))
    (tmp_path / "run.toml").write_text('homes = "h"\noutput = "o"\nrounds = { strategy = "mine.py" }\n')
    monkeypatch.chdir("/")
    strategy = read_config(tmp_path / "run.toml").rounds.strategy
    assert strategy == str(tmp_path / "mine.py")
    config = make_run("half", rounds={"count": 1, "strategy": strategy})
    whole = make_run("whole", rounds={"count": 1, "strategy": strategy, "options": {"share": 1.0}})
    plain = make_run("plain", rounds={"count": 1, "strategy": "fedit"})
    hashes = [simulate(each).rounds[0].shared_hash for each in (config, whole, plain)]
    assert hashes[1] == hashes[2] != hashes[0]


def test_a_device_takes_no_file_of_its_server(make_run: MakeRun, tmp_path: Path) -> None:
    config = make_run("run", rounds={"count": 1, "strategy": str(tmp_path / "mine.py")})
    with pytest.raises(UserError, match=r"strategies that are installed on it.*entry point"):
        check_config(config)
