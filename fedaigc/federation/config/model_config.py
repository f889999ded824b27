"""The parts of a run's configuration about the base model and its adapters."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator

from fedaigc.diffusion.loading import EMBEDDED
from fedaigc.diffusion.model_size import model_size
from fedaigc.federation.config.choices import Dtype


class Section(BaseModel):
    """A frozen table of the configuration that rejects unknown keys, and numbers that are not finite."""

    # a key that may be infinite says so; JSON has no such number
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, ser_json_inf_nan="strings")


class ModelSection(Section):
    """The base model and how it runs.

    Attributes:
        name: "embedded", a diffusers folder or a Hub name.
        device: torch device, or "auto".
        dtype: Floating-point type of the pipeline.
        height: Image height in pixels; without it, the height that the model was made for, 64 of "embedded".
        width: Image width in pixels; without it, the width that the model was made for, 64 of "embedded".
        variant: Variant of the weight files, such as "fp16"; None: the files without a variant, or those of the only
            variant that a folder has.
    """

    name: str = EMBEDDED
    device: str = "cpu"
    dtype: Dtype = "float32"
    height: Annotated[int, Field(ge=8)] = 64
    width: Annotated[int, Field(ge=8)] = 64
    variant: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,32}$")] | None = None

    @model_validator(mode="before")
    @classmethod
    def _own_size(cls, values: Any, info: ValidationInfo) -> Any:
        """Take the size that a model was made for, where none is given.

        Never in JSON, which a server sends: a device would read files, or ask the hub, that its server names.
        """
        if info.mode == "json":
            return values
        name = values.get("name", EMBEDDED) if isinstance(values, dict) else EMBEDDED
        if name == EMBEDDED or not isinstance(name, str) or {"height", "width"} <= values.keys():
            return values
        size = model_size(name)
        if size is None:
            return values
        return {"height": size[0], "width": size[1], **values}


class AdapterSection(Section):
    """The low-rank factors, and the boundary between the shared and the personal stage.

    Attributes:
        rank: Rank of the factors.
        alpha: The scale of the factors is alpha / rank; None: equal to `rank`.
        boundary_timestep: t* as a training timestep; None: no personal stage.
        target_modules: The layers that have factors, in both stages: names of linear or convolutional layers or
            their ends, such as ["to_q", "to_v"], or a regular expression for whole names, as in peft. None: the
            attention projections and the convolutions of the blocks.
        start_from: A LoRA folder or safetensors file of peft or diffusers, from which the shared factors start;
            rank, alpha and layers are then those of the LoRA, and layers that only `target_modules` names get
            fresh factors. None: fresh factors.
        start_digest: SHA-256 of the files of `start_from`. The run sets it; if it is given, they must have it.
    """

    rank: Annotated[int, Field(ge=1)] = 8
    alpha: Annotated[float, Field(gt=0)] | None = None
    boundary_timestep: Annotated[int, Field(ge=1)] | None = 500
    target_modules: str | tuple[str, ...] | None = None
    start_from: Path | None = None
    start_digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    def starting_from(self, lora: Path) -> "AdapterSection":
        """Return the same section with another path of the LoRA."""
        return self.model_copy(update={"start_from": lora})
