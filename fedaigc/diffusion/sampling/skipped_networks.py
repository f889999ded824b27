"""Skip the networks of a pipeline in the steps that are not computed.

A network that is skipped returns zeros in the form that its output would have. The form follows from the
shapes of the input: by an earlier call, or by a call that computes shapes alone (fake tensors), or, for a
network that permits neither, by one true evaluation.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from fedaigc.diffusion.sampling.pipeline_call import Pipeline, parts_of, timed_networks

_MAX_FORMS = 64
_Form = tuple[list[Any], Any]
# by network and by the form of its input: the form of its output
_forms: "WeakKeyDictionary[nn.Module, dict[Any, _Form]]" = WeakKeyDictionary()


class _Shape:
    """Shape, dtype and device of a tensor."""

    def __init__(self, tensor: Tensor) -> None:
        self.shape, self.dtype, self.device = tuple(tensor.shape), tensor.dtype, tensor.device

    def zeros(self) -> Tensor:
        return torch.zeros(self.shape, dtype=self.dtype, device=self.device)


@contextmanager
def skipped_networks(pipe: Pipeline, skips: Callable[[], bool]) -> Iterator[None]:
    """Within the context, the networks of the denoising loop return zeros while `skips()` holds.

    These are the networks that take a timestep. Their hooks do not run when they are skipped.
    """
    networks = timed_networks(pipe)
    for network in networks:
        stock: Any = type(network)
        network.__class__ = _skippable(stock)
        network.__dict__["_skips"] = skips
    try:
        yield
    finally:
        for network in networks:
            del network.__dict__["_skips"]
            network.__class__ = type(network).__mro__[1]


@cache
def _skippable(stock: Any) -> Any:
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        # zeros of dtype, shape and device are all that counts: no gradients
        found = _forms.setdefault(self, {})
        key = _key(arguments, options)
        if not self.__dict__["_skips"]():
            result = stock.__call__(self, *arguments, **options)
            _remember(found, key, result)
            return result
        if key not in found:
            result = _by_shapes(self, arguments, options)
            if result is None:
                result = stock.__call__(self, *arguments, **options)
            _remember(found, key, result)
        leaves, structure = found[key]
        return pytree.tree_unflatten(
            [leaf.zeros() if isinstance(leaf, _Shape) else leaf for leaf in leaves], structure
        )

    members = {"__call__": call, "__module__": stock.__module__, "__qualname__": stock.__qualname__}
    return type(stock.__name__, (stock,), members)


def _key(arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    leaves, structure = pytree.tree_flatten((arguments, options))
    return tuple(_described(leaf) for leaf in leaves), str(structure)


def _described(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return tuple(leaf.shape), leaf.dtype, leaf.device
    return leaf if isinstance(leaf, bool | int | float | str | None) else type(leaf)


def _remember(found: dict[Any, _Form], key: Any, result: Any) -> None:
    if key in found:
        return
    if len(found) >= _MAX_FORMS:
        found.pop(next(iter(found)))
    leaves, structure = pytree.tree_flatten(result)
    found[key] = ([_Shape(leaf) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure)


def _by_shapes(network: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Return the output of a network for fake tensors in the shapes of its input, or None if it has none.

    A copy runs that shares the weights: what a network keeps of a call must not reach the network itself.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    stock = getattr(network, "_orig_mod", network)
    if any("_hf_hook" in vars(part) or "_diffusers_hook" in vars(part) for part in parts_of(stock)):
        return None  # its hooks move weights or keep values
    try:
        shared = {id(tensor): tensor for tensor in (*stock.parameters(), *stock.buffers())}
        shared[id(network.__dict__.get("_skips"))] = None
        double = copy.deepcopy(stock, dict(shared))
        with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
            fake_arguments, fake_options = pytree.tree_map(
                lambda leaf: mode.from_tensor(leaf) if isinstance(leaf, Tensor) else leaf,
                (arguments, options),
            )
            return double.forward(*fake_arguments, **fake_options)
    except Exception:  # a network whose shapes depend on values, or whose code knows no fake tensors
        return None
