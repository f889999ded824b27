"""The clients of a study: their distributions, the images in their homes, and their evaluation images.

The labels of one pool are partitioned over the clients. This fixes how many images a client has and how the
column of the partition (e.g. the style) is composed. Everything else is drawn independently: a client's home
for each seed of a run, its test and validation images once for the whole study, all from the same
distribution and none twice. This is sound because the partition looks at one column only: given its value,
the rest of a scene is independent of the client. Only object-place pairs that the shipped model was trained
on are drawn.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fedaigc.data.partition import PartitionSettings, partition
from fedaigc.data.scenes import Scene, combinations, render
from fedaigc.errors import UserError
from fedaigc.rng import derived_seed, numpy_rng
from fedaigc.study.design.config import StudyClients
from fedaigc.study.design.own_data import OwnPictures, StudyOwnData, own_parts, settled
from fedaigc.study.design.section import Section

if TYPE_CHECKING:
    import numpy as np

_COLUMNS = ("object", "relation", "place", "style")


class DataSpec(Section):
    """Everything that decides which clients exist and what they draw.

    Attributes:
        number: Number of clients.
        images: Number of images in all homes together.
        new: Clients that never train, sorted.
        seed: Seed of the partition, not of a run.
        styles: Art styles in which images are drawn.
        partition: How the images are divided over the clients.
        own: Own pictures in place of Scenes.
        digest: Digest of the own pictures: with other pictures, it is another run.
    """

    number: int
    images: int
    new: tuple[int, ...]
    seed: int
    styles: tuple[str, ...]
    partition: PartitionSettings
    own: StudyOwnData | None = None
    digest: str = ""

    @classmethod
    def of(cls, clients: StudyClients, settings: PartitionSettings) -> "DataSpec":
        """Return the clients of a study under one of its partitions.

        Raises:
            UserError: Own pictures cannot be read.
        """
        images, styles, own, digest = clients.images, clients.styles, clients.data, ""
        if own is not None:
            settings, digest, images = settled(own, settings)
            styles = ()
        return cls(
            number=clients.number,
            images=images,
            new=tuple(sorted(clients.new)),
            seed=clients.seed,
            styles=styles,
            partition=settings,
            own=own,
            digest=digest,
        )

    @property
    def column(self) -> str | None:
        """The column that the partition looks at; None if it draws rows at random."""
        return self.partition.read_column


@dataclass(frozen=True)
class StudyClient:
    """One client of a study.

    Attributes:
        index: Number of the client in the study.
        new: Whether the client never trains.
        column: The column that the partition looks at; None for a random partition.
        keys: Value of that column for each of the client's images; empty strings for a random partition.
        styles: Art styles to draw from where the column is not the style.
        own: Own pictures, in place of drawn ones.
    """

    index: int
    new: bool
    column: str | None
    keys: tuple[str, ...]
    styles: tuple[str, ...]
    own: OwnPictures | None = field(default=None, compare=False)

    @property
    def num_images(self) -> int:
        """n_k: the number of images in the client's home."""
        return len(self.keys)

    def composition(self) -> dict[str, int]:
        """Return the number of images for each value of the column, e.g. {"noto": 40}; empty for a random partition."""
        return {key: self.keys.count(key) for key in sorted(set(self.keys))} if self.column else {}

    def pictures(self, seed: int) -> Iterator[dict[str, Any]]:
        """Draw the images and captions of the client's home under a run's `seed`, exactly as many of each value.

        Own pictures are the same under every seed.
        """
        if self.own is not None:
            yield from self.own.rows(self.own.training)
            return
        for i, key in enumerate(self.keys):
            yield self._drawn(key, numpy_rng(seed, "pictures", self.index, i))

    def fresh_pictures(self, count: int, seed: int, split: str) -> Iterator[dict[str, Any]]:
        """Draw further images and captions of the same distribution; of own pictures, as many as there are.

        Args:
            count: Number of images.
            seed: Seed of the stream.
            split: Name of the stream, e.g. "test".
        """
        if self.own is not None:
            yield from self.own.held_out(count, split)
            return
        for i in range(count):
            random = numpy_rng(seed, split, self.index, i)
            yield self._drawn(self.keys[int(random.integers(len(self.keys)))], random)

    def _drawn(self, key: str, random: "np.random.Generator") -> dict[str, Any]:
        triples = combinations(include_held_out=False)
        if self.column in _COLUMNS[:3]:
            at = _COLUMNS.index(self.column or "")
            triples = [triple for triple in triples if triple[at] == key]
        thing, relation, place = triples[int(random.integers(len(triples)))]
        style = key if self.column == "style" else self.styles[int(random.integers(len(self.styles)))]
        scene = Scene(thing, relation, place, style)
        return {"image": render(scene, random), "caption": scene.caption}


