"""Ways through trees, and that steps in common are run once without changing a picture."""

import numpy as np
import torch

from experiments.planner import pictures as module
from experiments.planner.judged import oracle_row, summary
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


def verdict(thing: str, place: str) -> object:
    return type("Verdict", (), {"object": thing, "place": place})()


def test_the_oracle_leaves_where_nothing_is_lost_that_was_there_alone() -> None:
    class Told:
        def verdicts(self, ways):  # type: ignore[no-untyped-def]
            # the cup is lost after more than 3 shared steps; the dog is found after any number of them
            shared = {way: sum(each == (CUP, DOG) for each in way.runs_on) for way in ways}
            return {
                way: verdict("dog", "road")
                if way.runs_on[-1] == (DOG,)
                else verdict("cup" if shared[way] <= 3 else "none", "table")
                for way in ways
            }

    plan = Plan((Node(np.array([0, 1]), 0, 10, np.zeros(1), None),), np.array([10, 10]))
    ways = [Way(1, (*((CUP, DOG),) * 10, (text,))) for text in (CUP, DOG)]
    alone = {"object": [1, 1], "place": [1, 1]}
    found = oracle_row(Told(), ways, plan, [CUP, DOG], alone)  # type: ignore[arg-type]
    assert found["K"] == [3, 10]
    # 10 shared steps, and 8 and 1 of their own
    assert found["saved"] == 1 - 19 / 22
    assert found["object"] == found["place"] == [1, 1]


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
