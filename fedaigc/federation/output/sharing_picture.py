"""The picture of a generation: who shared which steps on which prompt, and where steps and joules went."""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedaigc.collaboration.results import GroupRecord, TaskRecord
from fedaigc.collaboration.tree import last_lines
from fedaigc.errors import UserError
from fedaigc.extras import require_extra
from fedaigc.federation.output.records import GenerationRecord
from fedaigc.federation.output.sharing_costs import Part, alone, lines_of_group, spent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHARING_PICTURE = "sharing.png"
MOST_ROWS = 60
# colours of box and text for each level of the tree; they remain distinct for people with any colour vision
_LEVELS = (("#0072B2", "white"), ("#56B4E9", "black"), ("#E69F00", "black"), ("#CC79A7", "black"))
_OWN = "#BBBBBB"
_PARTS = {
    "shared steps, edge server": "#0072B2",
    "shared steps, helpers": "#56B4E9",
    "own steps, devices": _OWN,
    "packets": "#D55E00",
    "each alone": "#777777",
}
_ROW_IN = 0.26
_FONT = 7.5


def plot_sharing(generation: GenerationRecord, path: Path) -> None:
    """Write the picture.

    A row is a prompt, and runs from the first denoising step to the last. Steps that one machine ran once for several
    prompts are one box over their rows, with the prompt that they ran on; grey steps are a device's own.

    Args:
        generation: The generation.
        path: The file; its suffix is the format: .png, .pdf or .svg.

    Raises:
        UserError: If nothing was drawn, the suffix is another one, or matplotlib is missing.
    """
    require_extra("plots", "pictures of how prompts shared")
    if path.suffix not in (".png", ".pdf", ".svg"):
        raise UserError(f"{path}: expected a file with the ending .png, .pdf or .svg")
    if not generation.groups:
        raise UserError("the run drew nothing, so there is no picture of how prompts shared")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = [row for group in _largest_first(generation.groups) for row in _rows(group)]
    shown = rows[:MOST_ROWS]
    tree_in = max(1.2, _ROW_IN * len(shown))
    figure = Figure(figsize=(9.0, tree_in + 2.9), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=(tree_in + 0.8, 1.7))
    top, left, right = (figure.add_subplot(grid[place]) for place in ((0, slice(None)), (1, 0), (1, 1)))
    _draw_tree(top, generation, [task.task_id for _, task in shown])
    parts = spent(generation.groups)
    base = alone(generation.groups, generation.num_steps)
    _draw_costs(left, parts, base, "steps", "denoising steps")
    _draw_costs(right, parts, base, "joules", "joules, by profiles of SD v1-4")
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=_FONT)
    more = f", the first {len(shown)} of {len(rows)} prompts" if len(rows) > len(shown) else ""
    top.set_title(f"who shared which steps{more}", fontsize=10, loc="left")
    figure.savefig(path, dpi=130)


def _largest_first(groups: Sequence[GroupRecord]) -> list[GroupRecord]:
    return sorted(groups, key=lambda group: (-len(group.tasks), group.tasks[0].task_id))


def _rows(group: GroupRecord) -> list[tuple[GroupRecord, TaskRecord]]:
    """Return the tasks of a group so that those of each box are side by side: the last to leave a line first."""
    order: list[str] = []
    exits = {task.task_id: task.handoff_step or 0 for task in group.tasks}
    last = last_lines([task.task_id for task in group.tasks], group.branches)

    def put(line: int) -> None:
        below: list[tuple[int, int, str]] = [
            (-branch.start, number, "")
            for number, branch in enumerate(group.branches, start=1)
            if branch.parent == line
        ]
        leaving = [(-exits[task], 0, task) for task in exits if last[task] == line]
        for _, number, task in sorted([*below, *leaving]):
            if number:
                put(number)
            else:
                order.append(task)

    put(0)
    tasks = {task.task_id: task for task in group.tasks}
    return [(group, tasks[task_id]) for task_id in order]


