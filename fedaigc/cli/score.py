"""`fedaigc score`: pictures with captions, scored by CLIP, by the judge of Scenes, or against references."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedaigc.counting import counted

if TYPE_CHECKING:
    from fedaigc.score import Scores


class Features(StrEnum):
    """The networks in whose features sets of pictures are compared."""

    INCEPTION = "inception"
    JUDGE = "judge"


class Backbone(StrEnum):
    """The networks whose features LPIPS compares."""

    ALEX = "alex"
    VGG = "vgg"
    SQUEEZE = "squeeze"


def score(
    images: Annotated[
        Path,
        typer.Argument(
            help="Pictures with captions (captions.jsonl, metadata.jsonl, or cat.txt beside cat.png), or a "
            "device's home: its gallery with the prompts."
        ),
    ],
    clip: Annotated[
        str | None,
        typer.Option(help="CLIP score: folder of a CLIP model, or hub name in the local cache."),
    ] = None,
    judge: Annotated[
        bool,
        typer.Option(
            "--judge", help="The shipped judge: are object and place of the caption shown? For Scenes alone."
        ),
    ] = False,
    lpips: Annotated[
        Backbone | None,
        typer.Option(help="LPIPS to the references, with this network. Needs fedaigc[perceptual]."),
    ] = None,
    features: Annotated[
        Features | None,
        typer.Option(
            help="Distances to the references as a set. inception: FID and KID; needs torch-fidelity and its weights. "
            "judge: the same in the features of the shipped judge, for Scenes alone, and no FID."
        ),
    ] = None,
    inception_weights: Annotated[
        Path | None, typer.Option(help="File of Inception's weights. Default: the one in torch's hub folder.")
    ] = None,
    references: Annotated[
        Path | None,
        typer.Option(
            help="Folder of reference pictures: for LPIPS one of each name, for --features as many as pictures."
        ),
    ] = None,
    output: Annotated[Path | None, typer.Option(help="Write them there as well, as .csv or .json.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the output file.")] = False,
) -> None:
    """Score pictures with their captions: a row a picture, and the mean with its 95 % interval."""
    from fedaigc.score import ScoreSettings, check_output, score_pictures, write_scores

    if output is not None:
        check_output(output, exist_ok=force)
    found = score_pictures(
        images,
        ScoreSettings(
            clip=clip,
            judge=judge,
            lpips=None if lpips is None else lpips.value,
            references=references,
            features=None if features is None else features.value,
            inception_weights=inception_weights,
        ),
    )
    _show(found)
    if output is not None:
        write_scores(found, output, exist_ok=force)
        typer.echo(f"scores in {output}")


def _show(scores: "Scores") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fedaigc.metrics.distribution import MIN_IMAGES

    table = Table()
    for header in ("file", "caption"):
        table.add_column(header, overflow="fold")
    for name in scores.measures:
        table.add_column(name.replace("_", " "), justify="right", overflow="fold")
    for each in scores.pictures:
        values = ("" if value is None else f"{value:.3f}" for value in each.values.values())
        # Text: a caption in brackets is no markup
        table.add_row(Text(each.file), Text(each.caption), *values)
    means = scores.means()
    if means:
        table.add_section()
        cells = (means.get(name) for name in scores.measures)
        shown = ("" if it is None else f"{it.mean:.3f} [{it.low:.3f}, {it.high:.3f}]" for it in cells)
        table.add_row("mean [95 %]", f"{counted(len(scores.pictures), 'picture')}", *map(Text, shown))
    if scores.measures:
        Console().print(table)
    if scores.cut:
        typer.echo(
            f"longer than the {scores.token_limit} tokens that CLIP reads, and compared by their beginning: "
            f"{counted(len(scores.cut), 'caption')}, e.g. that of {scores.cut[0]}"
        )
    for name, value in scores.distances.items():
        few = ", too few to be relied on" if len(scores.pictures) < MIN_IMAGES else ""
        typer.echo(f"{name.replace('_', ' ')}: {value:.6g} ({counted(len(scores.pictures), 'picture')}{few})")
