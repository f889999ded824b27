"""The command line within this process: the same entry point, without a new interpreter for each call."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedaigc.cli.main import main

RunCommand = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def fedaigc(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[RunCommand]:
    """Run `fedaigc ARGUMENTS` in a working folder, and return its exit status and what it wrote.

    An error that the command line does not turn into a message fails the test.
    """

    def run(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        capfd.readouterr()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["fedaigc", *arguments])
            if cwd is not None:
                patch.chdir(cwd)
            status = 0
            try:
                main()
            except SystemExit as end:
                status = end.code if isinstance(end.code, int) else int(end.code is not None)
        written = capfd.readouterr()
        return subprocess.CompletedProcess(list(arguments), status, written.out, written.err)

    monkeypatch.setenv("COLUMNS", "200")
    # the command line closes its files to other users
    umask = os.umask(0o022)
    yield run
    os.umask(umask)
