"""Ways through trees, and that steps in common are run once without changing a picture."""

import numpy as np
import torch

from experiments.planner import pictures as module
from experiments.planner.judged import summary
from experiments.planner.pictures import STEPS, Pictures, Way, mean_of, ways_of
from fedaigc.diffusion.encoding import encode_text
from fedaigc.diffusion.sampling.segment import initial_state, run_segment
from fedaigc.planning.plan import Node, Plan
from fedaigc.planning.tasks import Tasks

CUP, DOG, CAT = "a cup on a table", "a dog on a road", "a cat on a road"


def test_the_mean_of_equal_prompts_is_the_prompt() -> None:
    assert mean_of([CUP, CUP]) == (CUP,)
    assert mean_of([DOG, CUP, CUP]) == (CUP, CUP, DOG)


def test_a_way_goes_from_node_to_node_and_starts_from_the_noise_of_its_trees_first_member() -> None:
    vectors = np.array([[0.0], [2.0], [5.0], [0.0]])
    nodes = (
        # in the middle of its members, and exactly at one of them
        Node(np.array([0, 1, 2]), 0, 2, np.array([3.0]), None),
        Node(np.array([1, 2]), 2, 4, np.array([5.0]), 0),
    )
    plan = Plan(nodes, np.array([2, 4, 4, 0]))
    found = ways_of(plan, Tasks.of(vectors), [CUP, CAT, DOG, CUP], [7, 8, 9, 10], 5)
    mean = (CAT, CUP, DOG)
    assert found == [
        Way(7, (mean, mean, (CUP,), (CUP,), (CUP,))),
        Way(7, (mean, mean, (DOG,), (DOG,), (CAT,))),
        Way(7, (mean, mean, (DOG,), (DOG,), (DOG,))),
        Way(10, ((CUP,),) * 5),
    ]


def test_steps_in_common_are_run_once_and_change_no_picture(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    pictures = Pictures.open()
    rows: list[int] = []

    def watched(pipe, state, *rest):  # type: ignore[no-untyped-def]
        rows.append(len(state.latents))
        return run_segment(pipe, state, *rest)

    monkeypatch.setattr(module, "run_segment", watched)
    mean = mean_of([CUP, DOG])
    ways = [Way(3, (*(mean,) * 8, *((text,),) * 3)) for text in (CUP, DOG)]
    found = pictures.latents([*ways, ways[0]])
    assert sum(rows) == 8 + 2 * 3
    both = encode_text(pictures.pipe, [CUP, DOG])["prompt_embeds"]
    state = initial_state(pictures.pipe, pictures.plan, 3)
    state = run_segment(pictures.pipe, state, {"prompt_embeds": both.mean(0)[None]}, pictures.plan, 8)
    for way, own in zip(ways, both, strict=True):
        alone = run_segment(pictures.pipe, state, {"prompt_embeds": own[None]}, pictures.plan, STEPS)
        torch.testing.assert_close(found[way], alone.latents, rtol=1e-4, atol=1e-4)


def test_a_planner_that_loses_pictures_is_called_inferior() -> None:
    def row(seed: int, window: int, planner: str, kept: int) -> dict[str, object]:
        seen = [1] * kept + [0] * (32 - kept)
        costs = {"saved": 0.1 * seed, "joules": 1.0, "seconds": 1.0, "kbit": 0.0}
        return {
            "seed": seed,
            "window": window,
            "planner": planner,
            **costs,
            "object": seen,
            "place": [1] * 32,
        }

    rows = [row(seed, 0, name, kept) for seed in (0, 1) for name, kept in (("none", 32), ("greedy_tree", 24))]
    # what not all streams have does not count
    rows.append(row(0, 1, "none", 0))
    found = summary(rows)["planners"]
    assert found["greedy_tree"]["minus alone"]["mean"] == -0.25
    assert not found["greedy_tree"]["not inferior"]
    assert found["none"]["not inferior"]
    assert found["none"]["prompts"] == 64
    assert found["greedy_tree"]["saved"]["mean"] == 0.05
