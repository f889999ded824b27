"""How a device discloses a prompt in the denoiser's space: by a node of a public atlas, and how far it may be lifted.

Protected: `atlas` says by how many public captions a node is disclosed. A device discloses the deepest node of its
prompt's way that its minimum allows. With a calibration it also says the highest node above it whose public caption is
near enough for the shared steps that are planned. The second number is a bit more about the prompt: how its distance to
captions above compares with the tolerance. Without a calibration there is no second number, and a node is never lifted.

With an epsilon the node is drawn instead, see `local_privacy`: no calibration is asked, and the node is never lifted.

Not protected: that a prompt waits, and when. Prior knowledge makes a guess better than 1 in m, and repeated requests by
one person add up; the ledger of the device (`device.home.ledger`) counts them.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import Float

from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.errors import UserError
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.calibration import RISK, Calibration
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace, distance, phi

_MAX_CACHED = 4096


@dataclass(eq=False)
class NodeDisclosure:
    """How devices of a run disclose nodes.

    Attributes:
        space: The space of the atlas and of the calibration.
        atlas: The atlas.
        minimum: m, the number of public captions that must disclose a node.
        shared_steps: K, the fewest shared steps that are planned.
        ladder: Further hand-offs after K, for devices whose tolerance allows them.
        calibration: What sharing costs; None: nodes are never lifted, and no distance is too large.
        tolerance: The largest damage of a picture.
        risk: The largest share of pictures beyond the tolerance.
        epsilon: The epsilon with which nodes are drawn; None: they are said as they are.
    """

    space: DenoiserSpace
    atlas: Atlas
    minimum: int
    shared_steps: int
    calibration: Calibration | None = None
    tolerance: float = 0.0
    risk: float = RISK
    ladder: tuple[int, ...] = ()
    epsilon: float | None = None
    _vectors: dict[str, Float[np.ndarray, " d"]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.atlas.space != self.space.hash:
            raise UserError(
                f"the atlas was built for another space (model {self.atlas.about.get('model', 'unknown')!r}): its "
                "model, size, scheduler, steps, noises and dimensions must be those of the run; build one for it"
            )
        if self.calibration is None and self.ladder:
            raise UserError("a ladder of hand-offs needs a calibration, by which a device takes one of them")
        last = max((self.shared_steps, *self.ladder))
        if self.calibration is not None and last > max(self.calibration.handoffs):
            raise UserError(
                f"{last} shared steps: the calibration has hand-offs {self.calibration.handoffs}; share "
                "fewer, or calibrate for more"
            )

    @cached_property
    def bits(self) -> float:
        """Bits of a node without noise: log2 of the number of different answers that `disclose` can give.

        With a calibration, that nothing is disclosed is one of them.
        """
        calibrated = self.calibration is not None
        return math.log2(max(1, self.atlas.answers(self.minimum, lifted=calibrated) + calibrated))

    @cached_property
    def question(self) -> str:
        """Digest of all that decides an answer beside the prompt; a server chooses a part of it."""
        chosen = (self.atlas.hash, self.minimum, self.shared_steps, self.tolerance, self.risk)
        return hashlib.sha256(f"{chosen} {self.calibration}".encode()).hexdigest()

    def disclose(self, pipe: Pipeline, prompt: str) -> NodeSignature | None:
        """Return what the device discloses of a prompt without noise; None if it must run alone.

        The pipeline has to be the base model, without adapters: the atlas was built with it. The vector of a prompt is
        computed once.
        """
        return self.of_vector(self.vector(pipe, prompt))

    def of_vector(self, vector: Float[np.ndarray, " d"]) -> NodeSignature | None:
        """Return what the device discloses of a prompt with this vector, as `disclose`."""
        deepest = self.atlas.disclosed(vector, self.minimum)
        if deepest is None:
            return None
        way = self.atlas.way(vector)
        way = way[: way.index(deepest) + 1]
        if self.calibration is None:
            return NodeSignature(self.atlas.hash, deepest, deepest)
        fitting = [self.handoff(self.to_caption(vector, node), (self.shared_steps,)) for node in way]
        if not any(fitting):
            return None
        last = max(i for i, fits in enumerate(fitting) if fits)
        first = last
        while first and fitting[first - 1]:
            first -= 1
        return NodeSignature(self.atlas.hash, way[last], way[first])

    def handoff(self, apart: float, ladder: Sequence[int]) -> int:
        """Return the last hand-off of a ladder that the tolerance allows; 0 if the device should run alone.

        Without a calibration no distance is too large for the first one, and any further one may be.

        Args:
            apart: Sharing distance of the prompt to what the shared steps run on.
            ladder: The offered hand-offs, ascending.
        """
        if self.calibration is None:
            return min(ladder)
        return self.calibration.last_handoff(apart, self.tolerance, ladder, risk=self.risk)

    def handoff_along(self, apart: Sequence[float], ladder: Sequence[int]) -> int:
        """Return the last hand-off of a ladder that the tolerance allows, where the shared steps change their prompt.

        Args:
            apart: For each hand-off, the distance of the prompt to what the steps that end there run on.
            ladder: The offered hand-offs, ascending.
        """
        if self.calibration is None:
            return min(ladder)
        return self.calibration.last_handoff_along(apart, self.tolerance, ladder, risk=self.risk)

    def vector(self, pipe: Pipeline, prompt: str) -> Float[np.ndarray, " d"]:
        """Return the vector of a prompt; the last ones are kept."""
        vector = self._vectors.get(prompt)
        if vector is None:
            (vector,) = phi(pipe, self.space, [prompt])
            while len(self._vectors) >= _MAX_CACHED:
                del self._vectors[next(iter(self._vectors))]
            self._vectors[prompt] = vector
        return vector

    def to_caption(self, vector: Float[np.ndarray, " d"], node: int) -> float:
        """Return the sharing distance of a vector to the public caption of a node."""
        return distance(vector, self.atlas.vectors[self.atlas.medoid(node)])
