"""A device with mutated messages and bytes: no exceptions, no losses, no slow replies, constant memory.

For ten minutes: `python -m experiments.privacy.fuzz --side device`.
"""

import pytest

from experiments.privacy.fuzz import fuzz_device
from tests.small_run import MakeRun

SECONDS = 6.0


@pytest.mark.parametrize("first_seed", [10_000])
def test_a_device_stands_what_a_server_may_send(make_run: MakeRun, first_seed: int) -> None:
    config = make_run(num_clients=1)
    tally = fuzz_device(config, SECONDS, first_seed, say=lambda _: None)
    assert tally.failures == {}
    assert tally.growth_mb() < 100
    # of a busy machine little can be asked
    assert sum(tally.counts.values()) >= 10
    assert len(tally.counts) >= 5
