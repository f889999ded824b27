"""Install, activate and read the weights of the shared and the personal stage of a denoiser.

A layer with base weight W0 runs with

    shared stage (noisier than t*)      W0 + R + s B A
    personal stage (cleaner than t*)    W0 + s' B' A'

W0 is never changed. The residual R holds what earlier rounds merged and acts in the shared stage only. The
factors are peft LoRA adapters named "shared" and "personal". R is a parametrization of the base layer. Factors and R
are float32, also where W0 is in half precision.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Any, cast

import torch
from PIL.Image import Image
from torch import Tensor, nn
from torch.nn.utils import parametrize

from fedaigc.diffusion.adapters.layers import TargetModules as TargetModules
from fedaigc.diffusion.adapters.layers import adapted_layers as adapted_layers
from fedaigc.diffusion.adapters.layers import (
    add_factors,
    delete_factors,
    exactly,
    outer_modules,
    run_with,
    selected_layers,
)
from fedaigc.diffusion.adapters.layers import base_weight as base_weight
from fedaigc.diffusion.adapters.layers import weighted_layers as weighted_layers
from fedaigc.diffusion.adapters.state import Adapter as Adapter
from fedaigc.diffusion.adapters.state import Factors
from fedaigc.diffusion.adapters.state import SharedState as SharedState
from fedaigc.diffusion.sampling.pipeline_call import denoiser
from fedaigc.diffusion.sampling.segment import DenoisingState, check_run, finish_segment, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan
from fedaigc.errors import UserError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


class Stage(StrEnum):
    """The weights that the denoiser runs with."""

    BASE = "base"
    SHARED = "shared"
    PERSONAL = "personal"


def new_adapter(
    pipe: "DiffusionPipeline",
    *,
    generator: torch.Generator,
    rank: int = 8,
    alpha: float | None = None,
    target_modules: TargetModules | None = None,
) -> Adapter:
    """Return initial factors that leave the pipeline unchanged until B is trained.

    A is uniform in +-1/sqrt(fan_in), peft's initialization. B is zero, so s B A = 0.

    Args:
        pipe: The pipeline that the factors are for.
        generator: Draws A.
        rank: Rank of the factors.
        alpha: The alpha of s = alpha / rank. None sets alpha = rank, so s = 1.
        target_modules: The layers that get factors, as in `selected_layers`. None: `adapted_layers`.

    Raises:
        UserError: If `rank` exceeds the largest possible rank of any layer's weight, or as `selected_layers`.
    """
    lora: dict[str, Factors] = {}
    layers = selected_layers(pipe, target_modules)
    # a rank beyond that of any weight adds no capacity, and can exhaust the memory
    largest = max((min(len(w), w[0].numel()) for w in map(base_weight, layers.values())), default=rank)
    if rank > largest:
        raise UserError(f"rank {rank}: the layers of {type(pipe).__name__} permit at most {largest}")
    for name, layer in layers.items():
        weight = base_weight(layer)
        bound = 1 / math.sqrt(weight[0].numel())
        down = torch.rand((rank, *weight.shape[1:]), generator=generator) * (2 * bound) - bound
        lora[name] = (down, torch.zeros((weight.shape[0], rank) + (1,) * (weight.dim() - 2)))
    return Adapter(lora, rank, float(rank if alpha is None else alpha))


def zero_residual(pipe: "DiffusionPipeline") -> dict[str, Tensor]:
    """Return a dense float32 residual of zeros for each of `weighted_layers`.

    Full weights start from this residual.
    """
    return {name: torch.zeros(base_weight(layer).shape) for name, layer in weighted_layers(pipe).items()}


def install(pipe: "DiffusionPipeline", shared: SharedState) -> None:
    """Install the shared factors and the residual in the pipeline, and activate the shared stage.

    Example:
        >>> import fedaigc as fa
        >>> homes = fa.scenes("runs/install/homes", clients=2, images=4, exist_ok=True)
        >>> pipe, run = fa.load_pipeline(), fa.simulate(homes, rounds=0, progress=False)
        >>> fa.install(pipe, run.shared)

    Raises:
        UserError: If the state names a layer that this pipeline does not have, or if a shape does not fit.
    """
    _put(pipe, Stage.SHARED, shared.adapter)
    layers = weighted_layers(pipe)
    for name, layer in layers.items():
        if name not in shared.residual and parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
    for name, residual in shared.residual.items():
        if name not in layers:
            raise UserError(
                f"the shared state changes layer {name!r}, which {type(pipe).__name__} does not have"
            )
        weight = base_weight(layers[name])
        dense = residual if isinstance(residual, Tensor) else residual[1].flatten(1) @ residual[0].flatten(1)
        if dense.numel() != weight.numel():
            raise UserError(
                f"{name}: residual of shape {tuple(dense.shape)}, expected that of the weight {tuple(weight.shape)}"
            )
        if parametrize.is_parametrized(layers[name], "weight"):
            with torch.no_grad():
                _residual(layers[name]).copy_(dense.reshape(weight.shape))
        else:
            # copy: training must not write into the state
            addition = _AddResidual(dense.reshape(weight.shape).to(weight.device, torch.float32, copy=True))
            parametrize.register_parametrization(layers[name], "weight", addition, unsafe=True)
    activate(pipe, Stage.SHARED)


def install_personal(pipe: "DiffusionPipeline", adapter: Adapter) -> None:
    """Install the personal factors in the pipeline, and activate the personal stage.

    Raises:
        UserError: If the adapter names a layer that this pipeline does not have, or if a shape does not fit.
    """
    _put(pipe, Stage.PERSONAL, adapter)
    activate(pipe, Stage.PERSONAL)


def remove(pipe: "DiffusionPipeline", stage: Stage) -> None:
    """Remove a stage's factors from the pipeline, if installed, and activate the base weights.

    Removing the shared stage also removes R.
    """
    network: Any = denoiser(pipe)
    if stage.value in getattr(network, "peft_config", {}):
        with _two_adapters():
            delete_factors(network, stage.value)
    if stage is Stage.SHARED:
        _remove_residuals(pipe)
    activate(pipe, Stage.BASE)


def activate(pipe: "DiffusionPipeline", stage: Stage) -> None:
    """Run with the weights of `stage` from now on.

    A stage whose factors are not installed runs with W0. A device without a personal adapter therefore
    finishes on the base model.

    Raises:
        UserError: If a LoRA of the user is active in the pipeline, which no stage runs with.
    """
    _check_no_other(pipe)
    for _, layer in _lora_layers(pipe):
        run_with(layer, stage.value if stage.value in layer.lora_A else None)
    for addition in _residuals(pipe):
        addition.active = stage is Stage.SHARED


def read_adapter(pipe: "DiffusionPipeline", stage: Stage) -> Adapter:
    """Return a float32 copy of the factors that the pipeline holds for `stage`.

    Raises:
        LookupError: If no adapter of this stage is installed.
    """
    config = _config(pipe, stage)
    lora = {
        name: (_copy(layer.lora_A[stage.value].weight), _copy(layer.lora_B[stage.value].weight))
        for name, layer in _lora_layers(pipe)
        if stage.value in layer.lora_A
    }
    return Adapter(dict(sorted(lora.items())), config.r, float(config.lora_alpha))


def stage_parameters(pipe: "DiffusionPipeline", stage: Stage) -> dict[str, nn.Parameter]:
    """Return the live parameters of a stage, under the names of `SharedState.tensors`.

    These are the factors and, for the shared stage, the residuals, dense in the shape of their weights.
    """
    named: dict[str, nn.Parameter] = {}
    for name, layer in _lora_layers(pipe):
        if stage.value in layer.lora_A:
            named[f"{name}.lora_A"] = layer.lora_A[stage.value].weight
            named[f"{name}.lora_B"] = layer.lora_B[stage.value].weight
    if stage is Stage.SHARED:
        for name, layer in weighted_layers(pipe).items():
            if parametrize.is_parametrized(layer, "weight"):
                named[f"{name}.residual"] = _residual(layer)
    return dict(sorted(named.items()))


def read_shared(pipe: "DiffusionPipeline", installed: SharedState) -> SharedState:
    """Return `installed` with the values that the pipeline holds now, as float32 copies.

    Residuals that `installed` holds as pairs of factors keep their values, because they are never trained.
    """
    before = installed.tensors()
    found = {
        name: _copy(value) for name, value in stage_parameters(pipe, Stage.SHARED).items() if name in before
    }
    return installed.with_tensors(found)


def run_stages(
    pipe: "DiffusionPipeline",
    state: DenoisingState,
    conditioning: Mapping[str, Any],
    plan: DenoisingPlan,
    stop: int,
    progress: Callable[[int], None] | None = None,
) -> DenoisingState:
    """Run steps [state.step, stop): shared weights before `plan.boundary`, personal weights from there on.

    The result is bit-exact against one unsplit run when both stages hold the same weights.

    Args:
        pipe: The pipeline in which the stages are installed.
        state: The state to continue from.
        conditioning: Keyword arguments of the pipeline call, as in `run_segment`.
        plan: The plan that the state belongs to.
        stop: The step to stop before.
        progress: Called after each step with the number of plan steps done.

    Returns:
        The state at `stop`.

    Raises:
        UserError: As `check_run`, before any step.
    """
    check_run(pipe, state, conditioning, plan, stop)
    shared_stop = min(stop, plan.boundary)
    if state.step < shared_stop:
        activate(pipe, Stage.SHARED)
        state = run_segment(pipe, state, conditioning, plan, shared_stop, progress)
    if state.step < stop:
        activate(pipe, Stage.PERSONAL)
        state = run_segment(pipe, state, conditioning, plan, stop, progress)
    return state


def finish_stages(
    pipe: "DiffusionPipeline",
    state: DenoisingState,
    conditioning: Mapping[str, Any],
    plan: DenoisingPlan,
    progress: Callable[[int], None] | None = None,
) -> list[Image]:
    """Run all remaining steps as `run_stages` does, and return one image per latent."""
    if plan.boundary < plan.num_steps:
        state = run_stages(pipe, state, conditioning, plan, max(state.step, plan.boundary), progress)
    activate(pipe, Stage.SHARED if plan.boundary >= plan.num_steps else Stage.PERSONAL)
    return finish_segment(pipe, state, conditioning, plan, progress)


class _AddResidual(nn.Module):
    """Map weight to weight + R while `active`, and return the identical tensor otherwise."""

    def __init__(self, residual: Tensor) -> None:
        super().__init__()
        self.residual = nn.Parameter(residual, requires_grad=False)
        self.active = True

    def forward(self, weight: Tensor) -> Tensor:
        # in half precision, the residual is trained in float32 and added before rounding
        return (weight + self.residual).to(weight.dtype) if self.active else weight


def _check_no_other(pipe: "DiffusionPipeline") -> None:
    """Refuse a LoRA that another loaded into the pipeline, which a stage would switch off."""
    ours = {stage.value for stage in Stage}
    active = {
        name
        for _, layer in _lora_layers(pipe)
        if not layer.disable_adapters
        for name in layer.active_adapters
        if name in layer.lora_A
    }
    if active - ours:
        raise UserError(
            f"the pipeline has the LoRA {', '.join(sorted(active - ours))}, which the stages would switch off: merge "
            "it with `pipe.fuse_lora(); pipe.unload_lora_weights()` before anything else, or unload it"
        )


def _put(pipe: "DiffusionPipeline", stage: Stage, adapter: Adapter) -> None:
    from peft import LoraConfig

    _check_no_other(pipe)
    layers = weighted_layers(pipe)
    for name, (down, up) in adapter.lora.items():
        if name not in layers:
            raise UserError(
                f"the {stage} adapter changes layer {name!r}, which {type(pipe).__name__} does not have"
            )
        weight = base_weight(layers[name])
        if (*up.shape[:1], *down.shape[1:]) != tuple(weight.shape):
            raise UserError(
                f"{name}: factors A {tuple(down.shape)} and B {tuple(up.shape)} "
                f"do not fit a weight {tuple(weight.shape)}"
            )
    network: Any = denoiser(pipe)
    found: Any = getattr(network, "peft_config", {}).get(stage.value)
    if not adapter.lora:  # full weights have a residual and no factors
        if found is not None:
            with _two_adapters():
                delete_factors(network, stage.value)
        return
    fits = found is not None and (found.r, found.lora_alpha) == (adapter.rank, adapter.alpha)
    # compare the layers themselves: peft shortens target_modules in its config to common suffixes
    holders = {name for name, layer in _lora_layers(pipe) if stage.value in layer.lora_A}
    if not fits or holders != set(adapter.lora):
        config = LoraConfig(
            r=adapter.rank,
            lora_alpha=cast(int, adapter.alpha),  # peft accepts any number
            target_modules=exactly(network, adapter.lora),
            init_lora_weights=False,
        )
        with _two_adapters():
            if found is not None:
                delete_factors(network, stage.value)
            add_factors(network, config, stage.value)
    with torch.no_grad():
        for name, parameter in stage_parameters(pipe, stage).items():
            layer, _, kind = name.rpartition(".")
            if kind == "residual":
                continue
            # peft gives them the type of W0, in which half precision would lose the steps of training
            parameter.data = parameter.data.float()
            parameter.copy_(adapter.lora[layer][0 if kind == "lora_A" else 1])


@contextmanager
def _two_adapters() -> Iterator[None]:
    """Suppress peft's warning about a second adapter: two are intended here, and `activate` selects one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def _config(pipe: "DiffusionPipeline", stage: Stage) -> Any:
    found = getattr(denoiser(pipe), "peft_config", {}).get(stage.value)
    if found is None:
        raise LookupError(f"no {stage} adapter is installed in this pipeline")
    return found


def _lora_layers(pipe: "DiffusionPipeline") -> Iterator[tuple[str, Any]]:
    from peft.tuners.lora import LoraLayer

    return ((name, module) for name, module in outer_modules(denoiser(pipe)) if isinstance(module, LoraLayer))


def has_residuals(pipe: "DiffusionPipeline") -> bool:
    """Return whether residuals are installed in a pipeline."""
    return next(_residuals(pipe), None) is not None


def _residuals(pipe: "DiffusionPipeline") -> Iterator[_AddResidual]:
    for layer in weighted_layers(pipe).values():
        if parametrize.is_parametrized(layer, "weight"):
            added: Any = layer.parametrizations
            yield from (part for part in added.weight if isinstance(part, _AddResidual))


def _residual(layer: Any) -> nn.Parameter:
    parameter: nn.Parameter = layer.parametrizations.weight[0].residual
    return parameter


def _remove_residuals(pipe: "DiffusionPipeline") -> None:
    for layer in weighted_layers(pipe).values():
        if parametrize.is_parametrized(layer, "weight"):
            parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)


def _copy(parameter: Tensor) -> Tensor:
    return parameter.detach().to("cpu", torch.float32, copy=True)
