"""Sums of products B A, as the strategies that merge, stack or cut factors need them.

A product is dense, in the shape of its layer's weight, or a pair (A, B) that counts as B A: A (m, in) and
B (out, m), for convolutions A (m, in, height, width) and B (out, m, 1, 1), flattened before a product. A sum
of pairs is a pair with their rows and columns side by side; it becomes dense once that is fewer numbers.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from fedaigc.diffusion.adapters.state import Factors, Residual, SharedState


def truncated(shared: SharedState, rank: int) -> SharedState:
    """The state with the first `rank` rows of A and columns of B, at the same scale s = alpha / rank.

    Raises ValueError for a rank that is not from 1 to the state's own.
    """
    if not 1 <= rank <= shared.rank:
        raise ValueError(f"rank {rank}: expected 1 to {shared.rank}")
    lora = {layer: (down[:rank], up[:, :rank]) for layer, (down, up) in shared.lora.items()}
    return replace(shared, lora=lora, rank=rank, alpha=shared.adapter.scale * rank)


def padded(factors: Factors, rank: int, rows: Tensor | None = None) -> Factors:
    """Factors of `rank`: A with the rows of `rows` from its own rank on (None: zeros), B with zeros.

    B A does not change. A row beside a zero column can still be trained, two zeros never move.
    """
    down, up = factors
    missing = rank - len(down)
    if missing < 0:
        raise ValueError(f"factors of rank {len(down)} do not fit rank {rank}")
    more = down.new_zeros((missing, *down.shape[1:])) if rows is None else rows[len(down) : rank]
    zeros = up.new_zeros((len(up), missing, *up.shape[2:]))
    return torch.cat([down, more]), torch.cat([up, zeros], 1)


def dense(product: Residual) -> Tensor:
    """B A in the shape of the layer's weight."""
    if isinstance(product, Tensor):
        return product
    down, up = product
    return (up.flatten(1) @ down.flatten(1)).reshape(len(up), *down.shape[1:])


def scaled(product: Residual, factor: float) -> Residual:
    """`factor` times the product; of a pair, A alone is multiplied."""
    if isinstance(product, Tensor):
        return factor * product
    down, up = product
    return factor * down, up


def added(first: Residual | None, second: Residual) -> Residual:
    """The sum, in new memory: stacked while that is fewer numbers than the dense weight; None counts as 0."""
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
    """The product, flattened, times a matrix, without making the product."""
    if isinstance(product, Tensor):
        return product.flatten(1) @ matrix
    down, up = product
    return up.flatten(1) @ (down.flatten(1) @ matrix)


class ProductSum:
    """sum_k w_k B_k A_k for each layer, folded client by client."""

    def __init__(self) -> None:
        self.total = 0.0
        self._sums: dict[str, Residual] = {}

    def add(self, weight: float, lora: Mapping[str, Factors]) -> None:
        """Fold one client's factors in; they are copied. The weight goes to A alone."""
        for layer, factors in lora.items():
            self._sums[layer] = added(self._sums.get(layer), scaled(factors, weight))
        self.total += weight

    def mean(self) -> dict[str, Residual]:
        """The sums over sum_k w_k; empty when nothing was added."""
        return {layer: scaled(product, 1 / self.total) for layer, product in self._sums.items()}


def singular_factors(product: Residual, rank: int) -> Factors:
    """A = V^T and B = U S of the SVD U S V^T of the product, the `rank` largest singular values first.

    B A is then the best approximation of that rank (Eckart and Young 1936), and the first rows of A and
    columns of B are the best of every smaller rank. Fewer rows where the product has no more directions: a
    pair's own rank, or fan_in; of a dense product, the smaller side of its matrix. A pair of m rows is never
    made dense: with B = Q_b R_b and A^T = Q_a R_a the SVD is that of the small R_b R_a^T. In float64.
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
