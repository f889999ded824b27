"""Ending the rounds of a run early: by `rounds.early_stopping`, or by a function of the caller."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fedaigc.diffusion.adapters.stages import SharedState
from fedaigc.federation.config.rounds_section import EarlyStopping
from fedaigc.federation.output.records import RoundRecord


@dataclass(frozen=True)
class Stop:
    """What `on_round` of `simulate` returns to end the rounds after this one.

    Attributes:
        reason: For the record of the run.
    """

    reason: str = "on_round"


OnRound = Callable[[RoundRecord, SharedState], Stop | None]


def early_stop(rounds: Sequence[RoundRecord], settings: EarlyStopping | None) -> Stop | None:
    """Return why the rounds end here, or None if they go on.

    It depends on the records alone, so a resumed run decides as an uninterrupted one. Rounds in which no client
    reported the loss do not count.
    """
    if settings is None:
        return None
    best: tuple[float, int] | None = None
    waited = 0
    for done in rounds:
        value = done.mean_metrics().get(settings.metric)
        if value is None:
            continue
        if best is None or value < best[0] - settings.min_delta:
            best, waited = (value, done.round), 0
        else:
            waited += 1
        if waited >= settings.patience:
            return Stop(
                f"early stopping after round {done.round}: {settings.metric} did not fall by more than "
                f"{settings.min_delta:g} below {best[0]:.6g} of round {best[1]} in {waited} "
                f"round{'s' if waited > 1 else ''}"
            )
    return None


def copy_of(shared: SharedState) -> SharedState:
    """Return a copy of a state, which its owner may change without changing the run."""
    return shared.with_tensors({name: tensor.clone() for name, tensor in shared.tensors().items()})


def checked(answer: object) -> Stop | None:
    """Return the answer of an `on_round`.

    Raises:
        TypeError: If it is neither a `Stop` nor None.
    """
    if answer is None or isinstance(answer, Stop):
        return answer
    raise TypeError(
        f'on_round returned {answer!r:.80}: expected None, or fa.Stop("reason") to end the rounds'
    )
