"""Make the homes of simulated devices: one client, one hand, pictures of Scenes and a prompt or two."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fedaigc.data.atlas import HELD_OUT_STYLES, STYLES
from fedaigc.data.scenes import scenes_dataset
from fedaigc.device.home import Home
from fedaigc.device.images import ImageStore, read_rows
from fedaigc.device.prompts import PromptQueue
from fedaigc.errors import UserError
from fedaigc.rng import derived_seed


@dataclass(frozen=True)
class SceneClient:
    """A simulated device: the style of its pictures, how many it has, and the prompts of its user."""

    style: str
    num_images: int
    prompts: tuple[str, ...] = ()

    @property
    def held_out(self) -> bool:
        """Whether the shipped model never saw this style."""
        return self.style in HELD_OUT_STYLES


def scene_clients(count: int, num_images: int) -> list[SceneClient]:
    """`count` clients over all styles in turn, the held-out ones first."""
    styles = (*HELD_OUT_STYLES, *(style for style in STYLES if style not in HELD_OUT_STYLES))
    return [SceneClient(styles[i % len(styles)], num_images) for i in range(count)]


def home_of(homes: Path, partition: int) -> Path:
    """The home of a partition's device: homes/00, homes/01, and so on."""
    return homes / f"{partition:02d}"


def provision_scenes(homes: Path, clients: Sequence[SceneClient], seed: int) -> list[list[str]]:
    """Make one new home a client under `homes`; returns each client's task ids, in the order of its prompts.

    Pictures show trained object-place pairs only and depend on (seed, partition) alone.
    Raises UserError when a home is there already.
    """
    task_ids: list[list[str]] = []
    for partition, client in enumerate(clients):
        root = home_of(homes, partition)
        if root.exists():
            raise UserError(f"{root} is there already: give a new folder, or remove it")
        home = Home.open(root, derived_seed(seed, "device", partition))
        pictures = scenes_dataset(
            client.num_images, derived_seed(seed, "pictures", partition), styles=(client.style,)
        )
        ImageStore(home).add(read_rows(pictures))
        queue = PromptQueue(home)
        task_ids.append([queue.add(prompt) for prompt in client.prompts])
    return task_ids
