"""What a strategy may know of completed rounds when it chooses the clients of the next."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PastRound:
    """A completed round.

    Attributes:
        round: Its number, from 1.
        sampled: The clients that were asked to train.
        num_examples: Number of training images, by client whose update counted.
        metrics: Losses of these clients, by client and name: "shared_loss", "personal_loss", and
            "validation_loss" with `rounds.validation_fraction`.
        refused: Why an update was left out, by client.
    """

    round: int
    sampled: tuple[int, ...]
    num_examples: Mapping[int, int] = field(default_factory=dict)
    metrics: Mapping[int, Mapping[str, float]] = field(default_factory=dict)
    refused: Mapping[int, str] = field(default_factory=dict)
