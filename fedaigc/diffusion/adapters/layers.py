"""The layers of a denoiser that take factors or a residual, and their selection by name."""

import re
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedaigc.diffusion.sampling.pipeline_call import denoiser
from fedaigc.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

# names or their ends, or a regular expression for whole names: as in peft
TargetModules = str | Collection[str]

# names in diffusers. Joint attention (SD3, FLUX) adds the add_* and to_add_out projections
_ATTENTION = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")
_CONVOLUTIONS = ("conv1", "conv2", "conv", "conv_shortcut")
_EXAMPLES = 3


def outer_modules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a network by name, each once, without what a layer with factors consists of.

    The order is that of `named_modules`, which takes several times as long.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    seen: set[nn.Module] = set()
    left: list[tuple[str, nn.Module | None]] = [("", network)]
    while left:
        name, module = left.pop()
        if module is None or module in seen:
            continue
        seen.add(module)
        yield name, module
        if module._modules and not isinstance(module, BaseTunerLayer):
            start = f"{name}." if name else ""
            left += [(start + inner, part) for inner, part in reversed(module._modules.items())]


def adapted_layers(pipe: "DiffusionPipeline") -> dict[str, nn.Module]:
    """Return the layers that take factors by default, by name.

    These are the attention projections and the convolutions inside the blocks; of a transformer that names its queries
    in another way, all linear layers inside of its blocks.
    """
    from peft.tuners.lora import LoraLayer

    found: dict[str, nn.Module] = {}
    linear: dict[str, nn.Module] = {}
    network = denoiser(pipe)
    lists = tuple(f"{name}." for name, part in outer_modules(network) if isinstance(part, nn.ModuleList))
    for name, module in outer_modules(network):
        layer = module.get_base_layer() if isinstance(module, LoraLayer) else module
        if isinstance(layer, nn.Linear) and name.startswith(lists):
            linear[name] = layer
        attention = isinstance(layer, nn.Linear) and name.endswith(tuple(f".{part}" for part in _ATTENTION))
        convolution = isinstance(layer, nn.Conv2d) and name.rpartition(".")[2] in _CONVOLUTIONS
        if attention or convolution:
            found[name] = layer
    if getattr(pipe, "unet", None) is None and not any(name.endswith(".to_q") for name in found):
        found = linear
    return dict(sorted(found.items()))


def weighted_layers(pipe: "DiffusionPipeline") -> dict[str, nn.Module]:
    """Return all linear and convolutional layers of the denoiser, by name: those that may be changed at all."""
    from peft.tuners.lora import LoraLayer

    found: dict[str, nn.Module] = {}
    for name, module in outer_modules(denoiser(pipe)):
        layer = module.get_base_layer() if isinstance(module, LoraLayer) else module
        if isinstance(layer, nn.Linear | nn.Conv2d):
            found[name] = layer
    return dict(sorted(found.items()))


def selected_layers(
    pipe: "DiffusionPipeline", target_modules: TargetModules | None = None
) -> dict[str, nn.Module]:
    """Return the linear and convolutional layers that peft would select, by name.

    Args:
        pipe: The pipeline.
        target_modules: Names of layers or their ends at a dot ("to_q", "attn1.to_q"), or, as one string, a
            regular expression for whole names. None: `adapted_layers`.

    Raises:
        UserError: If a name, or the expression, fits no layer, or the expression is not valid.
    """
    if target_modules is None:
        return adapted_layers(pipe)
    layers = weighted_layers(pipe)
    if isinstance(target_modules, str):
        try:
            pattern = re.compile(target_modules)
        except re.error as error:
            raise UserError(
                f"target_modules = {target_modules!r:.200} is not a regular expression: {error}; names of layers "
                "are given as a list"
            ) from None
        found = {name: layer for name, layer in layers.items() if pattern.fullmatch(name)}
        _check_found(pipe, target_modules, found, layers)
        return found
    if not target_modules:
        raise UserError("target_modules is an empty list: name at least one layer, or leave it out")
    ends = {name: set(_ends(name)) for name in layers}
    for target in target_modules:
        _check_found(pipe, target, [name for name in layers if target in ends[name]], layers)
    return {name: layer for name, layer in layers.items() if not ends[name].isdisjoint(target_modules)}


def names_of(pipe: "DiffusionPipeline", target_modules: TargetModules) -> tuple[str, ...]:
    """Return `target_modules` as names that select the same layers, without a regular expression.

    Raises:
        UserError: As `selected_layers`, or if the layers of an expression have names that select others, too.
    """
    if not isinstance(target_modules, str):
        selected_layers(pipe, target_modules)
        return tuple(target_modules)
    names = tuple(selected_layers(pipe, target_modules))
    others = sorted(selected_layers(pipe, names).keys() - set(names))
    if others:
        raise UserError(
            f"target_modules = {target_modules!r:.200} selects a layer whose name is the end of {others[0]!r}: "
            "select both or none"
        )
    return names


def exactly(network: nn.Module, layers: Iterable[str]) -> list[str] | str:
    """Return target modules of peft that select these layers and no others.

    A list is matched by the ends of names, so a layer whose whole name is the end of another's needs an expression.
    """
    wanted = set(layers)
    others = (name for name, _ in network.named_modules() if name not in wanted)
    if any(not wanted.isdisjoint(_ends(name)) for name in others):
        return "|".join(map(re.escape, sorted(wanted)))
    return sorted(wanted)


def run_with(layer: Any, factors: str | None) -> None:
    """Let a layer run with these factors alone, or with none, and train none of its factors.

    peft would visit all parameters of a layer also where they are set already.
    """
    frozen = not any(part.weight.requires_grad for part in (*layer.lora_A.values(), *layer.lora_B.values()))
    if frozen and (layer.disable_adapters if factors is None else _runs_with(layer, factors)):
        return
    layer.enable_adapters(factors is not None)
    if factors is not None:
        layer.set_adapter(factors, inference_mode=True)


def _runs_with(layer: Any, factors: str) -> bool:
    return not layer.disable_adapters and layer.active_adapters == [factors]


def base_weight(layer: Any) -> Tensor:
    """Return W0 of a layer, with or without a parametrization."""
    if parametrize.is_parametrized(layer, "weight"):
        return layer.parametrizations.weight.original
    return layer.weight


def _ends(name: str) -> list[str]:
    """Return a name and what follows each of its dots."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _check_found(
    pipe: "DiffusionPipeline", target: str, found: Collection[str], layers: Collection[str]
) -> None:
    if not found:
        step = max(1, len(layers) // _EXAMPLES)
        examples = ", ".join(list(layers)[::step][:_EXAMPLES])
        raise UserError(
            f"target_modules: {target!r:.200} fits no linear or convolutional layer of {type(pipe).__name__}; "
            f"it has {len(layers)}, such as {examples}"
        )


def add_factors(network: Any, config: Any, name: str) -> None:
    """Add the factors of a peft configuration to a network's layers.

    Networks that diffusers gives no methods for adapters (PixArt, HunyuanDiT) get them from peft itself.
    """
    from peft import inject_adapter_in_model

    if hasattr(network, "add_adapter"):
        network.add_adapter(config, adapter_name=name)
    else:
        inject_adapter_in_model(config, network, name)


def delete_factors(network: Any, name: str) -> None:
    """Delete the factors of this name from a network's layers."""
    from peft.tuners.lora import LoraLayer

    if hasattr(network, "delete_adapters"):
        network.delete_adapters(name)
        return
    for layer in network.modules():
        if isinstance(layer, LoraLayer):
            layer.delete_adapter(name)
    del network.peft_config[name]
