"""Model, judge, atlas and calibration of the popular streams, and the drawing of groups."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from experiments.streams.policies import GroupPlan
from fedaigc.diffusion.encoding import encode_text
from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
from fedaigc.diffusion.sampling.first_answer import first_answer
from fedaigc.diffusion.sampling.segment import DenoisingState, decode, initial_state, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.metrics.judge import Judge
from fedaigc.rng import derived_seed
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.atlas_build import build_tree, caption_vectors
from fedaigc.semantics.denoiser.calibration import Calibration
from fedaigc.semantics.denoiser.damage import measure_damage, spread_pairs
from fedaigc.semantics.denoiser.sharing_distance import PUBLIC_SEED, DenoiserSpace, projected

STEPS, GUIDANCE, PAIRS, BATCH = 11, 5.0, 160, 8


@dataclass(frozen=True)
class Drawn:
    """One prompt of a window.

    Attributes:
        K: Its hand-off; 0: alone.
        evaluations: Denoising steps of its own; the first member of a group also counts the shared ones.
        object: Whether the judge found its object.
        place: Whether the judge found its place.
        members: Size of its group.
    """

    K: int
    evaluations: int
    object: int
    place: int
    members: int

    def as_row(self) -> dict[str, int]:
        """Return the values, with `both`."""
        return {**asdict(self), "both": self.object * self.place}


@dataclass(eq=False)
class Studio:
    """What every policy draws with."""

    pipe: Any
    plan: DenoisingPlan
    judge: Judge
    targets: Mapping[str, tuple[str, str]]
    space: DenoiserSpace
    atlas: Atlas
    calibration: Calibration

    @classmethod
    def open(
        cls,
        captions: Sequence[str],
        targets: Mapping[str, tuple[str, str]],
        scratch: Path,
        calibration: Calibration | None = None,
    ) -> "Studio":
        """Load the embedded model; build or read the atlas of all captions, and their calibration if none is given."""
        pipe: Any = load_pipeline()
        plan = build_plan(
            pipe,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            height=64,
            width=64,
            base_hash=base_fingerprint(pipe),
        )
        space = DenoiserSpace.of(plan)
        vectors = caption_vectors(pipe, space, captions, scratch / "vectors")
        atlas = build_tree(space.hash, {"model": "embedded"}, captions, vectors)
        if calibration is None:
            calibration = _calibrated(pipe, plan, space, captions, vectors, scratch)
        calibration.check_fits(space.hash, plan)
        return cls(pipe, plan, Judge.load(), targets, space, atlas, calibration)

    @cached_property
    def finest(self) -> Atlas:
        """The atlas whose leaves are single captions: it discloses the prompt itself."""
        return build_tree(self.space.hash, self.atlas.about, self.atlas.captions, self.atlas.vectors, 1)

    @property
    def calibration_digest(self) -> str:
        """SHA-256 of the calibration's values."""
        return hashlib.sha256(json.dumps(asdict(self.calibration), sort_keys=True).encode()).hexdigest()

    def vectors(self, prompts: Sequence[str]) -> Float[np.ndarray, "n d"]:
        """Return the vectors of captions of the atlas."""
        rows = {caption: row for row, caption in enumerate(self.atlas.captions)}
        return self.atlas.vectors[[rows[prompt] for prompt in prompts]]

    def embeddings(self, prompts: Sequence[str]) -> Float[Tensor, "n tokens d"]:
        """Return the embeddings of prompts by the model's text encoder."""
        return encode_text(self.pipe, list(prompts))["prompt_embeds"]

    def vector_of(self, embedding: Float[Tensor, "tokens d"]) -> Float[np.ndarray, " d"]:
        """Return the vector of a conditioning that need not be a prompt's."""
        plan = self.space.plan
        begun = initial_state(self.pipe, plan, derived_seed(PUBLIC_SEED, "noise", 0) % 2**32)
        answer = first_answer(self.pipe, begun, {"prompt_embeds": embedding[None]}, plan).flatten(1)
        return projected(answer, self.space.dimensions, 0)[0]


