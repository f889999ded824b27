"""The state that no rule may draw from."""

import numpy as np


def global_numbers() -> list[int]:
    """The state of NumPy's global generator."""
    state = np.random.get_state(legacy=True)  # noqa: NPY002
    assert isinstance(state, tuple)
    numbers: list[int] = state[1].tolist()
    return numbers
