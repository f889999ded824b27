"""Sums of products B A, for strategies that merge, stack or truncate factors.

A product is dense, in the shape of its layer's weight, or a pair (A, B) that stands for B A. A is (m, in) and
B is (out, m); for convolutions A is (m, in, height, width) and B is (out, m, 1, 1), flattened before a
multiplication. A sum of pairs is a pair with their rows and columns side by side. It becomes dense once that
needs fewer elements.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.diffusion.adapters.state import Factors, Residual, SharedState


def truncated(shared: SharedState, rank: int) -> SharedState:
    """Return the state with the first `rank` rows of A and columns of B, at the same scale s = alpha / rank.

    Raises:
        ValueError: If `rank` is not from 1 to the state's own rank.
    """
    if not 1 <= rank <= shared.rank:
        raise ValueError(f"rank {rank}: expected 1 to {shared.rank}")
    lora = {layer: (down[:rank], up[:, :rank]) for layer, (down, up) in shared.lora.items()}
    return replace(shared, lora=lora, rank=rank, alpha=shared.adapter.scale * rank)


def padded(factors: Factors, rank: int, rows: Tensor | None = None) -> Factors:
    """Return the factors padded to `rank`; B A does not change.

    B is padded with zeros. A row of A with a zero column of B can still be trained, whereas two zeros never
    change.

    Args:
        factors: A and B.
        rank: Rank to pad to.
        rows: A takes the rows of this tensor from its own rank on; None pads with zeros.

    Raises:
        ValueError: If the factors have a higher rank.
    """
    down, up = factors
    missing = rank - len(down)
    if missing < 0:
        raise ValueError(f"factors of rank {len(down)} do not fit rank {rank}")
    more = down.new_zeros((missing, *down.shape[1:])) if rows is None else rows[len(down) : rank]
    zeros = up.new_zeros((len(up), missing, *up.shape[2:]))
    return torch.cat([down, more]), torch.cat([up, zeros], 1)


def dense(product: Residual) -> Tensor:
    """Return B A in the shape of the layer's weight."""
    if isinstance(product, Tensor):
        return product
    down, up = product
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def scaled(product: Residual, factor: float) -> Residual:
    """Return `factor` times the product; of a pair, only A is multiplied."""
    if isinstance(product, Tensor):
        return factor * product
    down, up = product
    return factor * down, up


def added(first: Residual | None, second: Residual) -> Residual:
    """Return the sum in new memory.

    Pairs are stacked while the result has fewer elements than the dense weight.

    Args:
        first: First product; None counts as 0.
        second: Second product.
    """
    if isinstance(first, Tensor) or isinstance(second, Tensor):
        return dense(second).clone() if first is None else dense(first) + dense(second)
    down, up = second
    if first is None:
        stacked = down.clone(), up.clone()
    else:
        stacked = torch.cat([first[0], down]), torch.cat([first[1], up], 1)
    fewer = stacked[0].numel() + stacked[1].numel() < len(up) * down[0].numel()
    return stacked if fewer else dense(stacked)


def times(product: Residual, matrix: Float[Tensor, "fan_in n"]) -> Float[Tensor, "out n"]:
    """Return the flattened product times a matrix, without computing the product of a pair.

    Args:
        product: The product.
        matrix: Matrix, (fan_in, n).

    Returns:
        Result, (out, n).
    """
    if isinstance(product, Tensor):
        return product.flatten(1) @ matrix
    down, up = product
    return up.flatten(1) @ (down.flatten(1) @ matrix)


class ProductSum:
    """sum_k w_k B_k A_k for each layer, accumulated client by client."""

    def __init__(self) -> None:
        self.total = 0.0
        self._sums: dict[str, Residual] = {}

    def add(self, weight: float, lora: Mapping[str, Factors]) -> None:
        """Add one client's factors, which are copied; the weight multiplies A only."""
        for layer, factors in lora.items():
            self._sums[layer] = added(self._sums.get(layer), scaled(factors, weight))
        self.total += weight

    def mean(self) -> dict[str, Residual]:
        """Return the sums divided by sum_k w_k; empty if nothing was added."""
        return {layer: scaled(product, 1 / self.total) for layer, product in self._sums.items()}


def singular_factors(product: Residual, rank: int) -> Factors:
    """Return factors from the SVD U S V^T of a product, the `rank` largest singular values first.

        A = V^T,   B = U S

    B A is the best approximation of that rank (Eckart and Young 1936), and the first rows of A and columns of
    B are the best approximation of every smaller rank. The result has fewer rows if the product has no more
    directions: a pair's own rank, or fan_in; for a dense product, the smaller side of its matrix.

    A pair of m rows is never made dense: with B = Q_b R_b and A^T = Q_a R_a, the SVD is that of the small R_b
    R_a^T. The SVD is computed in float64.
    """
    if isinstance(product, Tensor):
        left, values, right = torch.linalg.svd(product.flatten(1).double(), full_matrices=False)
        out, rest = len(product), product.shape[1:]
    else:
        down, up = product
        q_b, r_b = torch.linalg.qr(up.flatten(1).double())
        q_a, r_a = torch.linalg.qr(down.flatten(1).double().T)
        # all right vectors: rows of A without a singular value, too, span what A spanned
        left, values, right = torch.linalg.svd(r_b @ r_a.T, full_matrices=True)
        left, right = q_b @ left[:, : len(values)], right @ q_a.T
        out, rest = len(up), down.shape[1:]
    kept = min(rank, len(right))
    columns = left.new_zeros((out, kept))
    filled = min(kept, len(values))
    columns[:, :filled] = left[:, :filled] * values[:filled]
    ones = (1,) * (len(rest) - 1)
    return right[:kept].float().reshape(kept, *rest), columns.float().reshape(out, kept, *ones)
