"""The figures of each round for TensorBoard, in `tensorboard/` beside the record."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fedaigc.errors import UserError

if TYPE_CHECKING:
    from fedaigc.federation.output.records import RoundRecord

FOLDER = "tensorboard"


class Board:
    """Writes scalars by round; nothing at all when it is not `enabled`.

    first: the round that is written next: what an earlier, killed process wrote from there on is dropped.
    Raises UserError when TensorBoard is not installed.
    """

    def __init__(self, output: Path, *, enabled: bool, first: int | None = None) -> None:
        self._writer: Any = None
        if enabled:
            try:
                # imported here: an extra of the package, and it takes a second
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                raise UserError(
                    "rounds.tensorboard is true and TensorBoard is not installed: "
                    "pip install 'fedaigc[tensorboard]'"
                ) from None
            self._writer = SummaryWriter(str(output / FOLDER), purge_step=first)

    def add_round(self, done: "RoundRecord") -> None:
        """Mean losses over the clients, clients, bytes of the round by direction, and its seconds."""
        figures = {f"training/{name}": value for name, value in done.mean_metrics().items()}
        figures["round/clients"] = len(done.num_examples)
        figures["round/refused"] = len(done.refused)
        figures["round/seconds"] = done.seconds
        for direction, kinds in done.sent_bytes.items():
            figures[f"bytes/{direction}"] = sum(kinds.values())
        self.add(done.round, figures)

    def add(self, round: int, figures: dict[str, float]) -> None:
        """Any scalars of one round."""
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, round)
            self._writer.flush()

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()