def split_clients(data: DataSpec) -> list[StudyClient]:
    """Return the clients, in the order of their numbers; they depend on `data` alone.

    Raises:
        UserError: Scenes do not have the column, `data.partition` cannot be applied to the pool, or own pictures
            have changed since the study began.
    """
    import datasets

    if data.own is not None:
        return _split_own(data, data.own)
    if data.column is not None and data.column not in _COLUMNS:
        raise UserError(f"scenes have no column {data.column!r}: expected one of {', '.join(_COLUMNS)}")
    triples = combinations(include_held_out=False)
    labels: dict[str, list[str]] = {name: [] for name in _COLUMNS}
    for i in range(data.images):
        random = numpy_rng(data.seed, "pool", i)
        triple = triples[int(random.integers(len(triples)))]
        style = data.styles[int(random.integers(len(data.styles)))]
        for name, value in zip(_COLUMNS, (*triple, style), strict=True):
            labels[name].append(value)
    pool = datasets.Dataset.from_dict(labels)
    parts = partition(pool, data.partition, data.number, derived_seed(data.seed, "split"))
    return [
        StudyClient(
            index,
            index in data.new,
            data.column,
            tuple(part[data.column]) if data.column is not None else ("",) * len(part),
            data.styles,
        )
        for index, part in enumerate(parts)
    ]


def _split_own(data: DataSpec, own: StudyOwnData) -> list[StudyClient]:
    if settled(own, data.partition)[1] != data.digest:
        raise UserError(f"the pictures of {own.source} have changed since the study began: run it again")
    parts = own_parts(own, data.partition, data.number, data.seed)
    return [
        StudyClient(index, index in data.new, part.column, part.keys, (), part.pictures)
        for index, part in enumerate(parts)
    ]


def participants(clients: Sequence[StudyClient]) -> list[StudyClient]:
    """Return the clients that train; their positions in this list are the client numbers of the federation."""
    return [client for client in clients if not client.new]


def gallery_counts(clients: Sequence[StudyClient], size: int) -> dict[StudyClient, int]:
    """Return the number of pictures of each client in a gallery: equal, as far as its test pictures last.

    Raises:
        UserError: Own pictures: there are fewer test pictures than the gallery has.
    """
    most = {client: size if client.own is None else len(client.own.test) for client in clients}
    if sum(most.values()) < size:
        raise UserError(
            f"evaluation.gallery is {size}: the clients that train have {sum(most.values())} test pictures together, "
            "whose captions are drawn; lower it, or raise clients.data.test_share"
        )
    counts = dict.fromkeys(clients, 0)
    while (left := size - sum(counts.values())) > 0:
        for client in [each for each in clients if counts[each] < most[each]][:left]:
            counts[client] += 1
    return counts


def local_steps(study: StudyClients, client: StudyClient, batch_size: int, default: int) -> int:
    """Return the local steps of a client in a round.

    Args:
        study: The clients of the study, with `local_steps` or `local_epochs`.
        client: The client.
        batch_size: Images per local step, which turns epochs into steps (at least one).
        default: The local steps if the study sets neither.
    """
    if study.local_steps is not None:
        return study.local_steps[client.index]
    if study.local_epochs is not None:
        return max(1, round(study.local_epochs * client.num_images / batch_size))
    return default
