"""`fedaigc device`: a device's home and its agent."""

import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedaigc.cli.device_start import start
from fedaigc.cli.disclose import budget, disclosures
from fedaigc.cli.options import (
    HomeFolder,
    NewHomeFolder,
    existing_home,
)
from fedaigc.cli.peer.cluster import cluster
from fedaigc.cli.peer.pairing import pair, peers
from fedaigc.cli.peer.sharing import listen, share
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
from fedaigc.errors import UserError

if TYPE_CHECKING:
    from fedaigc.data.pictures.reading import Reading
    from fedaigc.device.home.home import Home

device_app = typer.Typer(
    help="A device: its home with private images and prompts, and its agent.", no_args_is_help=True
)
_STOP_TIMEOUT_S = 20.0
Again = Annotated[
    bool,
    typer.Option(
        "--again", help="Also add pictures that are there already, with the same caption, or given twice."
    ),
]

HomeSeed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        help="For simulations that repeat: a new home takes its random streams (task ids, training) from this number "
        "and the name of its folder. Default: from the operating system.",
    ),
]


@device_app.command("add-images")
def add_images(
    home: NewHomeFolder,
    folder: Annotated[
        Path,
        typer.Argument(
            help="Folder of pictures with captions: captions.jsonl, metadata.jsonl, .csv or .parquet, or cat.txt "
            "beside cat.png."
        ),
    ],
    caption_column: Annotated[
        str, typer.Option(help="Key or column of the captions in the list.")
    ] = "caption",
    size: StoredSize = 1024,
    background: Background = "white",
    skip_broken: SkipBroken = False,
    sub_folders: SubFoldersOption = SubFolderUse.REFUSE,
    again: Again = False,
    seed: HomeSeed = None,
) -> None:
    """Copy a folder of images with captions into a device's home."""
    from fedaigc.data.pictures.reading import Reading

    reading = Reading(background, size, skip_broken, sub_folders.value, caption_column)
    _add_pictures(home, folder, reading, again, seed)


@device_app.command("add-data-set")
def add_data_set(
    home: NewHomeFolder,
    name: Annotated[str, typer.Argument(help="A `datasets` data set: hub name or local path.")],
    image_column: Annotated[str, typer.Option(help="Column of the pictures.")] = "image",
    caption_column: Annotated[str, typer.Option(help="Column of the captions.")] = "caption",
    split: Annotated[str, typer.Option(help="Split of the data set.")] = "train",
    size: StoredSize = 1024,
    background: Background = "white",
    skip_broken: SkipBroken = False,
    again: Again = False,
    seed: HomeSeed = None,
) -> None:
    """Copy a data set with an image and a caption column into a device's home."""
    from fedaigc.data.pictures.reading import Reading
    from fedaigc.data.sources import load_data_set

    rows = load_data_set(name, image_column=image_column, caption_column=caption_column, split=split)
    _add_pictures(home, rows, Reading(background, size, skip_broken), again, seed)


def _home(folder: Path, seed: int | None) -> "Home":
    """Open a home, or make a new one; UserError if it is there and was made without this seed."""
    from fedaigc.device.home.home import Home
    from fedaigc.rng import derived_seed

    if seed is None:
        return Home.open(folder)
    # homes of one run have different names, so that one seed serves them all
    own = derived_seed(seed, "home", folder.resolve().name)
    if (folder / "device.json").exists() and Home.open(folder).seed != own:
        raise UserError(
            f"{folder} is there already, and was not made with --seed {seed} under this name: leave --seed out, or "
            "give a new folder"
        )
    return Home.open(folder, own)


def _add_pictures(
    home: Path, source: Path | Iterable[Mapping[str, Any]], reading: "Reading", again: bool, seed: int | None
) -> None:
    from fedaigc.device.add_pictures import add_pictures
    from fedaigc.device.home.home import kept_if_used
    from fedaigc.device.home.images import ImageStore

    with kept_if_used(home), picture_progress() as progress:
        done = add_pictures(ImageStore(_home(home, seed)), source, reading, again=again, progress=progress)
    held = ""
    if done.repeated:
        are, them = ("is", "it") if done.repeated == 1 else ("are", "them")
        held = f"; {done.repeated} {are} there already, with the same caption: --again adds {them} too"
    typer.echo(f"{counted(done.added, 'picture')} added to {home}{held}")
    show_tally(done.tally, reading)


@device_app.command("add-prompt")
def add_prompt(
    home: NewHomeFolder,
    prompt: Annotated[str, typer.Argument(help="What to draw, in quotes. It stays in the home.")],
    seed: HomeSeed = None,
) -> None:
    """Queue a prompt on a device for the next generation."""
    from fedaigc.device.home.prompts import PromptQueue
    from fedaigc.validation import checked_prompt

    text = checked_prompt(prompt)  # before a home is made for it
    queue = PromptQueue(_home(home, seed))
    task = queue.add(text)
    wait = len(queue.waiting())
    waiting = "1 prompt waits" if wait == 1 else f"{wait} prompts wait"
    typer.echo(f"queued for the next generation, as task {task}; {waiting} in {home}")


