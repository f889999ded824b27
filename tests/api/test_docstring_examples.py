"""The examples in the docstrings of public names run, and print what they say."""

import doctest
import inspect
from pathlib import Path

import pytest

import fedaigc as fa


def named_examples() -> dict[str, doctest.DocTest]:
    """Return the examples of each public name and of its public methods."""
    finder = doctest.DocTestFinder(recurse=False)
    found = {}
    for name in fa.__all__:
        public = getattr(fa, name)
        parts = {name: public}
        if inspect.isclass(public):
            parts |= {f"{name}.{k}": v for k, v in vars(public).items() if callable(v) and k[0] != "_"}
        for part, value in parts.items():
            for test in finder.find(value, part, module=False, globs={}):
                if test.examples:
                    found[part] = test
    return found


def test_each_public_function_has_one() -> None:
    functions = {name for name in fa.__all__ if inspect.isfunction(inspect.unwrap(getattr(fa, name)))}
    assert len(functions) > 20
    assert functions <= named_examples().keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(named_examples()))
def test_an_example_prints_what_it_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    failed, tried = runner.run(named_examples()[name])
    assert tried
    assert not failed, capsys.readouterr().out
