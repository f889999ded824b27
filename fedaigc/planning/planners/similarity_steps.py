"""Steps skipped by similarity, as approximate caches do [Nir24, MoDM25].

Tasks come in the order of their arrival. Each takes the nearest earlier task that started from noise, and skips a share
of its N steps that depends on their similarity: it continues that task's own latents. If none is similar enough, it
starts from noise itself.

The papers measure similarity by CLIP embeddings, which are not at hand here. A threshold of text similarity s is
applied to the quantile 1 - s of the sharing distances of all pairs that wait: above .95 are the nearest 5 % of the
pairs. MoDM compares text with images, on another scale; its five classes get the same five quantiles. Skipped steps
are rounded down to the ladder, and members leave when their tolerance says so.

References:
    [Nir24] Agarwal et al., "Approximate caching for efficiently serving text-to-image diffusion models", NSDI 2024.
    [MoDM25] "MoDM: efficient serving for image generation via mixture-of-diffusion models", arXiv:2503.11972.
"""

from dataclasses import dataclass

import numpy as np

from fedaigc.errors import UserError
from fedaigc.planning.plan import ALONE, Labels, Plan, left_in_time, plan_of
from fedaigc.planning.planners.groups import check_pairwise
from fedaigc.planning.setting import Setting
from fedaigc.planning.tasks import Tasks

QUANTILES = (0.35, 0.25, 0.15, 0.10, 0.05)
_SAMPLE = 2000


@dataclass(frozen=True)
class SimilaritySteps:
    """Plans by classes of similarity.

    Attributes:
        shares: Share of the steps that is skipped in each class.
        quantiles: Quantile of the distances of pairs below which each class lies, falling.
    """

    shares: tuple[float, ...]
    quantiles: tuple[float, ...] = QUANTILES

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.quantiles) or list(self.quantiles) != sorted(self.quantiles)[::-1]:
            raise UserError("expected as many shares as quantiles, and falling quantiles")

    def __call__(self, tasks: Tasks, setting: Setting) -> Plan:
        """Return the plan.

        Raises:
            UserError: If there are more tasks than pairs can be compared of.
        """
        from scipy.spatial.distance import cdist, pdist

        check_pairwise("similarity steps", tasks)
        curve = setting.curve
        blocks = np.full((len(curve.ladder), len(tasks)), ALONE)
        if len(tasks) < 2:
            return plan_of(Labels(blocks), tasks, setting)
        rows = np.random.default_rng(0).permutation(len(tasks))[:_SAMPLE]
        limits = np.quantile(pdist(tasks.vectors[np.sort(rows)]), self.quantiles)
        leaders: list[int] = []
        for row in np.lexsort((np.array(tasks.ids), tasks.arrivals)):
            fitting = 0
            if leaders:
                away = cdist(tasks.vectors[row : row + 1], tasks.vectors[leaders])[0]
                nearest = int(away.argmin())
                fitting = int((away[nearest] <= limits).sum())
            if not fitting:
                blocks[:, row] = len(leaders)
                leaders.append(int(row))
                continue
            skipped = self.shares[fitting - 1] * curve.steps
            blocks[np.array(curve.ladder) <= skipped + 1e-9, row] = nearest
        centres = (tasks.vectors[leaders],) * len(curve.ladder)
        labels = left_in_time(Labels(blocks, centres), tasks, curve, setting.tolerance)
        return plan_of(labels, tasks, setting)


NIRVANA = SimilaritySteps((0.1, 0.2, 0.3, 0.4, 0.5))
MODM = SimilaritySteps((0.1, 0.2, 0.3, 0.5, 0.6))
