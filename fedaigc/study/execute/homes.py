"""Homes of simulated devices and their evaluation images, made once and shared by all runs.

The content depends on the names in its path alone. Any process may create it, the first one does, and another
machine creates the same content.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from fedaigc.data.pictures.rows import read_rows
from fedaigc.device.home.home import Home, home_of
from fedaigc.device.home.images import ImageStore
from fedaigc.device.training.encoded_cache import encoded_images
from fedaigc.diffusion.encoding import EncodedImages, encode_images
from fedaigc.federation.config.run_config import ModelSection
from fedaigc.rng import derived_seed
from fedaigc.storage.file_lock import locked
from fedaigc.storage.tensor_file import read_tensors
from fedaigc.study.design.clients import StudyClient, participants
from fedaigc.study.design.runs import RunSpec, Split

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


# pictures in memory while they are encoded: a multiple of the batch of `encode_images`
_AT_ONCE = 64


class StudyData:
    """The data of one partition, below the study's work folder.

    Args:
        work: The work folder.
        run: The run that needs the data.
        clients: The clients of the partition.
        model: The model section, for the size of an image.
        pipe: The pipeline that encodes the images.
        base_hash: Fingerprint of the base model.
    """

    def __init__(
        self,
        work: Path,
        run: RunSpec,
        clients: Sequence[StudyClient],
        model: ModelSection,
        pipe: "DiffusionPipeline",
        base_hash: str,
    ) -> None:
        size = [model.height, model.width]
        data = run.data.model_dump(mode="json", exclude=None if run.data.own else {"own", "digest"})
        key = {"data": data, "model": base_hash, "size": size}
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:12]
        self._folder = work / "data" / name
        self._run, self._clients, self._model = run, clients, model
        self._buckets = bool(run.federation.get("training", {}).get("aspect_buckets", False))
        self._pipe, self._base_hash = pipe, base_hash

    def homes(self, target: Path) -> None:
        """Put the homes of a run into `target`: 00, 01, ... for the clients that train, one home for "pooled".

        Files that are never written again are links, so that a hundred runs take the space of one. If `target` exists,
        nothing is done.
        """
        seed = self._run.seed or 0
        pooled = self._run.kind == "pooled"
        name = ("pooled" if pooled else "clients") + ("-buckets" if self._buckets else "")
        template = self._folder / f"seed{seed}" / name
        trained = participants(self._clients)

        def fill(folder: Path) -> None:
            groups = [trained] if pooled else [[client] for client in trained]
            for client_id, group in enumerate(groups):
                # the seed of a home depends on its client alone, not on the other participants
                owner = "pooled" if pooled else str(group[0].index)
                root = home_of(folder, client_id)
                store = ImageStore(Home.open(root, derived_seed(seed, "device", owner)))
                for client in group:
                    own = client.own
                    rows = client.pictures(derived_seed(seed, "home"))
                    store.add(read_rows(rows) if own is None else own.training_pictures())
                size = (self._model.height, self._model.width)
                encoded_images(store, self._pipe, self._base_hash, *size, self._buckets)

        made_once(template, fill)
        made_once(target, lambda folder: _link_tree(template, folder))

    def pictures(self, split: Split, count: int) -> list[EncodedImages]:
        """Return the evaluation images of each client, including new ones."""
        folder = self._folder / f"{split}-{count}"

        def fill(target: Path) -> None:
            for client in self._clients:
                rows = client.fresh_pictures(count, self._run.data.seed, split)
                encoded = EncodedImages.joined(
                    [
                        encode_images(
                            self._pipe,
                            [row["image"] for row in chunk],
                            [row["caption"] for row in chunk],
                            height=self._model.height,
                            width=self._model.width,
                        )
                        for chunk in _chunks(rows)
                    ]
                )
                tensors = {name: tensor.contiguous() for name, tensor in encoded.tensors().items()}
                save_file(tensors, target / f"{client.index}.safetensors")

        made_once(folder, fill)
        return [
            EncodedImages.from_tensors(read_tensors(folder / f"{client.index}.safetensors")[1])
            for client in self._clients
        ]


def _chunks(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while chunk := list(islice(rows, _AT_ONCE)):
        yield chunk


def made_once(folder: Path, fill: Callable[[Path], None]) -> None:
    """Let `fill` create a folder unless it exists; the folder is complete or absent, and one process creates it."""
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.with_name(f"{folder.name}.lock")):
        if folder.exists():
            return
        temporary = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(temporary, ignore_errors=True)  # left by a process that was killed
        temporary.mkdir()
        fill(temporary)
        temporary.rename(folder)


def _link_tree(source: Path, target: Path) -> None:
    # homes replace files and never write into one, so a link serves as a copy
    # a lock is of one home alone
    locks = shutil.ignore_patterns("*.lock")
    shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True, ignore=locks)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another file system
        shutil.copy2(source, target)
