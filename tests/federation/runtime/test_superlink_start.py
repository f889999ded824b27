"""A SuperLink that does not start: whether it ended, or was too slow."""

import subprocess
import sys
from pathlib import Path

import pytest

from fedaigc.errors import UserError
from fedaigc.federation.runtime import superlink


def test_a_start_that_fails_says_whether_it_ended_or_was_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superlink, "_START_TIMEOUT_S", 0.1)
    log = tmp_path / "superlink.log"
    log.write_text("the last words")
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        try:
            with pytest.raises(
                UserError, match=r"did not answer within 0 s; a busy machine is slow.*\nthe last"
            ):
                superlink._wait_until_healthy(process, 1, log)
        finally:
            process.kill()
    with pytest.raises(UserError, match=r"SuperLink did not start: the last words$"):
        superlink._wait_until_healthy(process, 1, log)