def _calibrated(
    pipe: Any,
    plan: DenoisingPlan,
    space: DenoiserSpace,
    captions: Sequence[str],
    vectors: Float[np.ndarray, "n d"],
    scratch: Path,
) -> Calibration:
    """Return the calibration of a folder; measure it if it has none."""
    digest = hashlib.sha256("\n".join(captions).encode()).hexdigest()
    path = scratch / f"calibration-{digest[:8]}-{PAIRS}.json"
    if not path.is_file():
        pairs = spread_pairs(captions, vectors, PAIRS, 0)
        damages = measure_damage(pipe, plan, pairs, range(1, STEPS), 0)
        Calibration(
            space.hash,
            plan.fingerprint(),
            plan.scheduler_class,
            STEPS,
            GUIDANCE,
            digest,
            0,
            tuple(pair.distance for pair in pairs),
            {str(k): tuple(values) for k, values in damages.items()},
        ).write(path)
    return Calibration.read(path)


def draw_groups(
    studio: Studio, window: Sequence[str], groups: Sequence[GroupPlan], seed: tuple[int, int]
) -> list[Drawn]:
    """Draw the prompts of a window that have a hand-off in some group, and let the judge look; in the window's order.

    Members of a group start from one noise, which follows from the seed and the group's first member. Rows are computed
    together; each depends on its own noise and prompts alone, up to the rounding of batches.
    """
    embedded = studio.embeddings(window)
    empty = studio.embeddings([""])[0]
    states: dict[int, Tensor] = {}
    for group in groups:
        first = min(group.members)
        noise = initial_state(studio.pipe, studio.plan, derived_seed(seed[0], "stream", seed[1] + first))
        for member in group.members:
            states[member] = noise.latents
    begun = initial_state(studio.pipe, studio.plan, 0)
    # the shared steps of all groups, side by side, from hand-off to hand-off
    running = {
        place: states[min(group.members)]
        for place, group in enumerate(groups)
        if max(group.handoffs.values())
    }
    conditions = {
        place: group.conditioning if group.conditioning is not None else empty
        for place, group in enumerate(groups)
    }
    last = max((max(group.handoffs.values()) for group in groups), default=0)
    for step in range(last):
        running = {p: latents for p, latents in running.items() if max(groups[p].handoffs.values()) > step}
        places = list(running)
        moved = advanced(
            studio, begun, step, step + 1, [running[p] for p in places], [conditions[p] for p in places]
        )
        running = dict(zip(places, moved, strict=True))
        for place, latents in running.items():
            for member, k in groups[place].handoffs.items():
                if k == step + 1:
                    states[member] = latents
    handoffs = {member: k for group in groups for member, k in group.handoffs.items()}
    finals: dict[int, Tensor] = {}
    for k in sorted(set(handoffs.values())):
        members = [member for member in sorted(handoffs) if handoffs[member] == k]
        done = advanced(
            studio,
            begun,
            k,
            studio.plan.num_steps,
            [states[m] for m in members],
            [embedded[m] for m in members],
        )
        finals |= dict(zip(members, done, strict=True))
    members = sorted(finals)
    verdicts = []
    for start in range(0, len(members), BATCH):
        part = torch.cat([finals[m] for m in members[start : start + BATCH]])
        verdicts += studio.judge.score(decode(studio.pipe, part, studio.plan))
    of = {member: group for group in groups for member in group.members}
    found = []
    for member, verdict in zip(members, verdicts, strict=True):
        group, k = of[member], handoffs[member]
        thing, place_word = studio.targets[window[member]]
        shared = max(group.handoffs.values()) if member == min(group.members) else 0
        found.append(
            Drawn(
                k,
                studio.plan.num_steps - k + shared,
                int(verdict.object == thing),
                int(verdict.place == place_word),
                len(group.members),
            )
        )
    return found


def advanced(
    studio: Studio,
    begun: DenoisingState,
    start: int,
    stop: int,
    latents: Sequence[Tensor],
    embeddings: Sequence[Tensor],
) -> list[Tensor]:
    """Return rows of latents, moved from one step to another on their embeddings."""
    found: list[Tensor] = []
    for row in range(0, len(latents), BATCH):
        part = torch.cat(list(latents[row : row + BATCH]))
        state = replace(begun, latents=part, step=start)
        moved = run_segment(
            studio.pipe,
            state,
            {"prompt_embeds": torch.stack(list(embeddings[row : row + BATCH]))},
            studio.plan,
            stop,
        )
        found += moved.latents.split(1)
    return found
