"""The clients of a round, as the strategy chooses them."""

from collections.abc import Iterable, Sequence

from fedaigc.errors import UserError
from fedaigc.federation.config.run_config import FederationConfig
from fedaigc.federation.output.records import RoundRecord
from fedaigc.rng import numpy_rng
from fedaigc.strategy.rule import PastRound, Rule


def sample_clients(
    clients: Sequence[int],
    rule: Rule,
    config: FederationConfig,
    number: int,
    history: Sequence[PastRound] = (),
) -> list[int]:
    """Return the clients of a round, sorted, as `Rule.sample` chooses them.

    Args:
        clients: The clients that take part in the run.
        rule: The server half of the strategy.
        config: Of the run; its seed determines the generator.
        number: Number of the round, from 1.
        history: The completed rounds.

    Raises:
        UserError: If the strategy chooses no client, too many, one twice, or one that takes no part.
    """
    available, most = sorted(clients), config.rounds.clients or len(clients)
    chosen = rule.sample(number, tuple(available), numpy_rng(config.seed, "sampling", number), history)
    found = sorted(int(client) for client in chosen)
    if not 1 <= len(found) <= most or len(set(found)) < len(found) or not set(found) <= set(available):
        raise UserError(
            f"round {number}: `sample` of the strategy {config.rounds.strategy!r} chose the clients "
            f"{found!s:.200}: expected 1 to {most} (`rounds.clients`), each once, of {available!s:.200}"
        )
    return found


def past_rounds(records: Iterable[RoundRecord]) -> list[PastRound]:
    """Return what a strategy may know of completed rounds."""
    return [
        PastRound(done.round, done.sampled, done.num_examples, done.metrics, done.refused) for done in records
    ]
