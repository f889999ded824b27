"""The norm of an update, and the bound that a device keeps it to.

    |u|^2 = sum_i |x_i - r_i|^2 + sum_j |y_j|^2,      x_i <- r_i + c (x_i - r_i),   y_j <- c y_j,
    c = min(1, C / |u|)

over all that is uploaded: x_i are the tensors that have a counterpart r_i among what was received, y_j those
that have none. One norm and one factor for both, so that C bounds in L2 whatever a round can tell of the
private pictures, as in differential privacy, and a strategy cannot move numbers from one kind to the other to
get round it. The direction of the update stays what it was.

A tensor's counterpart is the received one of its name: the shared state's, or what the strategy sent beside
it. It is the leading block of it where the client cut rows or columns off (HetLoRA prunes the last ranks).
What has no counterpart counts from zero, for all of it is new: SCAFFOLD's changes of control variates, the
table of Interval Fisher. Factors that are sent anew in each round (FLoRA) do have one, those that were
received.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedaigc.strategy.client_rule import Received


def update_norm(upload: Mapping[str, Tensor], received: Received) -> float:
    """|u|, in float64: also where the squares of finite float32 values are none."""
    references = _references(upload, received)
    squares = [
        (tensor.double() - references[name].double() if name in references else tensor.double())
        .square()
        .sum()
        for name, tensor in upload.items()
    ]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0


def clipped(
    upload: Mapping[str, Tensor], received: Received, bound: float
) -> tuple[dict[str, Tensor], float]:
    """The upload with a norm of at most `bound`, up to rounding, and the norm that it had.

    The same tensors, bit for bit, where the norm is within the bound. Raises ValueError for a norm that is
    not finite.
    """
    norm = update_norm(upload, received)
    if norm <= bound:
        return dict(upload), norm
    if not norm < float("inf"):
        raise ValueError(f"an update of norm {norm} cannot be clipped")
    references, scale = _references(upload, received), bound / norm
    found = {}
    for name, tensor in upload.items():
        reference = references.get(name)
        if reference is None:
            found[name] = (tensor.double() * scale).to(tensor)
        else:
            start = reference.double()
            found[name] = (start + (tensor.double() - start) * scale).to(tensor)
    return found, norm


def _references(upload: Mapping[str, Tensor], received: Received) -> dict[str, Tensor]:
    """What each uploaded tensor counts from, in its shape; no entry where all of it is new."""
    held = received.shared.tensors() | dict(received.extra)
    found = {}
    for name, tensor in upload.items():
        reference = held.get(name)
        if reference is None or reference.dim() != tensor.dim():
            continue
        if all(size <= full for size, full in zip(tensor.shape, reference.shape, strict=True)):
            found[name] = reference[tuple(slice(size) for size in tensor.shape)]
    return found
