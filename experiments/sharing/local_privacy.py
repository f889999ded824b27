"""How often a node with noise still leads to the right group, by mechanism and epsilon; prints JSON.

    python -m experiments.sharing.local_privacy --record experiments/records/sharing/local_privacy.json

One half of the captions of Scenes makes an atlas, the other half are prompts. A node is *right* for a prompt if its
public caption names the prompt's place, since the first steps fix the layout. Two mechanisms say a node, both over the
nodes at which ways end at one depth:

- randomised response (`fedaigc/semantics/denoiser/local_privacy.py`): the own node, or any other one alike;
- exponential: P(node) ~ exp(-lambda distance), with the distance in the tree, and the largest lambda with which no
  ratio of probabilities exceeds e^epsilon. It is found by bisection over the exact probabilities, so the mechanism is
  no weaker than it has to be.

The share of right nodes is computed from the probabilities, without drawing. For the share of devices in a right group,
windows of `--devices` prompts are drawn, their nodes are drawn, and the server groups them (k = 2). Intervals are 95 %,
bootstrap over windows. No picture is drawn.
"""

import argparse
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from rich.progress import Progress

import fedaigc
from experiments.quality.sampling import PROGRESS_CONSOLE, one_thread
from experiments.sharing.scenes_atlas import MINIMUM, ScenesAtlas, scenes_atlas
from fedaigc.metrics.intervals import Estimate, clustered_mean
from fedaigc.rng import numpy_rng
from fedaigc.semantics.denoiser.atlas import Atlas
from fedaigc.semantics.denoiser.local_privacy import RandomizedNode
from fedaigc.semantics.denoiser.node_groups import node_groups
from fedaigc.semantics.denoiser.node_signature import NodeSignature
from fedaigc.storage.atomic_file import write_json

EPSILONS = (1.0, 2.0, 4.0, 8.0)
Table = Float[np.ndarray, "nodes nodes"]


