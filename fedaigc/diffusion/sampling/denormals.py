"""Arithmetic whose speed does not depend on its values.

Processors take many times as long for denormal numbers (below 1.2e-38 in float32), so that how long a network
runs could tell what it was shown. Flushed, they count as zero.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def flushed_denormals() -> Iterator[None]:
    """Denormals are zeros to this thread, and to threads that torch starts from it, within the context.

    Nothing happens on processors that cannot.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)
