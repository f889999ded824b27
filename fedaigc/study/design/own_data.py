"""The clients of a study on own pictures: which pictures train, validate and test each one.

Own pictures are finite, so nothing is drawn anew: the partition divides them over the clients, and each client's
are divided once into training, validation and test pictures, by the seed of the clients. A home holds the training
pictures, under every seed of a run.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from fedaigc.counting import counted
from fedaigc.data.partition import PartitionSettings
from fedaigc.data.pictures.captioned import CaptionedImage
from fedaigc.device.pool import HOME, OwnData, Pool, num_homes, read_pool
from fedaigc.errors import UserError
from fedaigc.rng import derived_seed, numpy_rng

# counted by hand where the same files give other pictures, so that recorded runs on own pictures count as others
_READ_AS = 2
# one picture to train on, one to validate and one to test
FEWEST = 3
# what names a place or a column, and not the pictures themselves: their digest stands for them
PLACES = frozenset({"source", "image_column", "caption_column", "label_column", "split"})


class StudyOwnData(OwnData):
    """Own pictures as the data of a study's clients.

    Attributes:
        test_share: Share of each client's pictures that it is evaluated on, at least one picture.
        validation_share: Share for trials and the validation loss, at least one picture.
    """

    test_share: Annotated[float, Field(gt=0, le=0.5)] = 0.2
    validation_share: Annotated[float, Field(gt=0, le=0.5)] = 0.1

    @model_validator(mode="after")
    def _leaves_some(self) -> "StudyOwnData":
        if self.test_share + self.validation_share >= 1:
            raise ValueError("test_share and validation_share: their sum must be below 1")
        return self


@dataclass(frozen=True, eq=False)
class OwnPictures:
    """The pictures of one client.

    Attributes:
        pool: All own pictures.
        training: Their numbers in the home of the client.
        validation: Their numbers for validation.
        test: Their numbers for the test.
    """

    pool: Pool
    training: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]

    def rows(self, numbers: tuple[int, ...]) -> Iterator[dict[str, Any]]:
        """Yield images and captions, of several the first."""
        for number in numbers:
            picture = self.pool.picture(number)
            yield {"image": picture.image, "caption": picture.caption}

    def training_pictures(self) -> Iterator[CaptionedImage]:
        """Yield the pictures of the home with all their captions."""
        return map(self.pool.picture, self.training)

    def held_out(self, count: int, split: str) -> Iterator[dict[str, Any]]:
        """Yield at most `count` images and captions of a stream of `StudyClient.fresh_pictures`."""
        numbers = {
            "validation": self.validation,
            "test": self.test,
            # a gallery draws the captions of test pictures, and is compared with these pictures
            "gallery": self.test,
            "gallery captions": self.test,
            "gallery floor": (*self.validation, *self.training),
            "measured": self.training * (count // len(self.training) + 1),
        }[split]
        yield from self.rows(numbers[:count])


@dataclass(frozen=True)
class OwnPart:
    """One client of a study on own pictures.

    Attributes:
        pictures: Its pictures.
        column: The column that describes its pictures: the labels, or what the partition looks at.
        keys: Value of that column for each training picture; empty strings without a column.
    """

    pictures: OwnPictures
    column: str | None
    keys: tuple[str, ...]


def own_parts(data: StudyOwnData, settings: PartitionSettings, number: int, seed: int) -> list[OwnPart]:
    """Return the clients of a study on own pictures.

    Args:
        data: The pictures.
        settings: The partition, with its column.
        number: Number of clients.
        seed: Seed of the partition and of the division into training, validation and test.

    Raises:
        UserError: The pictures cannot be partitioned in this way, or a client has fewer than three.
    """
    pool = read_pool(data)
    column = pool.label_column or settings.read_column
    labels = pool.labels(column) if column is not None else [""] * len(pool)
    found = []
    for client, part in enumerate(_divided(pool, settings, number, seed)):
        if len(part) < FEWEST:
            raise UserError(
                f"client {client} has {counted(len(part), 'picture')}: expected at least {FEWEST}, one each for "
                "training, validation and test; give more pictures or fewer clients, or raise min_size (of dirichlet)"
            )
        order = numpy_rng(seed, "own pictures", client).permutation(len(part))
        test = max(1, min(round(data.test_share * len(part)), len(part) - 2))
        validation = max(1, min(round(data.validation_share * len(part)), len(part) - test - 1))
        chosen = [part[place] for place in order]
        pictures = OwnPictures(
            pool,
            training=tuple(sorted(chosen[test + validation :])),
            validation=tuple(chosen[test : test + validation]),
            test=tuple(chosen[:test]),
        )
        found.append(OwnPart(pictures, column, tuple(labels[row] for row in pictures.training)))
    return found


def _divided(pool: Pool, settings: PartitionSettings, number: int, seed: int) -> list[list[int]]:
    if HOME in pool.columns and settings.read_column == HOME:
        # client k is home k
        homes = pool.labels(HOME)
        return [[row for row, home in enumerate(homes) if home == name] for name in dict.fromkeys(homes)]
    return pool.divide(settings, number, derived_seed(seed, "split"))


def settled(data: StudyOwnData, settings: PartitionSettings) -> tuple[PartitionSettings, str, int]:
    """Return the partition with its column and smallest size, the digest of the pictures, and their number.

    The digest covers pictures, captions and the values of the columns that are read.
    """
    pool = read_pool(data)
    found = pool.settled(settings)
    if found.kind == "dirichlet" and "min_size" not in settings.model_fields_set:
        found = found.model_copy(update={"min_size": FEWEST})
    read = [name for name in (pool.label_column, found.read_column) if name is not None]
    digest = pool.digest(list(dict.fromkeys(read)))
    return found, hashlib.sha256(f"{_READ_AS} {digest}".encode()).hexdigest(), len(pool)


def with_own_data(values: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the values of a study whose clients have own pictures.

    Args:
        values: The values of the study, in which the path of the pictures counts from the working folder.

    Returns:
        The values with the absolute path of the pictures. Without partitions, they are divided at random; homes
        are clients as they are, and their number follows.

    Raises:
        UserError: Homes are given together with a partition, or with another number of clients.
    """
    clients = values.get("clients")
    data = clients.get("data") if isinstance(clients, Mapping) else None
    if not isinstance(clients, Mapping) or not isinstance(data, Mapping) or "source" not in data:
        return dict(values)
    source = str(data["source"])
    if Path(source).exists():
        source = str(Path(source).absolute())
    found = {**clients, "data": {**data, "source": source}}
    homes = num_homes(Path(source))
    if homes:
        if "partitions" in clients:
            raise UserError(
                f"clients.partitions: {source} holds homes, which are clients as they are; leave the partitions out"
            )
        if clients.get("number", homes) != homes:
            raise UserError(
                f"clients.number is {clients['number']}, and {source} holds {homes} homes: leave it out"
            )
        found |= {"number": homes, "partitions": {"homes": {"kind": "natural", "column": HOME}}}
    elif "partitions" not in clients:
        found["partitions"] = {"iid": {"kind": "iid"}}
    return {**values, "clients": found}
