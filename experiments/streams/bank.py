"""Every hand-off of every member of a group, drawn once: any choice of hand-offs can then be judged without drawing."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.streams.drawing import BATCH, Studio, advanced
from experiments.streams.policies import Formed
from fedaigc.diffusion.sampling.segment import decode, initial_state
from fedaigc.rng import derived_seed
from fedaigc.semantics.denoiser.sharing_distance import distance


@dataclass(frozen=True)
class Member:
    """A member of a group, with its picture at every hand-off.

    Attributes:
        object: The object of its prompt.
        copies: Number of devices with this prompt that count as one member.
        group: Number of its group in the stream.
        members: Size of the group.
        apart: Sharing distance of its prompt to what the shared steps run on.
        alone: Whether the judge finds object and place in the picture drawn alone from the group's noise.
        both: The same after each hand-off of the ladder.
        damage: Change of the final latents after each of them, as a share of the norm of those drawn alone.
    """

    object: str
    copies: int
    group: int
    members: int
    apart: float
    alone: int
    both: tuple[int, ...]
    damage: tuple[float, ...]


def bank(
    studio: Studio,
    window: Sequence[str],
    copies: Sequence[int],
    groups: Sequence[Formed],
    ladder: Sequence[int],
    seed: tuple[int, int],
) -> list[Member]:
    """Draw the members of groups at each hand-off of the ladder, all from the noise of their group.

    Equal prompts of a group have equal pictures, so they are drawn once.

    Args:
        studio: Model and judge.
        window: The prompts.
        copies: Number of devices with each of them.
        groups: The groups, each of two and more, numbered in this order.
        ladder: The hand-offs; empty: nothing is drawn, and only distances are told.
        seed: Of the noise: that of the stream, and the place of the window in it.
    """
    # one row a group and prompt
    rows = list(dict.fromkeys((g, window[i]) for g, each in enumerate(groups) for i in each.members))
    pictures = _drawn(studio, rows, groups, ladder, seed) if ladder and groups else {}
    found = []
    for g, each in enumerate(groups):
        vectors = studio.vectors([window[i] for i in each.members])
        for i, vector in zip(each.members, vectors, strict=True):
            alone, both, damage = pictures.get((g, window[i]), (0, (), ()))
            apart = round(distance(vector, each.middle), 4)
            thing = studio.targets[window[i]][0]
            found.append(Member(thing, copies[i], g, len(each.members), apart, alone, both, damage))
    return found


def _drawn(
    studio: Studio,
    rows: Sequence[tuple[int, str]],
    groups: Sequence[Formed],
    ladder: Sequence[int],
    seed: tuple[int, int],
) -> dict[tuple[int, str], tuple[int, tuple[int, ...], tuple[float, ...]]]:
    """Return, for prompts of groups: what the judge finds alone, and at each hand-off, and the damage there."""
    plan = studio.plan
    begun = initial_state(studio.pipe, plan, 0)
    running = [
        initial_state(studio.pipe, plan, derived_seed(seed[0], "stream", seed[1] + min(each.members))).latents
        for each in groups
    ]
    embedded = list(studio.embeddings([text for _, text in rows]))
    conditions = [each.conditioning for each in groups]

    def finals(step: int) -> list[Tensor]:
        return advanced(studio, begun, step, plan.num_steps, [running[g] for g, _ in rows], embedded)

    alone = finals(0)
    seen: list[list[int]] = []
    damages: list[list[float]] = []
    step = 0
    for k in ladder:
        running, step = advanced(studio, begun, step, k, running, conditions), k
        done = finals(k)
        seen.append(_both(studio, rows, done))
        damages.append([_damage(one, other) for one, other in zip(done, alone, strict=True)])
    columns = zip(
        _both(studio, rows, alone), zip(*seen, strict=True), zip(*damages, strict=True), strict=True
    )
    return dict(zip(rows, columns, strict=True))


def _damage(final: Float[Tensor, "1 c h w"], alone: Float[Tensor, "1 c h w"]) -> float:
    return round(float((final - alone).norm() / alone.norm()), 4)


def _both(studio: Studio, rows: Sequence[tuple[int, str]], finals: Sequence[Tensor]) -> list[int]:
    found = []
    for start in range(0, len(rows), BATCH):
        pictures = decode(studio.pipe, torch.cat(list(finals[start : start + BATCH])), studio.plan)
        for (_, text), verdict in zip(rows[start:], studio.judge.score(pictures), strict=False):
            found.append(int((verdict.object, verdict.place) == studio.targets[text]))
    return found