def main() -> None:
    """Measure, and print the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--devices", type=int, default=64, help="devices of a window")
    parser.add_argument("--windows", type=int, default=100)
    parser.add_argument("--parts", type=Path, help="folder that keeps the vectors of captions")
    parser.add_argument("--record", type=Path, required=True)
    options = parser.parse_args()
    one_thread()
    with tempfile.TemporaryDirectory() as folder, Progress(console=PROGRESS_CONSOLE) as progress:
        task = progress.add_task("captions", total=None)
        found = scenes_atlas(
            options.seed, options.parts or Path(folder), lambda done: progress.update(task, completed=done)
        )
    record = measure(found, options)
    write_json(options.record, record)
    print(json.dumps(record, indent=1))


def measure(found: ScenesAtlas, options: argparse.Namespace) -> dict[str, Any]:
    """Return the record."""
    atlas = found.atlas
    depths = [depth for depth in range(1, 64) if atlas.ends(MINIMUM, depth) != atlas.ends(MINIMUM, depth - 1)]
    right = np.array(
        [[_place(found, node) == prompt.place for node in range(len(atlas))] for prompt in found.prompts]
    )
    rows: list[dict[str, Any]] = []
    exact = [_own(found, atlas.ends(MINIMUM), vector) for vector in found.vectors]
    rows.append(
        {
            "mechanism": "none",
            "nodes": len(atlas.ends(MINIMUM)),
            "own": 1.0,
            "right": float(np.mean([right[i, node] for i, node in enumerate(exact)])),
            **_windows(found, right, lambda i, _: exact[i], options),
        }
    )
    for epsilon in EPSILONS:
        chosen = RandomizedNode.of(atlas, MINIMUM, epsilon)
        assert chosen is not None
        for name, table in (("randomised response", response), ("exponential", exponential)):
            tried = []
            for depth in depths:
                nodes = atlas.ends(MINIMUM, depth)
                own = np.array([nodes.index(_own(found, nodes, vector)) for vector in found.vectors])
                chances = table(atlas, nodes, epsilon)[own]
                tried.append(
                    {
                        "nodes": len(nodes),
                        "own": float(chances[np.arange(len(own)), own].mean()),
                        "right": float((chances * right[:, list(nodes)]).sum(1).mean()),
                        "table": chances,
                        "at": nodes,
                    }
                )
            best = max(tried, key=lambda each: each["right"])
            shown = next(each for each in tried if each["at"] == chosen.nodes) if table is response else best
            cumulative = shown["table"].cumsum(1)

            def draw(i: int, u: float, s: dict[str, Any] = shown, c: Table = cumulative) -> int:
                return int(s["at"][min(int(np.searchsorted(c[i], u, "right")), len(s["at"]) - 1)])

            rows.append(
                {
                    "mechanism": name,
                    "epsilon": epsilon,
                    **{key: shown[key] for key in ("nodes", "own", "right")},
                    "best": {key: best[key] for key in ("nodes", "own", "right")},
                    **_windows(found, right, draw, options),
                }
            )
    return {
        "what": "how often a node with local differential privacy leads to the right group",
        "fedaigc": fedaigc.__version__,
        "base": found.base,
        "seed": options.seed,
        "captions": len(found.public),
        "prompts": len(found.prompts),
        "minimum": MINIMUM,
        "devices": options.devices,
        "windows": options.windows,
        "rows": rows,
    }


def response(atlas: Atlas, nodes: tuple[int, ...], epsilon: float) -> Table:
    """Probabilities of randomised response: a row for each own node, a column for each node that is said."""
    weights = np.ones((len(nodes), len(nodes)))
    np.fill_diagonal(weights, math.exp(epsilon))
    return weights / weights.sum(1, keepdims=True)


def exponential(atlas: Atlas, nodes: tuple[int, ...], epsilon: float) -> Table:
    """Probabilities of the exponential mechanism with the distance in the tree, as for `response`."""
    apart = np.array([[tree_distance(atlas, one, other) for other in nodes] for one in nodes], float)

    def table(rate: float) -> Table:
        weights = np.exp(-rate * apart)
        return weights / weights.sum(1, keepdims=True)

    low, high = 0.0, 2 * epsilon
    for _ in range(60):
        middle = (low + high) / 2
        logs = np.log(table(middle))
        low, high = (middle, high) if (logs.max(0) - logs.min(0)).max() <= epsilon else (low, middle)
    return table(low)


def tree_distance(atlas: Atlas, one: int, other: int) -> int:
    """Number of edges between two nodes."""

    def to_root(node: int) -> list[int]:
        found = [node]
        while found[-1]:
            found.append(atlas.parents[found[-1]])
        return found

    first, second = to_root(one), to_root(other)
    common = len(set(first) & set(second))
    return len(first) + len(second) - 2 * common


def _windows(
    found: ScenesAtlas,
    right: np.ndarray,
    draw: Callable[[int, float], int],
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Share of devices in a group, and in a right one, over windows."""
    random = numpy_rng(options.seed, "windows")
    grouped, fitting, clusters = [], [], []
    captions = {text: row for row, text in enumerate(found.atlas.captions)}
    for window in range(options.windows):
        rows = random.integers(len(found.prompts), size=options.devices)
        nodes = [draw(int(i), float(u)) for i, u in zip(rows, random.random(options.devices), strict=True)]
        signatures = {
            f"{at:03d}": NodeSignature(found.atlas.hash, node, node) for at, node in enumerate(nodes)
        }
        owners = {task: int(task) for task in signatures}
        for group in node_groups(signatures, owners, found.atlas):
            for task in group.members:
                inside = len(group.members) > 1
                place = found.public[captions[group.prompt]].place if inside else ""
                grouped.append(float(inside))
                fitting.append(float(inside and place == found.prompts[int(rows[int(task)])].place))
                clusters.append(window)
    return {
        "grouped": _told(clustered_mean(grouped, clusters)),
        "grouped right": _told(clustered_mean(fitting, clusters)),
    }


def _told(value: Estimate) -> dict[str, float]:
    return value.as_dict()


def _place(found: ScenesAtlas, node: int) -> str:
    return found.public[found.atlas.medoid(node)].place


def _own(found: ScenesAtlas, nodes: tuple[int, ...], vector: Float[np.ndarray, " d"]) -> int:
    return next(node for node in found.atlas.way(vector) if node in nodes)


if __name__ == "__main__":
    main()
