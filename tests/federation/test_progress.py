"""Progress of a run: bars on a terminal, plain lines elsewhere, and a line for each round on both."""

import contextlib
import os
import pty
import sys

import pytest

from fedaigc.federation.progress import Progress, RoundEnd, Stage, round_stage
from fedaigc.federation.progress_bars import progress_bars

STEPS = (
    Progress(Stage("hello"), 1, 2),
    Progress(Stage("hello"), 2, 2),
    Progress(round_stage(1, 2), 1, 2),
    Progress(round_stage(1, 2), 2, 2),
    Progress(round_stage(1, 2), 2, 2, RoundEnd(1, {"shared_loss": 0.123456789, "personal_loss": 2.0}, 1.26)),
    Progress(Stage("own steps"), 1, 2),
    Progress(Stage("own steps"), 2, 2),
)
ROUND = "round 1 of 2: 1 of 2 clients, personal loss 2, shared loss 0.123457, 1.3 s"


def test_progress_survives_a_line_of_a_log() -> None:
    for step in STEPS:
        assert Progress.from_line(f"INFO :  {step.to_line()}\n") == step


def test_a_file_gets_a_line_for_each_round_and_each_picture(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with progress_bars() as update:
        for step in STEPS:
            update(step)
    assert capsys.readouterr().out.splitlines() == [
        "hello: 2 of 2",
        ROUND,
        "own steps: 1 of 2",
        "own steps: 2 of 2",
    ]


def test_a_terminal_gets_bars_and_keeps_the_lines_of_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    main, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "120")
        with progress_bars() as update:
            for step in STEPS:
                update(step)
    # a terminal hands on what was written piece by piece, and an error at its end
    parts = []
    with contextlib.suppress(OSError):
        while part := os.read(main, 1 << 16):
            parts.append(part)
    os.close(main)
    shown = b"".join(parts).decode()
    assert "\x1b" in shown
    assert ROUND in shown
    assert "2/2" in shown
    # the finished round has no bar any more
    assert "round 1 of 2  " not in shown[shown.index(ROUND) :]
