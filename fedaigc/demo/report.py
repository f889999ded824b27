"""Collects what the demo's report shows: the record, the images, and the views of the page."""

import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from PIL import Image

from fedaigc.collaboration.results import GroupRecord, TaskRecord
from fedaigc.data.sprites import HELD_OUT_STYLES
from fedaigc.demo.link import link_view
from fedaigc.demo.page import GroupView, MemberView, Page, StyleView
from fedaigc.demo.pictures import data_uri
from fedaigc.demo.redraw import Redraw
from fedaigc.demo.settings import DemoSettings
from fedaigc.demo.verdicts import Wanted, accuracies, in_words
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.node_sharing import node_disclosure
from fedaigc.federation.output.recorder import versions
from fedaigc.federation.output.records import GenerationRecord, RunRecord
from fedaigc.federation.progress import OnProgress, Progress, Stage
from fedaigc.metrics.judge import Judge, Verdict
from fedaigc.semantics.denoiser.atlas import Atlas

STYLE_PROMPTS = ("an apple on a table", "a dog near a river")
STYLE_ROWS = 4
_OF_THE_GENERATION = ("policy", "plan", "num_steps", "boundary_step")


@dataclass(frozen=True)
class Report:
    """A demo's report before it is written.

    Attributes:
        record: Every figure.
        page: What the page shows beside the figures.
        images: Title and images of each row of the overview.
        prompts: Private prompts of the overview's columns.
    """

    record: dict[str, Any]
    page: Page
    images: list[tuple[str, list[Image.Image]]]
    prompts: list[str]


@dataclass
class _Row:
    """One row of the overview: how it was drawn, its images, and the judge's verdicts."""

    name: str
    images: list[Image.Image] = field(default_factory=list)
    verdicts: list[tuple[Verdict, Wanted]] = field(default_factory=list)


def draw_report(
    settings: DemoSettings, config: FederationConfig, run: RunRecord, progress: OnProgress | None
) -> Report:
    """Draw the solo images, the single steps, the styles and the images of the link.

    Args:
        settings: Settings of the demo.
        config: Configuration of its run.
        run: Record of its run.
        progress: Called after each task and each style.
    """
    generation = run.generation
    if generation is None:
        raise RuntimeError("the run of the demo drew nothing")
    torch.set_num_threads(1)
    redraw, judge = Redraw(config, generation), Judge.load()
    atlas = node_disclosure(config).atlas
    shared, solo, prompts = _Row("collaborative"), _Row("solo"), []
    step = _stepper(progress, len(generation.tasks) + STYLE_ROWS)

    def member(group: GroupRecord, task: TaskRecord) -> MemberView:
        prompt, style = redraw.prompt(task), settings.cast[task.client][0]
        wanted = Wanted.of(prompt, style)
        images = (redraw.image(task), redraw.alone(group, task))
        verdicts = judge.score(images)
        for row, image, verdict in zip((shared, solo), images, verdicts, strict=True):
            row.images.append(image)
            row.verdicts.append((verdict, wanted))
        prompts.append(prompt)
        frames = tuple(data_uri(frame) for frame in redraw.frames(group, task))
        step()
        return MemberView(
            client=task.client,
            style=style,
            prompt=prompt,
            disclosed=_disclosed(task.disclosed, atlas),
            num_shared_steps=task.handoff_step or 0,
            shared_image=data_uri(images[0]),
            solo_image=data_uri(images[1]),
            shared_verdict=in_words(verdicts[0], wanted),
            solo_verdict=in_words(verdicts[1], wanted),
            frames=frames,
        )

    groups = tuple(
        GroupView(
            prompt=group.prompt,
            executor="the edge" if group.executor == "edge" else f"device {group.executor}",
            num_shared_steps=max(task.handoff_step or 0 for task in group.tasks),
            evaluations=group.evaluations,
            solo_evaluations=group.solo_evaluations,
            members=tuple(member(group, task) for task in group.tasks),
        )
        for group in generation.groups
    )
    styles = []
    for client in range(STYLE_ROWS):
        styles.append(_style(redraw, client, settings))
        step()
    link = link_view(redraw, generation.groups, config.seed)
    record = {
        "what": "fedaigc demo",
        "seed": settings.seed,
        "settings": {**asdict(settings), "output": str(settings.output)},
        "versions": versions(),
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.machine(),
            "system": platform.system(),
        },
        "federation": _federation(run, settings),
        "generation": _generation(generation),
        "scores": {"rows": [accuracies(row.name, row.verdicts) for row in (shared, solo)]},
    }
    images = [(row.name, row.images) for row in (shared, solo)]
    return Report(record, Page(groups, tuple(styles), link), images, prompts)


def _stepper(progress: OnProgress | None, total: int) -> Callable[[], None]:
    """Return a function that reports one more step each time it is called."""
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(Progress(Stage("pictures for the report"), done, total))

    return step


def _style(redraw: Redraw, client: int, settings: DemoSettings) -> StyleView:
    style = settings.cast[client][0]
    examples = [item.image for item in redraw.devices[client].images.all()[:3]]
    before, after = (
        redraw.style(client, STYLE_PROMPTS, settings.seed, personal=personal) for personal in (False, True)
    )
    return StyleView(
        style=style,
        held_out=style in HELD_OUT_STYLES,
        examples=tuple(map(data_uri, examples)),
        before=tuple(map(data_uri, before)),
        after=tuple(map(data_uri, after)),
    )


def _disclosed(signature: Mapping[str, str | int] | None, atlas: Atlas) -> str:
    """Return what was disclosed of a prompt, in words."""
    if signature is None:
        return "nothing: the task ran alone"
    node = int(signature["node"])
    return f"node {node}: “{atlas.captions[atlas.medoid(node)]}” and {atlas.counts[node] - 1} captions more"


def _generation(generation: GenerationRecord) -> dict[str, Any]:
    groups = generation.groups
    values = generation.model_dump(mode="json", include={*_OF_THE_GENERATION, "groups"})
    return values | {
        "tasks": len(generation.tasks),
        "evaluations": sum(group.evaluations for group in groups),
        "solo_evaluations": sum(group.solo_evaluations for group in groups),
        "packet_bytes": sum(group.packet_bytes for group in groups),
    }


def _federation(run: RunRecord, settings: DemoSettings) -> dict[str, Any]:
    rounds: list[dict[str, Any]] = [
        {
            "round": done.round,
            "clients": len(done.metrics),
            "shared_loss": done.mean_metrics()["shared_loss"],
            # as counted by the ledger
            "bytes_up": sum(done.sent_bytes["up"].values()),
            "bytes_down": sum(done.sent_bytes["down"].values()),
        }
        for done in run.rounds
    ]
    return {
        "boundary_timestep": run.config["adapter"]["boundary_timestep"],
        "clients": [
            {"client": i, "style": style, "images": settings.num_images}
            for i, (style, _) in enumerate(settings.cast)
        ],
        "bytes_up_per_client": rounds[0]["bytes_up"] / rounds[0]["clients"] if rounds else 0,
        "rounds": rounds,
        "shared_hash": run.shared_hash,
    }