device_app.command()(start)
device_app.command()(disclosures)
device_app.command()(budget)
device_app.command()(pair)
device_app.command()(peers)
device_app.command()(share)
device_app.command()(listen)
device_app.command()(cluster)


@device_app.command("page")
def page_address(home: HomeFolder) -> None:
    """Print the address of the device's page. It contains a token and is for the owner only."""
    from fedaigc.deployment.agent.agent_socket import STATUS, Request, ask_agent
    from fedaigc.deployment.page.serving import PAGE_URL

    existing_home(home)
    # a killed agent may have left an outdated address
    ask_agent(home, Request(STATUS), timeout_s=5.0)
    path = home / PAGE_URL
    if not path.exists():
        raise UserError(f"the agent of {home} serves no page: start it without --no-page")
    typer.echo(path.read_text(encoding="utf-8"), nl=False)


@device_app.command()
def status(home: HomeFolder) -> None:
    """Report whether the agent runs, whether it has reached its server, and how many prompts wait."""
    from fedaigc.deployment.agent.agent_socket import STATUS, Request, ask_agent
    from fedaigc.deployment.agent.connection import connection

    existing_home(home)
    found = ask_agent(home, Request(STATUS), timeout_s=5.0).status or {}
    for name, value in found.items():
        typer.echo(f"{name}: {value}")
    typer.echo(f"server: {connection(home) or 'no connection reported yet'}")


@device_app.command()
def stop(home: HomeFolder) -> None:
    """Stop the agent. A message in progress is dropped, and nothing finished is lost."""
    from fedaigc.deployment.agent.agent_socket import STATUS, Request, ask_agent
    from fedaigc.deployment.processes import alive

    existing_home(home)
    pid = int((ask_agent(home, Request(STATUS), timeout_s=5.0).status or {})["pid"])
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    typer.echo("stopped" if not alive(pid) else "still running: it stops after its current computation")


@device_app.command()
def queue(home: HomeFolder) -> None:
    """List the prompts with their state and the most that was ever disclosed of each, in words."""
    from fedaigc.device.home.home import Home
    from fedaigc.device.home.prompts import PromptQueue
    from fedaigc.semantics.disclosed import in_words

    existing_home(home)
    prompts = PromptQueue(Home.open(home))
    tasks, damaged = prompts.readable()
    for task in tasks:
        told = f"  disclosed {' and '.join(map(in_words, task.disclosed))}" if task.disclosed else ""
        typer.echo(f"{task.task_id}  {task.status.value:<8}  {task.prompt!r}{told}")
    logs = [log.path for log in (prompts.disclosures, prompts.ledger) if log.damaged()]
    for path in (*damaged, *logs):
        typer.echo(f"warning: {path} is damaged: restore it from a copy, or remove it", err=True)


@device_app.command()
def retry(
    home: HomeFolder,
    task: Annotated[str, typer.Argument(help="Id of the task, as listed by `queue`.")],
) -> None:
    """Queue a failed prompt again; errors.log in the home states what went wrong."""
    from fedaigc.device.home.home import Home
    from fedaigc.device.home.prompts import PromptQueue
    from fedaigc.device.replies import UnknownTask

    existing_home(home)
    try:
        PromptQueue(Home.open(home)).retry(task)
    except UnknownTask:
        raise UserError(f"no task {task!r:.40} in {home}: `fedaigc device queue {home}` lists them") from None
    typer.echo(f"{task} is waiting again")


@device_app.command()
def sums(home: HomeFolder) -> None:
    """List the prompts whose text embeddings were given to a sum: time (UTC), task, members, noise."""
    from fedaigc.device.home.home import Home
    from fedaigc.device.home.sums import SumLog

    existing_home(home)
    for entry in SumLog(Home.open(home)).entries():
        if entry.status == "announced":
            continue
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(entry.time))
        told = "as they are" if entry.status == "clear" else f"masked, in a sum of {entry.members}"
        noise = f", noise of epsilon {entry.noise_epsilon:g}" if entry.noise_epsilon is not None else ""
        typer.echo(f"{when}  {entry.task_id}  {told}{noise}")


@device_app.command()
def gallery(home: HomeFolder) -> None:
    """List the finished images with their files."""
    from fedaigc.device.home.gallery import Gallery
    from fedaigc.device.home.home import Home

    existing_home(home)
    opened = Home.open(home)
    for entry in Gallery(opened).all():
        own = entry.num_steps - entry.received_step
        path = opened.gallery / f"{entry.task_id}.png"
        typer.echo(f"{path}  {entry.prompt!r}  {own} of {counted(entry.num_steps, 'step')} on this prompt")
