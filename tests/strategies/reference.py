"""A second, slow and obvious implementation of the LoRA-aware rules, number by number in float64.

A layer is a matrix or a convolution's kernel. Its factors are nested loops over (output, rank, further axes). Nothing
is stacked, folded, padded by views or shared with the tested code. A client is (n, {layer: (A, B)}), the state is
(R, {layer: (A, B)}) with a dense R, and s is the scale.
"""

import numpy as np

Array = np.ndarray
Lora = dict[str, tuple[Array, Array]]
Clients = list[tuple[int, Lora]]


def product(A: Array, B: Array) -> Array:
    """sum_r B[o, r] A[r, i] of a matrix, sum_r B[o, r, 0, 0] A[r, i, y, x] of a kernel."""
    out, rank = B.shape[:2]
    found = np.zeros((out, *A.shape[1:]))
    for o in range(out):
        for position in np.ndindex(*A.shape[1:]):
            for r in range(rank):
                b = B[o, r] if B.ndim == 2 else B[o, r, 0, 0]
                found[(o, *position)] += b * A[(r, *position)]
    return found


def share(clients: Clients, k: int) -> float:
    """p_k = n_k / sum n."""
    total = 0
    for n, _ in clients:
        total += n
    return clients[k][0] / total


def mean_of(clients: Clients, layer: str, factor: int) -> Array:
    """sum_k p_k x_k, x the factor 0 (A) or 1 (B)."""
    found = np.zeros_like(clients[0][1][layer][factor])
    for k, (_, lora) in enumerate(clients):
        for position in np.ndindex(*found.shape):
            found[position] += share(clients, k) * lora[layer][factor][position]
    return found


def mean_product(clients: Clients, layer: str) -> Array:
    """sum_k p_k B_k A_k."""
    A, B = clients[0][1][layer]
    found = np.zeros((B.shape[0], *A.shape[1:]))
    for k, (_, lora) in enumerate(clients):
        found += share(clients, k) * product(*lora[layer])
    return found


def fedit(clients: Clients, layer: str) -> tuple[Array, Array]:
    """mean(A), mean(B)."""
    return mean_of(clients, layer, 0), mean_of(clients, layer, 1)


def only_b(before: tuple[Array, Array], clients: Clients, layer: str) -> tuple[Array, Array]:
    """FFA-LoRA, RoLoRA's odd rounds: A as it was, mean(B)."""
    return before[0], mean_of(clients, layer, 1)


def only_a(before: tuple[Array, Array], clients: Clients, layer: str) -> tuple[Array, Array]:
    """RoLoRA's even rounds, FedSA-LoRA: mean(A), B as it was."""
    return mean_of(clients, layer, 0), before[1]


def flora(R: Array, s: float, clients: Clients, layer: str) -> Array:
    """The merged weight: R + sum_k p_k s B_k A_k."""
    return R + s * mean_product(clients, layer)


def fedex_lora(R: Array, s: float, clients: Clients, layer: str) -> Array:
    """The new R: the difference between the mean product and the product of the means."""
    return R + s * (mean_product(clients, layer) - product(*fedit(clients, layer)))


def best_of_rank(W: Array, rank: int) -> Array:
    """The nearest product of this rank, by NumPy's SVD of the whole matrix, one direction after the other."""
    matrix = W.reshape(len(W), -1)
    U, S, V = np.linalg.svd(matrix, full_matrices=False)
    found = np.zeros_like(matrix)
    for direction in range(min(rank, len(S))):
        for o in range(matrix.shape[0]):
            for i in range(matrix.shape[1]):
                found[o, i] += U[o, direction] * S[direction] * V[direction, i]
    return found.reshape(W.shape)


def flexlora(clients: Clients, layer: str, rank: int) -> Array:
    """B A of a client of this rank."""
    return best_of_rank(mean_product(clients, layer), rank)


def hetlora(clients: Clients, layer: str, rank: int) -> tuple[Array, Array]:
    """Factors of the state's rank, with zeros in missing rows and columns and Frobenius norms as weights."""
    A0, B0 = clients[0][1][layer]
    A, B = np.zeros((rank, *A0.shape[1:])), np.zeros((B0.shape[0], rank, *B0.shape[2:]))
    norms = []
    for _, lora in clients:
        squares = 0.0
        for value in product(*lora[layer]).flatten():
            squares += value**2
        norms.append(squares**0.5)
    for (_, lora), norm in zip(clients, norms, strict=True):
        weight = norm / sum(norms) if sum(norms) else 1 / len(norms)
        A_k, B_k = lora[layer]
        for r in range(A_k.shape[0]):
            A[r] += weight * A_k[r]
            B[:, r] += weight * B_k[:, r]
    return A, B


def lora_fair(clients: Clients, layer: str, regularisation: float) -> tuple[Array, Array]:
    """mean(A), and for each output the least squares of [A^T; sqrt(lambda) I] b = [what is missed; 0]."""
    A, B = fedit(clients, layer)
    missed = (mean_product(clients, layer) - product(A, B)).reshape(len(B), -1)
    rows = A.reshape(len(A), -1)
    system = np.vstack([rows.T, np.sqrt(regularisation) * np.eye(len(rows))])
    corrected = B.copy()
    for o in range(len(B)):
        wanted = np.concatenate([missed[o], np.zeros(len(rows))])
        correction = np.linalg.lstsq(system, wanted, rcond=None)[0]
        for r in range(len(rows)):
            corrected[(o, r, *(0,) * (B.ndim - 2))] += correction[r]
    return A, corrected
