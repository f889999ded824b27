"""The measure of what a killed device costs the others: processes that are killed where a case says."""

from pathlib import Path

import pytest

from experiments.killed.measure import PACKET, Case, killed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "shared"),
    [
        # before the packet was sent, and before a receipt of one that arrived
        (Case("pair", 0, 0, PACKET), 0),
        (Case("pair", 0, 1, '["received"'), 1),
        (Case("cluster", 1, 2, '["decided"'), 3),
    ],
)
def test_the_others_draw_once_and_as_many_share_as_had_the_packet(
    tmp_path: Path, case: Case, shared: int
) -> None:
    seconds, found = killed(tmp_path, case)
    assert seconds > 0
    assert found == shared


@pytest.mark.slow
def test_a_case_whose_message_is_never_sent_is_no_measurement(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="expected -9"):
        killed(tmp_path, Case("pair", 0, 1, '["offered"'))
