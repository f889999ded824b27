"""Pictures of a researcher's own, divided over homes of simulated devices."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

from fedaigc.data.partition import PartitionSettings
from fedaigc.data.pictures.reading import Tally
from fedaigc.device.home.home import home_of
from fedaigc.device.pool import OwnData, read_pool
from fedaigc.device.provision import own_counts, provision_own
from fedaigc.errors import UserError
from fedaigc.storage.atomic_file import read_json, write_json
from fedaigc.validation import validated

if TYPE_CHECKING:
    import datasets
    from pandas import DataFrame

Data = Union[str, Path, Mapping[str, Any], "datasets.Dataset"]
# in a folder of homes: what was divided, and how
_MADE = "partition.json"


def partition(
    homes: str | Path,
    data: Data,
    *,
    clients: int = 8,
    partition: str | Mapping[str, Any] = "iid",
    label_column: str | None = None,
    seed: int = 0,
    exist_ok: bool = False,
) -> "DataFrame":
    """Divide pictures of your own over homes of simulated devices, as `fedaigc partition` does.

    Example:
        >>> import fedaigc as fa
        >>> table = fa.partition("homes", "my_pictures", clients=8, partition={"kind": "dirichlet", "alpha": 0.3})
        ... # doctest: +SKIP

    Args:
        homes: Folder for the homes 00, 01, ...
        data: A folder of pictures with captions, a `datasets.Dataset` with the columns image and caption or a folder
            of one, a hub name in the local cache, or a dict with `source` and its `image_column`, `caption_column`,
            `label_column`, `split`, `background`, `size`, `skip_broken` and `sub_folders`, as in the options of the
            command.
        clients: Number of homes.
        partition: A kind ("iid", "dirichlet", "pathological", "natural"), or the settings of `PartitionSettings`. A
            kind that reads a column reads the labels, unless it names another one.
        label_column: Column of the labels; None: "label", if there is one.
        seed: Seed of the division, and of the devices' own random streams.
        exist_ok: Whether to keep the homes of an earlier call with the same pictures and arguments.

    Returns:
        One row a client: the number of its pictures, and of those with each label. `attrs["reading"]` has a line for
        each thing that reading the pictures took, such as the number of those with transparency.

    Raises:
        UserError: If the pictures cannot be read or divided in this way; or homes exist, and were made with other
            arguments or `exist_ok` is False.
    """
    from pandas import DataFrame

    folder = Path(homes)
    given = {"kind": partition} if isinstance(partition, str) else partition
    settings = validated(PartitionSettings, given, "the partition")
    section = data_section(data, folder / ".own-data")
    if label_column is not None:
        section["label_column"] = label_column
    own = validated(OwnData, section, "the data")
    pool, tally = read_pool(own), Tally()
    asked = {
        "pictures": pool.digest([pool.label_column] if pool.label_column else []),
        "clients": clients,
        "partition": pool.settled(settings).model_dump(mode="json"),
        "seed": seed,
    }
    if exist_ok and home_of(folder, 0).is_dir():
        if read_json(folder / _MADE) != asked:
            raise UserError(
                f"{folder} holds homes of other pictures or other arguments: choose a new folder, or remove it"
            )
        counts = own_counts(own, settings, clients, seed)
    else:
        counts = provision_own(folder, own, settings, clients, seed, tally=tally)
        write_json(folder / _MADE, asked)
    rows = [{"pictures": sum(count.values()), **{k: v for k, v in count.items() if k}} for count in counts]
    table = DataFrame(rows)
    table.index.name = "client"
    table.attrs["reading"] = tally.lines(own.reading)
    return table


def data_section(data: Data, folder: Path) -> dict[str, Any]:
    """Return own pictures as a section of a configuration.

    Args:
        data: The pictures; see `partition`.
        folder: Folder in which a data set of this process is saved, for others to read it.
    """
    if isinstance(data, str | Path):
        return {"source": str(data)}
    if isinstance(data, Mapping):
        return dict(data)
    if not hasattr(data, "save_to_disk"):
        raise UserError(
            f"data is {type(data).__name__}: expected a folder, a hub name, a dict or a datasets.Dataset"
        )
    target = folder / data._fingerprint
    if not target.is_dir():
        data.save_to_disk(str(target))
    return {"source": str(target)}
