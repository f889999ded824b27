"""`fedaigc partition` and `scenes`: homes of simulated devices, with one's own pictures or with Scenes."""

from pathlib import Path
from typing import Annotated

import typer

from fedaigc.cli.options import Seed, number
from fedaigc.cli.pictures import (
    Background,
    SkipBroken,
    StoredSize,
    SubFoldersOption,
    SubFolderUse,
    picture_progress,
    show_tally,
)
from fedaigc.counting import counted
from fedaigc.data.kinds import Kind, Label

_SHOWN = 8


def partition(
    homes: Annotated[Path, typer.Argument(help="Folder for the homes: 00, 01, ...")],
    data: Annotated[
        str,
        typer.Argument(
            help="Folder of pictures with captions (captions.jsonl, metadata.jsonl, .csv or .parquet, or cat.txt "
            "beside cat.png), folder of `save_to_disk`, or hub name of a data set in the local cache."
        ),
    ],
    clients: Annotated[int, typer.Option(min=1, help="Number of devices.")] = 8,
    kind: Annotated[
        Kind,
        typer.Option(
            help="iid: at random. dirichlet: unequal shares of each label. pathological: few labels a device. natural: "
            "the pictures of one value of a column stay together."
        ),
    ] = "iid",
    column: Annotated[
        str | None, typer.Option(help="Column that the partition looks at. Default: the labels.")
    ] = None,
    alpha: Annotated[
        float, typer.Option(callback=number, help="Of dirichlet: the smaller, the more unequal.")
    ] = 0.5,
    min_size: Annotated[int, typer.Option(min=1, help="Of dirichlet: fewest pictures a device.")] = 1,
    classes: Annotated[int, typer.Option(min=1, help="Of pathological: labels a device.")] = 2,
    label_column: Annotated[
        str | None, typer.Option(help='Column of the labels. Default: "label", if there is one.')
    ] = None,
    image_column: str = "image",
    caption_column: str = "caption",
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    size: StoredSize = 1024,
    background: Background = "white",
    skip_broken: SkipBroken = False,
    sub_folders: SubFoldersOption = SubFolderUse.REFUSE,
    seed: int = 0,
) -> None:
    """Divide pictures of your own over homes of simulated devices, and print who has what."""
    from fedaigc.data.partition import PartitionSettings
    from fedaigc.data.pictures.reading import Tally
    from fedaigc.device.pool import OwnData
    from fedaigc.device.provision import provision_own
    from fedaigc.validation import validated

    given = {"column": column, "alpha": alpha, "min_size": min_size, "classes_per_client": classes}
    read = {
        "dirichlet": ("column", "alpha", "min_size"),
        "pathological": ("column", "classes_per_client"),
        "natural": ("column",),
    }
    # without a column, the labels are read
    chosen = {name: given[name] for name in read.get(kind, ()) if given[name] is not None}
    settings = validated(PartitionSettings, {"kind": kind, **chosen}, "the partition")
    own = validated(
        OwnData,
        {
            "source": data,
            "image_column": image_column,
            "caption_column": caption_column,
            "label_column": label_column,
            "split": split,
            "background": background,
            "size": size,
            "skip_broken": skip_broken,
            "sub_folders": sub_folders.value,
        },
        "the data",
    )
    tally = Tally()
    with picture_progress() as progress:
        counts = provision_own(homes, own, settings, clients, seed, tally=tally, progress=progress)
    _show(counts, homes)
    show_tally(tally, own.reading)


def _show(counts: list[dict[str, int]], homes: Path) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from fedaigc.device.home.home import home_of

    labels = [label for label in counts[0] if label]
    shown, rest = labels[:_SHOWN], labels[_SHOWN:]
    table = Table()
    table.add_column("home", overflow="fold")
    for header in ("pictures", *shown, *([f"{counted(len(rest), 'more label')}"] if rest else [])):
        table.add_column(Text(header), justify="right")
    for client, count in enumerate(counts):
        cells = [sum(count.values()), *(count[label] for label in shown)]
        cells += [sum(count[label] for label in rest)] if rest else []
        table.add_row(str(home_of(homes, client)), *map(str, cells))
    Console().print(table)


def scenes(
    homes: Annotated[Path, typer.Argument(help="Folder for the homes: 00, 01, ...")],
    clients: Annotated[int, typer.Option(min=1, help="Number of devices.")] = 8,
    images: Annotated[int, typer.Option(min=1, help="Private pictures per device, on average.")] = 96,
    partition: Annotated[
        Kind | None,
        typer.Option(
            help="How one pool of pictures is split. Default: no pool, every device draws in one style."
        ),
    ] = None,
    column: Annotated[
        Label, typer.Option(help="Of dirichlet and pathological: what the classes are.")
    ] = "object",
    alpha: Annotated[
        float, typer.Option(callback=number, help="Of dirichlet: the smaller, the more unequal.")
    ] = 0.5,
    classes: Annotated[int, typer.Option(min=1, help="Of pathological: classes a device.")] = 2,
    seed: Seed = 0,
) -> None:
    """Create homes of simulated devices with images of Scenes."""
    from fedaigc.device.home.home import home_of
    from fedaigc.device.provision import provision_pool, provision_scenes, scene_clients

    if partition is None:
        made = scene_clients(clients, images)
        provision_scenes(homes, made, seed)
        for number, client in enumerate(made):
            typer.echo(
                f"{home_of(homes, number)}: {counted(client.num_images, 'picture')} in {client.style} style"
            )
        return
    from fedaigc.data.partition import PartitionSettings
    from fedaigc.validation import validated

    given = {"column": column, "alpha": alpha, "classes_per_client": classes}
    read = {
        "dirichlet": ("column", "alpha"),
        "pathological": ("column", "classes_per_client"),
        "natural": ("column",),
    }
    settings = validated(
        PartitionSettings,
        {"kind": partition, **{name: given[name] for name in read.get(partition, ())}},
        "the split",
    )
    sizes = provision_pool(homes, clients * images, settings, clients, seed)
    for number, size in enumerate(sizes):
        typer.echo(f"{home_of(homes, number)}: {counted(size, 'picture')}")
