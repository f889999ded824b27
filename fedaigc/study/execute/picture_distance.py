"""How far the images that a state draws are from real ones of the same clients, as distributions.

A gallery has an equal number of images for each client that trains, from captions of the client's own
distribution. They are drawn by the shared stage under the state and by the personal stage of the base model,
which no rule changes. Captions and noise are the same for every row and seed, so that their random variation
cancels in differences. The real images are others of the same clients. The evaluator does all of this outside
of the federation, and no message contains a feature.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.adapters.stages import SharedState, finish_stages
from fedaigc.diffusion.sampling.segment import initial_state
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.federation.config.run_config import ModelSection
from fedaigc.metrics.distribution import frechet_distance, judge_features, kernel_distance, real_floor
from fedaigc.metrics.judge import Judge
from fedaigc.rng import derived_seed
from fedaigc.study.design.clients import StudyClient, gallery_counts
from fedaigc.study.design.runs import EvaluationSpec

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

_BATCH = 20
_DISTANCES = {"frechet": frechet_distance, "kernel": kernel_distance}


class Galleries:
    """Draws galleries of one study's clients and measures them.

    Args:
        pipe: The pipeline. Its adapters are replaced.
        base_hash: Fingerprint of the base model.
        model: The model section, for the size of an image.
        clients: The clients that train.
        evaluation: The number of images (`gallery`), their denoising steps and their guidance scale.
        boundary_log_snr: The boundary t* as a log SNR; None for none.
        seed: Seed of the study's clients, the same for all runs.
    """

    def __init__(
        self,
        pipe: "DiffusionPipeline",
        base_hash: str,
        model: ModelSection,
        clients: Sequence[StudyClient],
        evaluation: EvaluationSpec,
        *,
        boundary_log_snr: float | None,
        seed: int,
    ) -> None:
        self._pipe, self._seed = pipe, seed
        self._plan = build_plan(
            pipe,
            num_inference_steps=evaluation.gallery_steps,
            guidance_scale=evaluation.gallery_guidance,
            height=model.height,
            width=model.width,
            base_hash=base_hash,
            boundary_log_snr=boundary_log_snr,
        )
        self._counts = gallery_counts(clients, evaluation.gallery)

    @cached_property
    def _judge(self) -> Judge:
        return Judge.load()

    def captions(self) -> list[str]:
        """Return the caption of each picture of a gallery."""
        return [caption for client in self._counts for caption in self._captions_of(client)]

    def _captions_of(self, client: StudyClient) -> list[str]:
        rows = client.fresh_pictures(self._counts[client], self._seed, "gallery captions")
        return [row["caption"] for row in rows]

    def draw(
        self,
        states: Callable[[StudyClient], SharedState | None],
        progress: Callable[[float], None] = lambda share: None,
    ) -> list["Image.Image"]:
        """Draw one gallery.

        Args:
            states: The state of each client; None stands for the untouched base model.
            progress: Called with the share of the images that is done.
        """
        images: list[Image.Image] = []
        for client, count in self._counts.items():
            put_adapters(self._pipe, states(client), None)
            captions = self._captions_of(client)
            for start in range(0, count, _BATCH):
                batch = captions[start : start + _BATCH]
                noise = derived_seed(self._seed, "gallery noise", client.index, start)
                state = initial_state(self._pipe, self._plan, noise, len(batch))
                images += finish_stages(self._pipe, state, {"prompt": batch}, self._plan)
                progress(len(images) / sum(self._counts.values()))
        return images

    def distances(self, images: Sequence["Image.Image"]) -> dict[str, float]:
        """Return the distances of a gallery to as many real images: {"frechet": ..., "kernel": ...}."""
        real, drawn = self._real("gallery"), judge_features(self._judge, images)
        return {name: far(real, drawn, min_images=2) for name, far in _DISTANCES.items()}

    def floor(self) -> dict[str, dict[str, float]]:
        """Return the distances between real images at the size of a gallery: see `real_floor`."""
        both = torch.cat([self._real("gallery"), self._real("gallery floor")])
        return {
            name: asdict(real_floor(both, far, seed=self._seed, min_images=2))
            for name, far in _DISTANCES.items()
        }

    def _real(self, stream: str) -> Tensor:
        rows = chain.from_iterable(
            client.fresh_pictures(count, self._seed, stream) for client, count in self._counts.items()
        )
        return judge_features(self._judge, [row["image"] for row in rows])
