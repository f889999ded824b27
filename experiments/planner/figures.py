"""The tables of docs/planner.md."""

from experiments.pages.markdown import markdown, share
from experiments.pages.records import estimate, record
from experiments.pages.registry import figure, table
from fedaigc.metrics.intervals import Estimate

_TOLD = {
    "none": "no sharing",
    "exact_match": "exact match",
    "random_groups": "random groups of four",
    "kmeans": "k-means, groups of four",
    "fixed": "one fixed K, complete linkage",
    "nirvana": "similarity steps of NIRVANA",
    "modm": "similarity steps of MoDM",
    "ward": "Ward linkage, falling threshold",
    "two_levels": "ours with two levels",
    "greedy_tree": "**ours, a tree**",
}


@table
def planner_gaps() -> str:
    """Excess of each planner over the optimum."""
    found = record("planner/gap")["excess"]
    keys = ("median", "90th percentile", "worst", "optimal")
    rows = [[told, *(f"{100 * found[name][key]:.1f} %" for key in keys)] for name, told in _TOLD.items()]
    return markdown(["planner", "median", "90th percentile", "worst", "instances solved exactly"], rows)


@table
def planner_savings() -> str:
    """Share of the evaluations that each planner saves, by number of waiting tasks."""
    sizes = record("planner/compare")["sizes"]
    rows = [
        [told, *(share(estimate(row["saved"][name])) for row in sizes)]
        for name, told in _TOLD.items()
        if name != "none"
    ]
    return markdown(["planner", *(f"{row['tasks']} tasks" for row in sizes)], rows)


@figure
def planner_lead(name: str, tasks: int) -> Estimate:
    """Share of the evaluations that our tree saves more than a planner, paired by seed, at a number of tasks."""
    (row,) = [row for row in record("planner/compare")["sizes"] if row["tasks"] == tasks]
    return estimate(row["ours minus"][name])


@table
def planner_sizes() -> str:
    """Time and memory of planning by number of tasks."""
    rows = [
        [
            {"greedy_tree": "ours", "ward": "Ward (SciPy)"}[row["planner"]],
            f"{row['tasks']:,}",
            f"{row['different']:,}",
            f"{row['CPU seconds']:.1f}",
            f"{row['peak MB'] - row['peak MB before planning']:,.0f}",
            share(row["saved"]),
        ]
        for row in record("planner/scale")["sizes"]
    ]
    head = ["planner", "tasks", "different ones", "CPU seconds", "MB while planning", "evaluations saved"]
    return markdown(head, rows)


@table
def planner_in_runs() -> str:
    """Share of the steps that each planner saves in a run, by what devices disclose."""
    saved = record("planner/in_runs")["saved"]
    told = {"without a planner": "without a planner", **_TOLD}
    rows = [
        [
            told[name],
            *(
                share(estimate(saved[space][name])) if name in saved[space] else ""
                for space in ("nodes", "concepts")
            ),
        ]
        for name in told
        if name in saved["nodes"]
    ]
    return markdown(["planner", "nodes of the atlas", "concepts"], rows)
