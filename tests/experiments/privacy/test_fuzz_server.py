"""A server with mutated replies: readers refuse them, rounds and generations finish, records stay valid.

For ten minutes: `python -m experiments.privacy.fuzz --side server`.
"""

import pytest

from experiments.privacy.fuzz import fuzz_server
from experiments.privacy.fuzzing.server import PROMPTS
from tests.small_run import MakeRun

SECONDS = 6.0


@pytest.mark.parametrize("first_seed", [10_000])
def test_a_server_stands_what_a_device_may_reply(make_run: MakeRun, first_seed: int) -> None:
    config = make_run(num_clients=3, prompts=PROMPTS)
    tally = fuzz_server(config, SECONDS, first_seed, say=lambda _: None)
    assert tally.failures == {}
    assert tally.growth_mb() < 100
    assert sum(tally.counts.values()) >= 10
    assert len(tally.counts) >= 5
