"""The checks of signatures under pytest: what they refuse in functions with and without shapes."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from fedaigc.wireless.fading import doppler_hz
from tests.typechecker import checked, jaxtyped

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

decorated: Any = jaxtyped(typechecker=checked)


@decorated
def plain(count: int, share: float = 0.5, names: "list[str] | None" = None) -> str:
    return "" if count else None  # type: ignore[return-value]


@decorated
def later(pipe: "DiffusionPipeline", count: int) -> Iterator[int]:
    yield from range(count)


@decorated
def product(left: Float[Tensor, "a b"], right: Float[Tensor, "b c"]) -> Float[Tensor, "a c"]:
    return left @ right if left.sum() else left


@decorated
@dataclass(frozen=True)
class Held:
    count: int

    @property
    @decorated
    def half(self) -> int:
        return self.count // 2 if self.count else None  # type: ignore[return-value]


def test_types_are_checked_without_shapes() -> None:
    assert plain(1, 1) == ""
    for wrong in (("1",), (1, "x"), (1, 0.5, [1]), (1, 0.5, "names"), (0,)):
        with pytest.raises(TypeCheckError):
            plain(*wrong)
    # what is imported for mypy alone is not known here, and is not checked
    assert list(later(object(), 2)) == [0, 1]
    with pytest.raises(TypeCheckError):
        list(later(None, "2"))
    assert plain.__annotations__["names"] == "list[str] | None"


def test_the_axes_of_all_shapes_agree() -> None:
    assert product(torch.ones(2, 3), torch.ones(3, 4)).shape == (2, 4)
    for left, right in (((2, 3), (4, 4)), ((2,), (3, 4))):
        with pytest.raises(TypeCheckError):
            product(torch.ones(*left), torch.ones(*right))
    with pytest.raises(TypeCheckError, match="return"):
        product(torch.zeros(2, 3), torch.ones(3, 4))


def test_fields_and_properties_are_checked() -> None:
    assert Held(4).half == 2
    with pytest.raises(TypeCheckError):
        Held("4")  # type: ignore[arg-type]
    with pytest.raises(TypeCheckError):
        _ = Held(0).half


def test_rooms_with_shapes_are_checked() -> None:
    with pytest.raises(TypeCheckError):
        doppler_hz("one", 1e9)  # type: ignore[arg-type]
