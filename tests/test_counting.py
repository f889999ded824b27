"""Numbers agree with their nouns and verbs."""

import pytest

from fedaigc.counting import counted, were


@pytest.mark.parametrize(
    ("number", "told"),
    [(0, "0 rounds were"), (1, "1 round was"), (2, "2 rounds were"), (1000, "1000 rounds were")],
)
def test_a_noun_and_a_verb_follow_the_number(number: int, told: str) -> None:
    assert f"{counted(number, 'round')} {were(number)}" == told
