r"""Nodes under local differential privacy: what a device says of a prompt is drawn, with a stated epsilon.

The nodes are those at which the ways of the atlas end at one depth, k of them, and each prompt belongs to one. k-ary
randomised response [Kair16] says

    P(node) = e^eps / (e^eps + k - 1)    for the prompt's own node,
    P(node) =     1 / (e^eps + k - 1)    for every other one

so no answer is more than e^eps times as likely for one prompt as for any other. With fewer nodes the own one is said
more often, but tells less. The depth is the largest one with k - 1 <= e^eps: there the own node is said at least every
second time. It depends on the atlas, m and epsilon alone.

The exponential mechanism with the distance in the tree was compared (`experiments/sharing/local_privacy.py`). At 4 and
8 it leads to a right group much less often: a wrong node that is near in the tree is hardly better than any other, and
it takes the probability from the right one. At 1 and 2 neither is of much use.

The weights are whole numbers, e^eps 2^32 rounded down against 2^32, and a whole number below their sum is drawn. So the
ratios hold exactly, and not only up to rounding [Miro12].

Not protected: that a prompt waits, and that prompts add up: n different ones cost n epsilon. A node that was drawn is
never lifted towards the root, and no calibration decides whether it is said, since both would depend on the prompt. The
answer to a ladder of hand-offs has no noise; the ledger counts it as such.

References:
    [Kair16] Kairouz, Bonawitz, Ramage, "Discrete distribution estimation under local privacy", ICML 2016.
    [Miro12] Mironov, "On significance of the least significant bits for differential privacy", CCS 2012.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from fractions import Fraction
from functools import cached_property, lru_cache

import numpy as np
from jaxtyping import Float

from fedaigc.bounds import MAX_EPSILON
from fedaigc.errors import UserError
from fedaigc.semantics.denoiser.atlas import Atlas

_OTHER = 1 << 32


@dataclass(frozen=True, eq=False)
class RandomizedNode:
    """k-ary randomised response over nodes of an atlas.

    Attributes:
        atlas: The atlas.
        minimum: m, the number of public captions that must disclose each node.
        epsilon: Epsilon of one draw, above 0 and at most `MAX_EPSILON`.
        nodes: The k nodes that can be said, ascending.
    """

    atlas: Atlas
    minimum: int
    epsilon: float
    nodes: tuple[int, ...]

    @classmethod
    @lru_cache(maxsize=8)
    def of(cls, atlas: Atlas, minimum: int, epsilon: float) -> "RandomizedNode | None":
        """Return the mechanism for an atlas; None if the atlas has too few captions.

        Raises:
            UserError: If epsilon is out of its range, or `minimum` is below 1.
        """
        if not 0 < epsilon <= MAX_EPSILON:
            raise UserError(f"epsilon is {epsilon}: expected a number above 0, up to {MAX_EPSILON:g}")
        found, depth = atlas.ends(minimum, 0), 0
        if not found:
            return None
        while True:
            depth += 1
            deeper = atlas.ends(minimum, depth)
            if deeper == found or len(deeper) - 1 > math.exp(epsilon):
                return cls(atlas, minimum, epsilon, found)
            found = deeper

    @cached_property
    def own_weight(self) -> int:
        """Weight of the own node, where each other one has 2^32."""
        context = Context(prec=60, rounding=ROUND_FLOOR)
        return int(context.multiply(Decimal(self.epsilon).exp(context), Decimal(_OTHER)))

    @property
    def bits(self) -> float:
        """Most bits that an answer tells about a prompt, whatever was known before.

        An answer is at most e^eps times as likely for the prompt as it is on average, and k answers carry at most
        log2 k bits.
        """
        return min(math.log2(len(self.nodes)), self.epsilon / math.log(2))

    def probability(self, own: int, said: int) -> Fraction:
        """Return the exact probability that a prompt of the node `own` says the node `said`.

        Raises:
            ValueError: If one of them is none of `nodes`.
        """
        if own not in self.nodes or said not in self.nodes:
            raise ValueError(f"{own} or {said} is none of the nodes")
        return Fraction(self.own_weight if own == said else _OTHER, self._total)

    @property
    def _total(self) -> int:
        return self.own_weight + (len(self.nodes) - 1) * _OTHER

    def own(self, vector: Float[np.ndarray, " d"]) -> int:
        """Return the node to which a prompt belongs."""
        known = set(self.nodes)
        return next(node for node in self.atlas.way(vector) if node in known)

    def drawn(self, vector: Float[np.ndarray, " d"], below: Callable[[int], int]) -> int:
        """Draw the node to say.

        Args:
            vector: Vector of the prompt.
            below: Draws a whole number from 0 to its argument minus 1; `secrets.randbelow` where it counts.
        """
        own = self.own(vector)
        number = below(self._total) - self.own_weight
        if number < 0:
            return own
        return [node for node in self.nodes if node != own][number // _OTHER]
