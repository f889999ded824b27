"""Partition a data set over clients, with the partitioners of flwr-datasets.

The partitioner sees only the labels and returns row numbers. Each client's rows keep the order of the pool.
Every row belongs to exactly one client, and no client is empty.
"""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedaigc.counting import counted
from fedaigc.data.kinds import Kind
from fedaigc.errors import UserError
from fedaigc.rng import derived_seed, numpy_rng

if TYPE_CHECKING:
    import datasets
    from flwr_datasets.partitioner import Partitioner

RowNumbers = Int[np.ndarray, "_"]
SizeSkew = Literal["equal", "linear", "square", "exponential"]
# the kinds that read a setting. For other kinds it must keep its default, so that it is not silently ignored
READ_BY: dict[str, tuple[Kind, ...]] = {
    "column": ("dirichlet", "pathological", "natural"),
    "alpha": ("dirichlet",),
    "min_size": ("dirichlet",),
    "classes_per_client": ("pathological",),
    "size_skew": ("style", "object", "natural", "iid"),
}
DRAWS = 10  # flwr-datasets draws a Dirichlet partition this many times before it gives up


class PartitionSettings(BaseModel):
    """How a pool of rows is partitioned over clients.

    Attributes:
        kind: "style" and "object" keep the rows of one natural id together. If there are more ids than
            clients, a client has several. If there are more clients than ids, several clients share one.
            "natural" does the same with the values of any `column`.
            "iid" draws rows at random. "dirichlet" draws the clients' shares of each class in `column` from
            Dir(alpha), and repeats this until each client has `min_size` rows [Yurochkin19]. "pathological"
            gives each client `classes_per_client` classes of `column` [Li22].
        column: Column of the classes for "dirichlet" and "pathological", and of the ids for "natural".
        alpha: Concentration for "dirichlet". The smaller alpha, the fewer classes a client has.
        min_size: The smallest number of rows of a client for "dirichlet".
        classes_per_client: Number of classes of a client for "pathological".
        size_skew: Sizes proportional to 1 ("equal"), k, k^2 or e^k for client k = 1, 2, ... For "style",
            "object" and "natural" this applies among the clients that share an id. The sizes of the other kinds
            follow from their classes.

    References:
        [Yurochkin19] "Bayesian Nonparametric Federated Learning of Neural Networks", arXiv:1905.12022.
        [Li22] "Federated Learning on Non-IID Data Silos: An Experimental Study", arXiv:2102.02079.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind = "style"
    column: str = "object"
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.5
    min_size: Annotated[int, Field(ge=1)] = 1
    classes_per_client: Annotated[int, Field(ge=1)] = 2
    size_skew: SizeSkew = "equal"

    @model_validator(mode="after")
    def _no_setting_without_effect(self) -> "PartitionSettings":
        for name, kinds in READ_BY.items():
            value, default = getattr(self, name), type(self).model_fields[name].default
            if self.kind not in kinds and value != default:
                raise ValueError(
                    f"{name} = {value!r} has no effect on kind {self.kind!r}: "
                    f"leave it out, or choose the kind {' or '.join(map(repr, kinds))}"
                )
        return self

    @property
    def id_column(self) -> str | None:
        """The column whose values stay together; None for a kind without one."""
        if self.kind == "natural":
            return self.column
        return self.kind if self.kind in ("style", "object") else None

    @property
    def read_column(self) -> str | None:
        """The column that the partition looks at; None if it draws rows at random."""
        if self.kind == "iid":
            return None
        return self.id_column or self.column


def partition(
    rows: "datasets.Dataset", settings: PartitionSettings, num_clients: int, seed: int
) -> list["datasets.Dataset"]:
    """Partition `rows` over `num_clients` clients.

    The parts depend only on the arguments.

    Args:
        rows: The pool.
        settings: The kind of the partition and its settings.
        num_clients: Number of parts.
        seed: Seed of everything that is drawn.

    Returns:
        One data set per client, in the order of the clients.

    Raises:
        UserError: If a client would be empty, if a row would belong to no client, or if the column is missing
            or has rows without a value. The message states which setting to change.
    """
    if num_clients < 1:
        raise UserError(f"{counted(num_clients, 'client')}: expected at least one")
    if len(rows) < num_clients:
        raise UserError(
            f"{counted(len(rows), 'row')} for {counted(num_clients, 'client')}: give more rows or fewer clients"
        )
    if settings.kind == "iid":
        parts = _by_size(np.arange(len(rows)), settings.size_skew, num_clients, seed)
    elif settings.kind == "dirichlet":
        parts = _dirichlet(_labels(rows, settings.column), settings, num_clients, seed)
    elif settings.kind == "pathological":
        parts = _pathological(_labels(rows, settings.column), settings, num_clients, seed)
    else:
        column = settings.id_column or ""
        parts = _natural(_labels(rows, column), column, settings.size_skew, num_clients, seed)
    # check the guarantee of this module for any version of the partitioners
    if sorted(np.concatenate(parts)) != list(range(len(rows))) or not all(map(len, parts)):
        raise RuntimeError(f"{settings.kind} split {len(rows)} rows into {[len(part) for part in parts]}")
    return [rows.select(np.sort(part)) for part in parts]


def _natural(
    labels: list[str], column: str, size_skew: SizeSkew, num_clients: int, seed: int
) -> list[RowNumbers]:
    ids = sorted(set(labels))
    dealt = [ids[i] for i in numpy_rng(seed, "partition", "ids").permutation(len(ids))]
    if num_clients <= len(ids):
        owner = {name: i % num_clients for i, name in enumerate(dealt)}
        return _by_owner([owner[label] for label in labels])
    parts: list[RowNumbers] = [np.empty(0, np.int64)] * num_clients
    for i, name in enumerate(dealt):
        clients = range(i, num_clients, len(ids))
        own = np.array([row for row, label in enumerate(labels) if label == name])
        if len(own) < len(clients):
            raise UserError(
                f"{column} {name!r} has {counted(len(own), 'row')} for {counted(len(clients), 'client')}: "
                "give more rows or fewer clients"
            )
        shares = _by_size(own, size_skew, len(clients), derived_seed(seed, "partition", name))
        for client, share in zip(clients, shares, strict=True):
            parts[client] = share
    return parts


def _by_owner(owners: Sequence[int]) -> list[RowNumbers]:
    from flwr_datasets.partitioner import GroupedNaturalIdPartitioner

    # groups of one are natural ids. NaturalIdPartitioner itself prints a progress bar
    splitter = GroupedNaturalIdPartitioner("label", group_size=1, mode="strict", sort_unique_ids=True)
    return _indices(splitter, np.arange(len(owners)), owners)


def _by_size(rows: RowNumbers, skew: SizeSkew, num_clients: int, seed: int) -> list[RowNumbers]:
    from flwr_datasets import partitioner

    kinds = {
        "equal": partitioner.IidPartitioner,
        "linear": partitioner.LinearPartitioner,
        "square": partitioner.SquarePartitioner,
        "exponential": partitioner.ExponentialPartitioner,
    }
    # these partitioners cut the rows in order, so the shuffle makes the parts random
    shuffled = numpy_rng(seed, "partition", "rows").permutation(rows)
    try:
        return _indices(kinds[skew](num_clients), shuffled)
    except ValueError:
        raise UserError(
            f'size_skew "{skew}" leaves one of {counted(num_clients, "client")} without any of '
            f"{counted(len(rows), 'row')}: give more rows, fewer clients or a milder skew (exponential, square, "
            "linear, equal)"
        ) from None


def _dirichlet(
    labels: list[str], settings: PartitionSettings, num_clients: int, seed: int
) -> list[RowNumbers]:
    from flwr_datasets.partitioner import DirichletPartitioner

    if settings.min_size * num_clients > len(labels):
        raise UserError(
            f"min_size {settings.min_size} for {counted(num_clients, 'client')} needs "
            f"{settings.min_size * num_clients} rows, and there are {len(labels)}: give more rows, fewer clients "
            "or a smaller min_size"
        )
    order = numpy_rng(seed, "partition", "rows").permutation(len(labels))
    splitter = DirichletPartitioner(
        num_clients,
        "label",
        alpha=settings.alpha,
        min_partition_size=settings.min_size,
        shuffle=False,
        seed=derived_seed(seed, "partition", "dirichlet"),
    )
    try:
        return _indices(splitter, order, [labels[row] for row in order])
    except ValueError:
        raise UserError(
            f"none of {DRAWS} draws with alpha {settings.alpha} over {settings.column!r} gave each of "
            f"{counted(num_clients, 'client')} {settings.min_size} of {counted(len(labels), 'row')}: raise alpha, "
            "give more rows, fewer clients or a smaller min_size, or take another seed"
        ) from None


def _pathological(
    labels: list[str], settings: PartitionSettings, num_clients: int, seed: int
) -> list[RowNumbers]:
    from flwr_datasets.partitioner import PathologicalPartitioner

    num_classes, wanted = len(set(labels)), settings.classes_per_client
    if wanted > num_classes:
        raise UserError(f"classes_per_client {wanted}: {settings.column!r} has only {num_classes} classes")
    order = numpy_rng(seed, "partition", "rows").permutation(len(labels))
    problem = ""
    for draw in range(DRAWS):
        # "first-deterministic", the paper's mode, uses every class if there are as many clients as classes
        splitter = PathologicalPartitioner(
            num_clients,
            "label",
            wanted,
            class_assignment_mode="first-deterministic",
            shuffle=False,
            seed=derived_seed(seed, "partition", "pathological", draw),
        )
        try:
            parts = _indices(splitter, order, [labels[row] for row in order])
        except ValueError:
            problem = "a class with fewer rows than clients; give more rows"
            continue
        if sum(map(len, parts)) == len(labels):
            return parts
        problem = 'classes that no client has; raise classes_per_client, or choose kind "object" or "style"'
    raise UserError(
        f"each of {DRAWS} draws of {wanted} out of {num_classes} classes of {settings.column!r} for "
        f"{num_clients} clients left {problem}, or change the number of clients"
    )


def _indices(
    splitter: "Partitioner", rows: RowNumbers, labels: Sequence[str | int] | None = None
) -> list[RowNumbers]:
    """Run a partitioner on row numbers and their labels, and return the row numbers of every part."""
    import datasets

    columns = {"row": rows} if labels is None else {"row": rows, "label": list(labels)}
    splitter.dataset = datasets.Dataset.from_dict(columns)
    with warnings.catch_warnings():  # their warnings are errors of this module, or checked above
        warnings.simplefilter("ignore")
        parts = [splitter.load_partition(i) for i in range(splitter.num_partitions)]
    return [np.asarray(part["row"], dtype=np.int64) for part in parts]


def _labels(rows: "datasets.Dataset", column: str) -> list[str]:
    if column not in rows.column_names:
        raise UserError(f"no column {column!r} to split by: expected one of {', '.join(rows.column_names)}")
    values = list(rows[column])
    if None in values:
        raise UserError(f"row {values.index(None)} has no {column!r}: fill it in, or leave the row out")
    feature = rows.features[column]
    # a ClassLabel holds numbers, and its names are clearer in messages
    name = feature.int2str if hasattr(feature, "int2str") else str
    return [name(value) for value in values]
