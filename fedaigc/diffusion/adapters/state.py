"""Values of stage weights, independent of any pipeline: LoRA factors, residuals, and their hash."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from fedaigc.counting import counted
from fedaigc.storage.tensor_file import tensor_digest

Factors = tuple[Tensor, Tensor]
Residual = Tensor | Factors


@dataclass(frozen=True, eq=False)
class Adapter:
    """LoRA factors, by layer name.

    A layer's weight changes by s B A with s = alpha / rank.

    Attributes:
        lora: Maps a layer's name to A and B. A linear layer has A (rank, in) and B (out, rank). A convolution
            has A (rank, in, height, width) and B (out, rank, 1, 1), as in peft.
        rank: Rank of all factors.
        alpha: The alpha of s = alpha / rank.

    Raises:
        ValueError: If the shape of a factor does not match `rank`.
    """

    lora: Mapping[str, Factors] = field(repr=False)
    rank: int
    alpha: float

    def __post_init__(self) -> None:
        for layer, (down, up) in self.lora.items():
            if down.shape[0] != self.rank or up.shape[1] != self.rank:
                raise ValueError(
                    f"{layer}: expected rank {self.rank}, got A {tuple(down.shape)} and B {tuple(up.shape)}"
                )

    @property
    def scale(self) -> float:
        """The scale s = alpha / rank."""
        return self.alpha / self.rank

    def tensors(self) -> dict[str, Tensor]:
        """Return all factors under one name each (`<layer>.lora_A`, `<layer>.lora_B`), sorted by layer."""
        named: dict[str, Tensor] = {}
        for layer in sorted(self.lora):
            named[f"{layer}.lora_A"], named[f"{layer}.lora_B"] = self.lora[layer]
        return named

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "Adapter":
        """Return the same adapter with other values.

        Raises:
            KeyError: If a factor is missing.
        """
        lora = {layer: (tensors[f"{layer}.lora_A"], tensors[f"{layer}.lora_B"]) for layer in self.lora}
        return Adapter(lora, self.rank, self.alpha)


@dataclass(frozen=True, eq=False)
class SharedState:
    """The state that a federation agrees on: W0 (by its hash), R, the shared factors, and the boundary t*.

    Attributes:
        base_hash: Fingerprint of the base model.
        lora: The shared factors, by layer name, as in `Adapter`.
        rank: Rank of the shared factors.
        alpha: The alpha of s = alpha / rank.
        residual: R, by layer name: dense in the shape of the layer's weight, or a pair (A, B) that stands for
            B A.
        boundary_log_snr: t* as a noise level, ln(alpha^2 / sigma^2). None assigns every step to the shared
            stage.
    """

    base_hash: str
    lora: Mapping[str, Factors]
    rank: int
    alpha: float
    residual: Mapping[str, Residual] = field(default_factory=dict)
    boundary_log_snr: float | None = None

    def __repr__(self) -> str:
        merged = f", residual of {counted(len(self.residual), 'layer')}" if self.residual else ""
        return (
            f"<SharedState of base {self.base_hash[:12]}: {counted(len(self.lora), 'layer')} of rank {self.rank}, "
            f"alpha {self.alpha:g}{merged}>"
        )

    @property
    def adapter(self) -> Adapter:
        """The shared factors alone."""
        return Adapter(self.lora, self.rank, self.alpha)

    def tensors(self) -> dict[str, Tensor]:
        """Return factors and residuals under one name each, in a fixed order."""
        named = self.adapter.tensors()
        for layer in sorted(self.residual):
            residual = self.residual[layer]
            if isinstance(residual, Tensor):
                named[f"{layer}.residual"] = residual
            else:
                named[f"{layer}.residual_A"], named[f"{layer}.residual_B"] = residual
        return named

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> "SharedState":
        """Return the same state with other values for the named tensors.

        Raises:
            KeyError: If the state has no tensor of that name.
        """
        named = self.tensors()
        for name, tensor in tensors.items():
            if name not in named:
                raise KeyError(f"the state has no tensor {name!r}")
            named[name] = tensor
        return SharedState.from_tensors(self.header(), named)

    def header(self) -> dict[str, Any]:
        """Return everything but the tensors, as JSON values."""
        return {
            "base_hash": self.base_hash,
            "rank": self.rank,
            "alpha": self.alpha,
            "boundary_log_snr": self.boundary_log_snr,
        }

    @classmethod
    def from_tensors(cls, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> "SharedState":
        """Build a state from the outputs of `header` and `tensors`."""
        kinds: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            layer, _, kind = name.rpartition(".")
            kinds.setdefault(layer, {})[kind] = tensor
        residual: dict[str, Residual] = {}
        for layer, parts in kinds.items():
            if "residual" in parts:
                residual[layer] = parts["residual"]
            elif "residual_A" in parts:
                residual[layer] = (parts["residual_A"], parts["residual_B"])
        lora = {
            layer: (parts["lora_A"], parts["lora_B"]) for layer, parts in kinds.items() if "lora_A" in parts
        }
        return cls(lora=lora, residual=residual, **header)

    def hash(self) -> str:
        """Return the SHA-256 of base, boundary, rank, alpha and all tensors.

        Plans and packets carry this hash as the version of the shared state.
        """
        return tensor_digest(json.dumps(self.header(), sort_keys=True), self.tensors())
