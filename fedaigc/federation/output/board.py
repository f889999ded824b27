"""TensorBoard scalars of each round, in the folder `tensorboard/` beside the record."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from fedaigc.extras import require_extra

if TYPE_CHECKING:
    from fedaigc.federation.output.records import RoundRecord

FOLDER = "tensorboard"


class Board:
    """Writes scalars by round.

    Args:
        output: The output folder of the run.
        enabled: Whether to write anything.
        first: The first round to write. Scalars that a killed process wrote from this round on are dropped.

    Raises:
        MissingExtra: If TensorBoard is not installed.
    """

    def __init__(self, output: Path, *, enabled: bool, first: int | None = None) -> None:
        self._writer: Any = None
        if enabled:
            require_extra("tensorboard", "the scalars of `rounds.tensorboard`")
            # imported here, because it takes a second to import
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(output / FOLDER), purge_step=first)

    def add_round(self, done: "RoundRecord") -> None:
        """Write a round's mean losses, its numbers of clients and refusals, its bytes by direction and seconds."""
        figures = {f"training/{name}": value for name, value in done.mean_metrics().items()}
        figures["round/clients"] = len(done.num_examples)
        figures["round/refused"] = len(done.refused)
        figures["round/seconds"] = done.seconds
        for direction, kinds in done.sent_bytes.items():
            figures[f"bytes/{direction}"] = sum(kinds.values())
        for direction, kinds in done.backhaul_bytes.items():
            figures[f"backhaul bytes/{direction}"] = sum(kinds.values())
        self.add(done.round, figures)

    def add(self, round: int, figures: dict[str, float]) -> None:
        """Write scalars of one round, by name."""
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
