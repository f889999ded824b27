"""The tables of docs/planner.md."""

from experiments.pages.markdown import markdown, share
from experiments.pages.records import estimate, record
from experiments.pages.registry import figure, table
from fedaigc.metrics.intervals import Estimate
from fedaigc.study.results.table_files import shown

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
_ORACLE = {"oracle": "oracle that knows the judge, in our trees"}
_BY = {"edge": "edge server", "member": "a member"}


@table
def planner_gaps(name: str = "planner/gap") -> str:
    """Excess of each planner over the optimum, from a record."""
    found = record(name)["excess"]
    keys = ("median", "90th percentile", "worst", "optimal")
    rows = [[told, *(f"{100 * found[name][key]:.1f} %" for key in keys)] for name, told in _TOLD.items()]
    return markdown(["planner", "median", "90th percentile", "worst", "instances solved exactly"], rows)


@table
def planner_judged(name: str = "planner/judged") -> str:
    """Costs of each planner on real pictures, and what the judge finds in them, from a record."""
    found = record(name)["planners"]
    rows = []
    for planner, told in ({**_TOLD, **_ORACLE}).items():
        if planner not in found:
            continue
        row = found[planner]
        costs = [
            shown(estimate(row[cost]), digits)
            for cost, digits in (("joules", 0), ("seconds", 1), ("kbit", 1))
        ]
        compared = ["", ""]
        if planner != "none":
            compared = [share(estimate(row["minus alone"])), "yes" if row["not inferior"] else "no"]
        rows.append([told, share(estimate(row["saved"])), *costs, share(row["both"]), *compared])
    head = ["planner", "steps saved", "joules", "seconds", "kbit", "both seen", "minus alone", "not inferior"]
    return markdown(head, rows)


@figure
def planner_judged_lead(name: str) -> Estimate:
    """Share of the steps of real pictures that our tree saves more than a planner, over streams."""
    return estimate(record("planner/judged")["planners"][name]["ours saves more by"])


@figure
def planner_judged_saved(name: str) -> Estimate:
    """Share of the steps of real pictures that a planner saves, over streams."""
    return estimate(record("planner/judged")["planners"][name]["saved"])


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


@table
def planner_energy() -> str:
    """Joules of all machines for a picture, by the size of its group, the planner, and who runs shared steps."""
    rows = record("planner/energy")["sizes"]
    sizes = sorted({row["size"] for row in rows})
    ways = [("none", "edge"), *((name, by) for by in _BY for name in ("two_levels", "greedy_tree"))]
    told = []
    for name, by in ways:
        by_size = {
            row["size"]: row["joules"] for row in rows if (row["planner"], row["executor"]) == (name, by)
        }
        cells = [shown(estimate(by_size[size]), 0) for size in sizes]
        told.append([_TOLD[name], "" if name == "none" else _BY[by], *cells])
    return markdown(["planner", "shared steps on", *(f"{size} prompts" for size in sizes)], told)