def _draw_tree(axes: "Axes", generation: GenerationRecord, order: Sequence[str]) -> None:
    place = {task_id: row for row, task_id in enumerate(order)}
    steps = generation.num_steps
    for group in generation.groups:
        tasks = [task for task in group.tasks if task.task_id in place]
        lines = lines_of_group(group)
        last = last_lines([task.task_id for task in group.tasks], group.branches)
        members = [[task.task_id for task in group.tasks], *(branch.members for branch in group.branches)]
        for task in tasks:
            begin = task.handoff_step or 0
            axes.barh(place[task.task_id], steps - begin, left=begin, height=0.45, color=_OWN)
        level = [0] * len(lines)
        for number, line in enumerate(lines):
            level[number] = level[line.parent] + 1 if number else 0
            exits = {task: line.stops[-1] for task in members[number] if task in place}
            for other, below in enumerate(lines):
                if other and below.parent == number:
                    exits |= {task: below.start for task in members[other] if task in place}
            exits |= {task.task_id: task.handoff_step or 0 for task in tasks if last[task.task_id] == number}
            prompt = line.prompt if group.conditioning != "own" else "equal prompts"
            _draw_line(axes, prompt, line.start, exits, place, _LEVELS[level[number] % len(_LEVELS)])
    axes.set_xlim(0, steps)
    axes.set_ylim(len(order) - 0.4, -0.6)
    axes.set_xticks(range(steps + 1))
    axes.set_yticks(range(len(order)), [_label(generation, task_id) for task_id in order], fontsize=_FONT)
    axes.set_xlabel("denoising step", fontsize=_FONT + 1)
    axes.tick_params(axis="x", labelsize=_FONT)
    if generation.boundary_step < steps:
        axes.axvline(generation.boundary_step, color="#222222", linewidth=0.8, linestyle=(0, (4, 3)))
        axes.text(generation.boundary_step, -0.62, " t*", fontsize=_FONT, va="bottom")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_line(
    axes: "Axes",
    prompt: str,
    start: int,
    exits: dict[str, int],
    place: dict[str, int],
    colours: tuple[str, str],
) -> None:
    """Draw the steps of one line: a box from each exit to the next, over the rows that are still in it."""
    from matplotlib.patches import Rectangle

    begin = start
    for end in sorted({step for step in exits.values() if step > start}):
        rows = [place[task] for task, step in exits.items() if step >= end]
        low, high = min(rows), max(rows)
        box = Rectangle(
            (begin, low - 0.42), end - begin, high - low + 0.84, facecolor=colours[0], edgecolor="white"
        )
        axes.add_patch(box)
        if begin == start:
            width = max(6, int(8.5 * (max(exits.values()) - start)))
            text = textwrap.shorten(prompt, width * (high - low + 1), placeholder="…")
            axes.text(
                begin + 0.08,
                (low + high) / 2,
                "\n".join(textwrap.wrap(text, width)),
                fontsize=_FONT,
                color=colours[1],
                va="center",
                zorder=3,
            )
        begin = end


def _label(generation: GenerationRecord, task_id: str) -> str:
    (task,) = [each for each in generation.tasks if each.task_id == task_id]
    return f"client {task.client}" + (" (not drawn)" if task.report is None else "")


def _draw_costs(axes: "Axes", parts: Sequence[Part], base: Part, what: str, title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    at = 0.0
    for part in parts:
        value = float(getattr(part, what))
        if value:
            axes.barh(0, value, left=at, height=0.6, color=_PARTS[part.name], label=part.name)
            at += value
    whole = float(getattr(base, what))
    axes.barh(1, whole, height=0.6, color=_PARTS[base.name])
    axes.set_yticks((0, 1), ("this run", base.name), fontsize=_FONT)
    axes.set_ylim(1.5, -0.5)
    axes.set_xlabel(title, fontsize=_FONT + 1)
    axes.tick_params(axis="x", labelsize=_FONT)
    saved = 1 - at / whole if whole else 0.0
    axes.text(at, 0, f" {at:,.0f} ({saved:.0%} saved)", fontsize=_FONT, va="center")
    axes.text(whole, 1, f" {whole:,.0f}", fontsize=_FONT, va="center")
    axes.set_xlim(0, 1.35 * max(at, whole, 1.0))
    if what == "steps":
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
