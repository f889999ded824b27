"""Arithmetic whose speed does not depend on its values.

Processors take many times longer for denormal numbers (below 1.2e-38 in float32), so the run time of a
network could reveal its input. Flushed denormals count as zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormals to zero within the context, in this thread and in threads that torch starts from it.

    On processors without this feature, the context has no effect.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
