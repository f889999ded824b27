"""How far the pictures that a state draws are from real ones of the same clients, as distributions.

A gallery is as many pictures for each client that trains, of captions of its own distribution, drawn by the
shared stage under the state and by the personal stage of the base, which no rule touches. Captions and noise
are the same for every row and seed, so that their luck cancels in differences. The real pictures are others
of the same clients. All of it is the evaluator's work, beside the federation; no feature is in a message.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from itertools import chain
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fedaigc.device.training.local_round import put_adapters
from fedaigc.diffusion.adapters.stages import SharedState, finish_stages
from fedaigc.diffusion.sampling.segment import initial_state
from fedaigc.diffusion.schedule.plan import boundary_step, build_plan
from fedaigc.federation.config.run_config import ModelSection
from fedaigc.metrics.distribution import frechet_distance, judge_features, kernel_distance, real_floor
from fedaigc.metrics.judge import Judge
from fedaigc.rng import derived_seed
from fedaigc.study.design.clients import StudyClient
from fedaigc.study.design.runs import EvaluationSpec

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL import Image

_BATCH = 20
_DISTANCES = {"frechet": frechet_distance, "kernel": kernel_distance}


class Galleries:
    """Draws galleries of one study's clients and measures them.

    pipe: whose adapters are replaced. clients: those that train. evaluation: how many pictures (`gallery`),
    in how many steps, under which guidance. seed: of the study's clients, the same for all runs.
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
        )
        self._boundary = boundary_step(self._plan, boundary_log_snr)
        self._judge = Judge.load()
        size, many = evaluation.gallery, len(clients)
        self._counts = {client: size // many + (place < size % many) for place, client in enumerate(clients)}

    def draw(
        self,
        states: Callable[[StudyClient], SharedState | None],
        progress: Callable[[float], None] = lambda share: None,
    ) -> list["Image.Image"]:
        """One gallery: every client's pictures under its state, of the untouched base for None."""
        images: list[Image.Image] = []
        for client, count in self._counts.items():
            put_adapters(self._pipe, states(client), None)
            rows = client.fresh_pictures(count, self._seed, "gallery captions")
            captions = [row["caption"] for row in rows]
            for start in range(0, count, _BATCH):
                batch = captions[start : start + _BATCH]
                noise = derived_seed(self._seed, "gallery noise", client.index, start)
                state = initial_state(self._pipe, self._plan, noise, len(batch))
                images += finish_stages(self._pipe, state, {"prompt": batch}, self._plan, self._boundary)
                progress(len(images) / sum(self._counts.values()))
        return images

    def distances(self, images: Sequence["Image.Image"]) -> dict[str, float]:
        """A gallery against as many real pictures: {"frechet": ..., "kernel": ...}."""
        real, drawn = self._real("gallery"), judge_features(self._judge, images)
        return {name: far(real, drawn, min_images=2) for name, far in _DISTANCES.items()}

    def floor(self) -> dict[str, dict[str, float]]:
        """Real pictures against real ones at the size of a gallery: see `real_floor`."""
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
