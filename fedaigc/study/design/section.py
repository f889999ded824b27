"""What all tables of a study file have in common."""

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A frozen table of the configuration file that rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
