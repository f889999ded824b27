"""`fedaigc atlas` and `fedaigc calibrate`: which prompts can share steps with a model, from public captions."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedaigc.cli.options import (
    DtypeOption,
    Guidance,
    MinCaptions,
    Model,
    Risk,
    Size,
    Steps,
    Tolerance,
    Variant,
)
from fedaigc.counting import counted
from fedaigc.errors import UserError

if TYPE_CHECKING:
    from fedaigc.diffusion.schedule.plan import DenoisingPlan
    from fedaigc.semantics.denoiser.atlas import Atlas
    from fedaigc.semantics.denoiser.calibration import Calibration
    from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace

atlas_app = typer.Typer(help="A public tree of captions, by how the model draws them.", no_args_is_help=True)
Captions = Annotated[Path, typer.Argument(help="Text file of public captions, one a line.")]
_SHIPPED = "default: the one that ships with the embedded model"
AtlasFile = Annotated[Path | None, typer.Argument(help=f"File of the atlas; {_SHIPPED}.")]
AtlasOption = Annotated[Path | None, typer.Option("--atlas", help=f"File of the atlas; {_SHIPPED}.")]
Noises = Annotated[int, typer.Option(min=1, help="Public noises that a prompt is asked with.")]
Dimensions = Annotated[
    int, typer.Option(min=0, help="Numbers that each answer is projected to; 0: no projection.")
]


@atlas_app.command("build")
def build(
    captions: Captions,
    output: Annotated[Path, typer.Argument(help="File to write.")],
    model: Model = "embedded",
    size: Size = None,
    steps: Steps = 11,
    dtype: DtypeOption = "float32",
    variant: Variant = None,
    noises: Noises = 1,
    dimensions: Dimensions = 64,
    min_captions: Annotated[int, typer.Option(min=1, help="Fewest captions of a node.")] = 8,
    note: Annotated[str, typer.Option(help="Source and licence of the captions, kept in the file.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Build an atlas: one evaluation of the denoiser a caption and noise. Call it again after an interruption."""
    from fedaigc.semantics.denoiser.atlas_build import build_atlas, check_count, leaves, read_captions

    if output.exists() and not force:
        raise UserError(f"{output} is there: give another name, or --force to replace it")
    lines = read_captions(captions)
    check_count(lines, min_captions)
    pipe, _, space = _opened((model, dtype, variant), size, steps, 1.0, noises, dimensions)
    about = {"model": model, "captions": captions.name, "note": note}
    parts = output.with_name(f"{output.name}.parts")
    with _bar("captions", len(lines)) as advance:
        atlas = build_atlas(pipe, space, lines, parts, about, min_captions, advance)
    output.parent.mkdir(parents=True, exist_ok=True)
    atlas.write(output)
    typer.echo(
        f"{output}: {counted(len(lines), 'caption')}, {counted(len(atlas), 'node')}, {len(leaves(atlas))} leaves, "
        f"hash {atlas.hash[:16]}"
    )


@atlas_app.command("show")
def show(
    atlas: AtlasFile = None,
    depth: Annotated[int, typer.Option(min=0, help="Levels to show.")] = 4,
) -> None:
    """Show the tree: number, captions, mean distance to the middle caption, that caption, and common words."""
    from fedaigc.semantics.denoiser.atlas import LEAF, Atlas, most_common
    from fedaigc.semantics.denoiser.atlas_build import leaves
    from fedaigc.semantics.denoiser.shipped import shipped_files

    atlas = atlas or shipped_files("embedded")[0]
    found = Atlas.read(atlas)
    about = ", ".join(f"{name} {text}" for name, text in found.about.items() if text)
    typer.echo(f"{atlas}: {about}, hash {found.hash[:16]}")
    typer.echo(
        f"{counted(len(found.captions), 'caption')}, {counted(len(found), 'node')}, {len(leaves(found))} leaves"
    )

    def line(node: int, level: int) -> None:
        common = most_common([found.captions[row] for row in found.members[node]])
        typer.echo(
            f"{'  ' * level}{node}: {counted(found.counts[node], 'caption')}, {found.radius(node):.3g} apart, "
            f"“{found.captions[found.medoid(node)]}”{f' ({common})' if common else ''}"
        )
        if level < depth and found.children[node, 0] != LEAF:
            for child in found.children[node]:
                line(int(child), level + 1)

    line(0, 0)


