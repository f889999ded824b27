"""The norm of an update, and its clipping on the device.

    |u|^2 = sum_i |x_i - r_i|^2 + sum_j |y_j|^2,      x_i <- r_i + c (x_i - r_i),   y_j <- c y_j,
    c = min(1, C / |u|)

over everything that is uploaded. x_i are the tensors that have a counterpart r_i among the received ones, y_j
those that have none. One norm and one factor apply to both. C therefore bounds in L2 all that a round can
reveal of the private images, as in differential privacy, and a strategy cannot evade it by moving numbers
from one kind to the other. The direction of the update does not change.

A tensor's counterpart is the received tensor of its name, from the shared state or among the extra tensors of
the strategy. If the client cut off rows or columns, it is the leading block of that tensor (HetLoRA prunes
the last ranks). Tensors without a counterpart count from zero, since all of them is new: SCAFFOLD's changes
of control variates, the table of Interval Fisher. Factors that are sent anew in each round (FLoRA) have a
counterpart, which is what was received.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from fedaigc.strategy.client_rule import Received


def update_norm(upload: Mapping[str, Tensor], received: Received) -> float:
    """Return |u|, in float64, since the squares of finite float32 values may not be finite."""
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
    """Clip an upload to a norm of at most `bound`, up to rounding.

    An upload within the bound is returned unchanged, bit for bit.

    Args:
        upload: Uploaded tensors by name.
        received: What the client received.
        bound: C, the largest norm.

    Returns:
        The clipped upload, and the norm before clipping.

    Raises:
        ValueError: If the norm is not finite.
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
    """Return what each uploaded tensor counts from, in its shape; no entry for tensors that are all new."""
    held = received.shared.tensors() | dict(received.extra)
    found = {}
    for name, tensor in upload.items():
        reference = held.get(name)
        if reference is None or reference.dim() != tensor.dim():
            continue
        if all(size <= full for size, full in zip(tensor.shape, reference.shape, strict=True)):
            found[name] = reference[tuple(slice(size) for size in tensor.shape)]
    return found
