"""Homes of simulated devices: images of Scenes by style or from one partitioned pool, or own pictures."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

from fedaigc.data.partition import PartitionSettings, partition
from fedaigc.data.pictures.reading import Tally
from fedaigc.data.pictures.rows import read_rows
from fedaigc.data.scenes import scenes_dataset
from fedaigc.data.sprites import HELD_OUT_STYLES, STYLES
from fedaigc.device.add_pictures import OnPicture, told
from fedaigc.device.home.home import Home, home_of
from fedaigc.device.home.images import ImageStore
from fedaigc.device.home.prompts import PromptQueue
from fedaigc.device.pool import OwnData, Pool, read_pool
from fedaigc.errors import UserError
from fedaigc.rng import derived_seed


@dataclass(frozen=True)
class SceneClient:
    """A simulated device.

    Attributes:
        style: Style of its images.
        num_images: Number of its images.
        prompts: Prompts of its user.
    """

    style: str
    num_images: int
    prompts: tuple[str, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether the shipped model never saw this style."""
        return self.style in HELD_OUT_STYLES


def scene_clients(count: int, num_images: int) -> list[SceneClient]:
    """Return `count` clients that take all styles in turn, the held-out ones first."""
    styles = (*HELD_OUT_STYLES, *(style for style in STYLES if style not in HELD_OUT_STYLES))
    return [SceneClient(styles[i % len(styles)], num_images) for i in range(count)]


def provision_scenes(homes: Path, clients: Sequence[SceneClient], seed: int) -> list[list[str]]:
    """Create one new home per client under `homes`.

    The images show only object-place pairs of the training set and depend only on the seed and the number of
    the client.

    Returns:
        Task ids of each client, in the order of its prompts.

    Raises:
        UserError: If a home already exists.
    """
    task_ids: list[list[str]] = []
    for number, client in enumerate(clients):
        home = _new_home(homes, number, seed)
        pictures = scenes_dataset(
            client.num_images, derived_seed(seed, "pictures", number), styles=(client.style,)
        )
        ImageStore(home).add(read_rows(pictures))
        queue = PromptQueue(home)
        task_ids.append([queue.add(prompt) for prompt in client.prompts])
    return task_ids


def provision_pool(
    homes: Path,
    num_images: int,
    settings: PartitionSettings,
    num_clients: int,
    seed: int,
    *,
    styles: tuple[str, ...] = STYLES,
) -> list[int]:
    """Partition one pool of `num_images` scenes over new homes under `homes`.

    Here the clients differ by the partition of the pool (`data.partition`), in `provision_scenes` by style
    alone. Pool and partition depend on the seed, so two partitions with one seed distribute the same images.

    Args:
        homes: Folder of the new homes.
        num_images: Size of the pool.
        settings: How the pool is partitioned.
        num_clients: Number of homes.
        seed: Seed of pool and partition.
        styles: Styles of the pool.

    Returns:
        Number of images of each client.

    Raises:
        UserError: If the pool cannot be partitioned in this way, or a home already exists.
    """
    pool = scenes_dataset(num_images, derived_seed(seed, "pool"), styles=styles)
    parts = partition(pool, settings, num_clients, derived_seed(seed, "split"))
    for client, part in enumerate(parts):
        ImageStore(_new_home(homes, client, seed)).add(read_rows(part))
    return [len(part) for part in parts]


def provision_own(
    homes: Path,
    data: OwnData,
    settings: PartitionSettings,
    num_clients: int,
    seed: int,
    *,
    tally: Tally | None = None,
    progress: OnPicture = lambda done, total: None,
) -> list[dict[str, int]]:
    """Partition own pictures over new homes under `homes`, which appear together, or not at all.

    Args:
        homes: Folder of the new homes.
        data: The pictures.
        settings: How they are partitioned. A kind that reads a column reads the labels, unless it names another.
        num_clients: Number of homes.
        seed: Seed of the partition, and of the devices' own random streams.
        tally: Counts what reading the pictures took.
        progress: Called after each picture.

    Returns:
        For each client the number of its pictures by label; without labels, by "".

    Raises:
        UserError: If the pictures cannot be read or partitioned in this way, or a home already exists.
    """
    pool, parts, column = _own_parts(data, settings, num_clients, seed)
    for client in range(num_clients):
        _check_new(homes, client)
    counted = Tally() if tally is None else tally
    counted.skipped.extend(pool.skipped)
    with _together(homes, num_clients) as folder:
        done = 0
        for client, part in enumerate(parts):
            store = ImageStore(_new_home(folder, client, seed))
            store.add(told(map(pool.picture, part, repeat(counted)), len(pool), progress, done))
            done += len(part)
    return pool.counts(parts, column)


def own_counts(
    data: OwnData, settings: PartitionSettings, num_clients: int, seed: int
) -> list[dict[str, int]]:
    """Return what `provision_own` returns for the same arguments, without creating homes."""
    pool, parts, column = _own_parts(data, settings, num_clients, seed)
    return pool.counts(parts, column)


def _own_parts(
    data: OwnData, settings: PartitionSettings, num_clients: int, seed: int
) -> tuple[Pool, list[list[int]], str | None]:
    pool = read_pool(data)
    settled = pool.settled(settings)
    parts = pool.divide(settled, num_clients, derived_seed(seed, "split"))
    return pool, parts, pool.label_column or settled.read_column


@contextmanager
def _together(homes: Path, num_clients: int) -> Iterator[Path]:
    """Let homes be made in a folder, and move them to `homes` at the end; after an error, none is left."""
    new, made = homes / ".new", not homes.exists()
    shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed
    new.mkdir(parents=True)
    try:
        yield new
        for client in range(num_clients):
            home_of(new, client).rename(home_of(homes, client))
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if made and not any(homes.iterdir()):
            homes.rmdir()


def _check_new(homes: Path, client: int) -> None:
    root = home_of(homes, client)
    if root.exists():
        raise UserError(f"{root} already exists: choose a new folder, or remove it")


def _new_home(homes: Path, client: int, seed: int) -> Home:
    _check_new(homes, client)
    return Home.open(home_of(homes, client), derived_seed(seed, "device", client))
