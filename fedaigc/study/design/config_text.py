"""The file of a study with all its keys as TOML text, with their descriptions as comments."""

from collections.abc import Mapping
from typing import Any

from fedaigc.federation.config.config_file import EXAMPLES, FOLLOWS, ConfigFile
from fedaigc.study.design.config import StudyConfig

STUDY_EXAMPLES: Mapping[str, Any] = {
    **{
        name: EXAMPLES[name]
        for name in EXAMPLES
        if name.partition(".")[0] in ("model", "adapter", "rounds", "training")
    },
    "output": "out",
    "records": "records",
    "clients.data.source": "my_pictures",
    "clients.data.label_column": "label",
    "clients.partitions": "style",
    "clients.ranks": [2, 4, 8, 8, 8, 8, 8, 8, 8, 8],
    "clients.local_steps": [5, 10, 20, 20, 20, 20, 20, 20, 20, 20],
    "clients.local_epochs": 1.0,
    "evaluation.features": "judge",
    "evaluation.inception_weights": "inception.pth",
    "tuning.grid": {"training.learning_rate": [3e-4, 1e-3, 3e-3, 1e-2]},
    "tuning.rounds": 2,
    "baselines.seeds": [0],
    "strategies.name": "fedit",
    "strategies.label": "fedit, rank 2",
    "strategies.options": {"weighting": "uniform"},
    "strategies.settings": {"adapter.rank": 2},
    "strategies.tune": {"training.learning_rate": [1e-4, 1e-3]},
    "strategies.tuning_rounds": 2,
    "strategies.tuned_as": "fedit",
    "strategies.seeds": [0],
}
# `images` and `styles` belong to Scenes, and own pictures have a smallest client of their own
_UNSET = FOLLOWS | {"clients.images", "clients.styles", "clients.partitions.min_size"}
# a study refuses these: its strategies are in [[strategies]], and all rows train the same rounds
_REFUSED = frozenset(
    {f"rounds.{name}" for name in ("strategy", "options", "validation_fraction", "early_stopping")}
)


def study_text() -> str:
    """Return a file with all keys of a study: those with defaults as they are, the others as comments."""
    return ConfigFile(STUDY_EXAMPLES, _UNSET, _REFUSED).text("A study", StudyConfig)