@atlas_app.command("where")
def where(
    prompts: Annotated[list[str], typer.Argument(help="Prompts, each in quotes.")],
    atlas: AtlasOption = None,
    model: Model = "embedded",
    size: Size = None,
    steps: Steps = 11,
    dtype: DtypeOption = "float32",
    variant: Variant = None,
    noises: Noises = 1,
    dimensions: Dimensions = 64,
    min_captions: MinCaptions = 8,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="File of `calibrate`: also show how many steps a prompt can share. Default: the one that ships with "
            "the shipped atlas."
        ),
    ] = None,
    tolerance: Tolerance = 0.5,
    risk: Risk = 0.2,
    guidance: Guidance = 5.0,
) -> None:
    """Show the node that a prompt would disclose, and the public caption that its first steps would run on."""
    from fedaigc.semantics.denoiser.atlas import Atlas
    from fedaigc.semantics.denoiser.calibration import Calibration
    from fedaigc.semantics.denoiser.sharing_distance import distance, phi
    from fedaigc.semantics.denoiser.shipped import sharing_files
    from fedaigc.validation import checked_prompt

    texts = [checked_prompt(text) for text in prompts]
    for text in texts:
        if text.endswith(".atlas"):
            raise UserError(f"{text!r} is given as a prompt: name the file of an atlas with --atlas")
    atlas, curve = sharing_files(atlas, calibration, model)
    found = Atlas.read(atlas)
    measured = Calibration.read(curve) if curve is not None else None
    pipe, plan, space = _opened((model, dtype, variant), size, steps, guidance, noises, dimensions)
    _check_space(found, space, atlas)
    if measured is not None:
        measured.check_fits(space.hash, plan, str(curve))
    for text, vector in zip(texts, phi(pipe, space, texts), strict=True):
        node = found.disclosed(vector, min_captions)
        typer.echo(f"“{text}”")
        if node is None:
            typer.echo(f"  discloses nothing: the atlas has fewer than {counted(min_captions, 'caption')}")
            continue
        middle = found.medoid(node)
        apart = distance(vector, found.vectors[middle])
        typer.echo(
            f"  discloses node {node} of {len(found)}, as {found.counts[node]} captions do; "
            f"“{found.captions[middle]}” is {apart:.3g} away"
        )
        bits = math.log2(found.answers(min_captions, lifted=measured is not None))
        typer.echo(f"  this counts at most {bits:.1f} bits")
        if measured is not None:
            shared = measured.last_handoff(apart, tolerance, risk=risk)
            typer.echo(
                f"  it can share {shared} of {counted(plan.num_steps, 'step')} with it"
                if shared
                else f"  it should run alone: {_why_alone(measured, apart, tolerance, risk)}"
            )


def calibrate(
    captions: Captions,
    output: Annotated[Path, typer.Argument(help="File to write; the plot gets the same name with .png.")],
    model: Model = "embedded",
    size: Size = None,
    steps: Steps = 11,
    guidance: Guidance = 5.0,
    dtype: DtypeOption = "float32",
    variant: Variant = None,
    noises: Noises = 1,
    dimensions: Dimensions = 64,
    pairs: Annotated[int, typer.Option(min=2, help="Pairs of captions to draw.")] = 60,
    seed: Annotated[int, typer.Option(help="Seed of pairs and noises.")] = 0,
    handoffs: Annotated[
        list[int] | None, typer.Option("--handoff", help="A hand-off K to measure. Repeatable.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Measure what sharing costs with a model: the damage by hand-off and distance of the prompts, without labels."""
    from fedaigc.extras import require_extra
    from fedaigc.semantics.denoiser.atlas_build import read_captions
    from fedaigc.semantics.denoiser.calibrate import calibrate as measured
    from fedaigc.semantics.denoiser.plot import plot_calibration

    require_extra("plots", "the picture of a calibration")
    if output.suffix != ".json":
        raise UserError(f"{output}: a calibration is a .json file")
    if output.exists() and not force:
        raise UserError(f"{output} is there: give another name, or --force to replace it")
    lines = read_captions(captions)
    pipe, plan, space = _opened((model, dtype, variant), size, steps, guidance, noises, dimensions)
    with _bar("pairs", pairs) as advance:
        found = measured(
            pipe, plan, space, lines, pairs=pairs, handoffs=handoffs or (), seed=seed, progress=advance
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    found = replace(found, model=model)
    found.write(output)
    picture = output.with_suffix(".png")
    plot_calibration(found, picture)
    typer.echo(
        f"{output}: {counted(pairs, 'pair')}, hand-offs {', '.join(map(str, found.handoffs))} of {plan.num_steps}"
    )
    typer.echo(f"{picture}: the curves")


def _opened(
    model: tuple[str, str, str | None],
    size: int | None,
    steps: int,
    guidance: float,
    noises: int,
    dimensions: int,
) -> "tuple[object, DenoisingPlan, DenoiserSpace]":
    from fedaigc.diffusion.loading import base_fingerprint, load_pipeline
    from fedaigc.diffusion.schedule.plan import build_plan
    from fedaigc.federation.config.model_config import ModelSection
    from fedaigc.semantics.denoiser.sharing_distance import DenoiserSpace

    name, dtype, variant = model
    pipe = load_pipeline(name, dtype=dtype, variant=variant)
    own = ModelSection(name=name)
    height, width = (size, size) if size is not None else (own.height, own.width)
    plan = build_plan(
        pipe,
        num_inference_steps=steps,
        guidance_scale=guidance,
        height=height,
        width=width,
        base_hash=base_fingerprint(pipe),
    )
    return pipe, plan, DenoiserSpace.of(plan, noises, dimensions)


def _why_alone(measured: "Calibration", distance: float, tolerance: float, risk: float) -> str:
    number, farthest = len(measured.distances), measured.knots[-1]
    if distance > farthest:
        return f"the {number} pairs of the calibration are at most {farthest:.3g} apart"
    fewest = min(measured.handoffs)
    beyond = measured.risk(fewest, distance, tolerance)[1]
    return (
        f"already at K = {fewest}, up to {100 * beyond:.0f} % of pictures at that distance change by more than the "
        f"tolerance {tolerance:g}, and the risk is {risk:g}. This is an upper bound from {number} pairs: with more "
        "`--pairs` of `fedaigc calibrate` it is lower"
    )


def _check_space(atlas: "Atlas", space: "DenoiserSpace", path: Path) -> None:
    if atlas.space != space.hash:
        raise UserError(
            f"{path} was built for another space (model {atlas.about.get('model', 'unknown')!r}): give the --model, "
            "--dtype, --size, --steps, --noises and --dimensions with which it was built, or build one for this model"
        )


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)
