"""A noisy mean of the members' conditionings: the Gaussian mechanism, plain and as well as we can do it.

Adjacency: any member's prompt is replaced by any other. The number n of members is public. With clipping norm C the
mean has sensitivity 2 C / n, and the noise of each value has the standard deviation

    m(epsilon, delta) 2 C / n sqrt(n / (n - 1)),

where m is the analytic multiplier of [Bal18], and the root is there because a member knows its own share of the noise.

PLAIN is the noise of a run: each member's deviation from the conditioning of the group's public prompt p is clipped to
C = |p - empty prompt|, and all values get noise.
SHRUNK is the best that we found: only coordinates along a few directions are summed, in which public captions deviate
from the medoid of their node, and each noisy coordinate is multiplied by the share of it that is signal among public
captions [Wie49]. Directions, C and shares follow from public captions, so they cost no privacy; where there is no
signal, what is left is the public prompt.

References:
    [Bal18] Balle and Wang, "Improving the Gaussian mechanism for differential privacy", arXiv:1805.06530.
    [Wie49] Wiener, "Extrapolation, Interpolation, and Smoothing of Stationary Time Series", 1949.
"""

from dataclasses import dataclass

import numpy as np
from dp_accounting import get_sigma_gaussian
from jaxtyping import Float

from fedaigc.rng import numpy_rng
from fedaigc.semantics.denoiser.atlas import Atlas

DELTA = 1e-5
DRAWS = 2000
RANKS = (1, 2, 4, 8, 16, 32, 64)
CLIP_QUANTILE = 0.75

Rows = Float[np.ndarray, "n values"]


def clipped(rows: Rows, norm: float) -> Rows:
    """Return rows, each scaled down to a norm if it is longer."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows * np.minimum(1.0, norm / np.maximum(lengths, 1e-12))


def noise_std(epsilon: float, norm: float, members: int, delta: float = DELTA) -> float:
    """Return the standard deviation of each value's noise in a mean of clipped rows."""
    surplus = np.sqrt(members / (members - 1))
    return float(get_sigma_gaussian(epsilon, delta) * surplus) * 2 * norm / members


def plain_mean(
    rows: Rows,
    public: Float[np.ndarray, " values"],
    empty: Float[np.ndarray, " values"],
    epsilon: float,
    random: np.random.Generator,
) -> Float[np.ndarray, " values"]:
    """Return the mean of clipped rows with noise on every value, as a run adds it."""
    norm, members = float(np.linalg.norm(public - empty)), len(rows)
    noise = random.normal(scale=noise_std(epsilon, norm, members), size=rows.shape[1])
    return public + clipped(rows - public, norm).mean(0) + noise


@dataclass(frozen=True, eq=False)
class Deviations:
    """How public captions deviate from their node's medoid.

    Attributes:
        directions: Principal directions, the strongest first.
        single: Coordinates of single captions' deviations.
        numbers: Rows of `single` for each node.
    """

    directions: Float[np.ndarray, "r values"]
    single: Float[np.ndarray, "captions r"]
    numbers: tuple[np.ndarray, ...]

    @classmethod
    def of(cls, atlas: Atlas, rows: Rows, minimum: int) -> "Deviations":
        """Return the deviations of an atlas's captions, from their conditionings."""
        nodes = [atlas.disclosed(vector, minimum) for vector in atlas.vectors]
        apart = np.stack(
            [
                row - rows[atlas.medoid(node)]
                for row, node in zip(rows, nodes, strict=True)
                if node is not None
            ]
        ).astype(float)
        directions = np.linalg.eigh(apart.T @ apart)[1].T[::-1][: max(RANKS)]
        by_node: dict[int, list[int]] = {}
        for number, node in enumerate(nodes):
            by_node.setdefault(node if node is not None else 0, []).append(number)
        return cls(directions, apart @ directions.T, tuple(np.array(each) for each in by_node.values()))

    def means(self, members: int) -> Float[np.ndarray, "draws r"]:
        """Return means of that many public captions of one node, drawn at random."""
        random = numpy_rng(0, "public means", members)
        nodes = [each for each in self.numbers if len(each) >= members]
        chosen = [nodes[i] for i in random.integers(len(nodes), size=DRAWS)]
        return np.stack([self.single[random.choice(each, members, replace=False)].mean(0) for each in chosen])


@dataclass(frozen=True)
class ShrunkMean:
    """The best mechanism of this kind for a number of members and an epsilon, by the public captions.

    Attributes:
        rank: Number of directions.
        norm: Clipping norm of a member's coordinates.
        std: Standard deviation of the noise of each coordinate of the mean.
        share: For each direction, the share of a noisy coordinate that is kept.
        left: Expected share of the squared deviation that is missed, among public captions; 1: as the public caption.
    """

    rank: int
    norm: float
    std: float
    share: tuple[float, ...]
    left: float

    @classmethod
    def best(cls, deviations: Deviations, members: int, epsilon: float) -> "ShrunkMean":
        """Return the one whose expected error is least."""
        power = (deviations.means(members) ** 2).mean(0)
        found = []
        for rank in RANKS:
            norm = float(np.quantile(np.linalg.norm(deviations.single[:, :rank], axis=1), CLIP_QUANTILE))
            std = noise_std(epsilon, norm, members)
            share = power[:rank] / (power[:rank] + std**2)
            missed = ((1 - share) * power[:rank]).sum() + power[rank:].sum()
            found.append(cls(rank, norm, std, tuple(share.round(4).tolist()), float(missed / power.sum())))
        return min(found, key=lambda each: each.left)

    def __call__(
        self,
        rows: Rows,
        public: Float[np.ndarray, " values"],
        deviations: Deviations,
        random: np.random.Generator,
    ) -> Float[np.ndarray, " values"]:
        """Return the noisy mean of a group with the conditioning of its node's public caption."""
        directions = deviations.directions[: self.rank]
        mean = clipped((rows - public) @ directions.T, self.norm).mean(0)
        noisy = mean + random.normal(scale=self.std, size=self.rank)
        return public + (np.array(self.share) * noisy) @ directions
