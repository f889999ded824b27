"""Acceptance of a shared state by a device: checks of the network that will see its prompts and images.

A server could send weights that reveal something about a prompt by failing on it, or weights that were
trained to memorize images. A shared state must therefore have the form that its strategy declares, fit the
base model layer by layer, be finite, and stay within two limits of the owner (`OwnerLimits`). The first limit
concerns the weights of each layer:

    |R|_F + |s| |B A|_F <= max_weight_change |W0|_F,   |A_ij|, |B_ij| <= MAX_FACTOR_VALUE

The second concerns the image of a public prompt, drawn with the state and with the base model from the same
noise:

    rms(x_state - x_base) <= max_picture_change std(x_base),   x: final latents of a few steps

Both limits are far above the changes of training (docs/threats.md has the figures). Neither shows that a
state is good.
"""

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fedaigc.bounds import MAX_FACTOR_VALUE, MAX_RANK
from fedaigc.device.limits import OwnerLimits
from fedaigc.device.replies import DeviceError, Failure
from fedaigc.diffusion.adapters.stages import (
    SharedState,
    Stage,
    adapted_layers,
    base_weight,
    install,
    remove,
    run_stages,
    weighted_layers,
)
from fedaigc.diffusion.sampling.segment import initial_state
from fedaigc.diffusion.schedule.noise_level import boundary_log_snr
from fedaigc.diffusion.schedule.plan import build_plan
from fedaigc.errors import NotFinite

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PROBE_PROMPT = "an apple on a table"
PROBE_SEED = 20230406
PROBE_STEPS = 4
PROBE_PIXELS = 64
# least root mean square of a layer's weights W0 in the relative change: some models start with zeros
_LEAST_WEIGHT = 1e-3


def check_form(pipe: "DiffusionPipeline", shared: SharedState, *, residual: bool) -> None:
    """Check that a shared state fits the pipeline, has the form that its strategy declares, and is finite.

    Args:
        pipe: Pipeline of the device.
        shared: Shared state to check.
        residual: Whether the strategy merges into, or trains, a residual (`Traits.residual`).

    Raises:
        DeviceError: With STATE_REFUSED, if a check fails; the message names the layer or the value.
    """
    if type(shared.rank) is not int or not 1 <= shared.rank <= MAX_RANK:
        _refuse(f"rank {shared.rank!r:.40}: expected 1 to {MAX_RANK}")
    if type(shared.alpha) not in (int, float) or not 0 < shared.alpha <= 1e6:
        _refuse(f"alpha {shared.alpha!r:.40}: expected a number above 0, at most a million")
    boundary = shared.boundary_log_snr
    if boundary is not None and (type(boundary) is not float or math.isnan(boundary)):
        _refuse(f"t* at log-SNR {boundary!r:.40}: expected a number")
    if shared.residual and not residual:
        _refuse("it has a residual, which its strategy does not declare")
    weighted = weighted_layers(pipe)
    for layer, (down, up) in shared.lora.items():
        if layer not in weighted:
            _refuse(f"it changes layer {layer!r:.120}, which takes no factors here")
        _check_factors(layer, down, up, base_weight(weighted[layer]), max_rank=MAX_RANK)
    for layer, part in shared.residual.items():
        if layer not in weighted:
            _refuse(f"it changes layer {layer!r:.120}, which this model does not have")
        weight = base_weight(weighted[layer])
        if isinstance(part, Tensor):
            if part.shape != weight.shape:
                _refuse(f"{layer}: residual {tuple(part.shape)} on a weight {tuple(weight.shape)}")
        else:
            _check_factors(layer, *part, weight, max_rank=weight.numel())
    for name, tensor in shared.tensors().items():
        if not bool(tensor.isfinite().all()):
            _refuse(f"{name} holds values that are not finite")
        if not name.endswith(".residual") and float(tensor.abs().max()) > MAX_FACTOR_VALUE:
            _refuse(f"{name} holds values beyond {MAX_FACTOR_VALUE:g}")


def check_limits(pipe: "DiffusionPipeline", shared: SharedState, base_hash: str, limits: OwnerLimits) -> None:
    """Check a state of valid form against the owner's limits: t*, weights, and a public image.

    The image is checked last. The pipeline then holds the state's weights, or none if the image is refused.

    Args:
        pipe: Pipeline of the device.
        shared: Shared state that passed `check_form`.
        base_hash: Fingerprint of the pipeline's base model.
        limits: Limits of the owner.

    Raises:
        DeviceError: With STATE_REFUSED, if a limit is exceeded; the message names both values.
    """
    timestep = limits.boundary_timestep
    wanted = None if timestep is None else boundary_log_snr(pipe, timestep)
    found = shared.boundary_log_snr
    if (wanted is None) != (found is None) or not math.isclose(wanted or 0.0, found or 0.0, rel_tol=1e-9):
        _refuse(f"t* at log-SNR {found}: the owner's is {wanted} (timestep {timestep})")
    values = sum(down.numel() + up.numel() for down, up in shared.lora.values())
    most = limits.max_rank * sum(_values_per_rank(layer) for layer in adapted_layers(pipe).values())
    if values > most:
        _refuse(
            f"its factors have {values} values: at most {most}, those of rank {limits.max_rank} in the default layers"
        )
    for layer, change in weight_changes(pipe, shared).items():
        if not change <= limits.max_weight_change:
            _refuse(
                f"{layer} moves by {change:.3g} of its weights' norm, at most {limits.max_weight_change:g}"
            )
    change = picture_change(pipe, shared, base_hash)
    if not change <= limits.max_picture_change:
        remove(pipe, Stage.SHARED)
        _refuse(
            f"it changes a public picture by {change:.3g} standard deviations, at most "
            f"{limits.max_picture_change:g}"
        )


def weight_changes(pipe: "DiffusionPipeline", shared: SharedState) -> dict[str, float]:
    """Return an upper bound of the relative change of each layer's weights.

        (|R|_F + |s| |B A|_F) / |W0|_F

    For layers of very small weights, |W0|_F counts as if their root mean square were 1e-3.
    """
    layers = weighted_layers(pipe)
    moved: dict[str, float] = {}
    for layer, (down, up) in shared.lora.items():
        moved[layer] = abs(shared.adapter.scale) * _product_norm(down, up)
    for layer, part in shared.residual.items():
        norm = float(part.double().norm()) if isinstance(part, Tensor) else _product_norm(*part)
        moved[layer] = moved.get(layer, 0.0) + norm
    changes = {}
    for layer, norm in moved.items():
        weight = base_weight(layers[layer]).detach()
        least = _LEAST_WEIGHT * math.sqrt(weight.numel())
        changes[layer] = norm / max(float(weight.double().norm()), least)
    return changes


def picture_change(pipe: "DiffusionPipeline", shared: SharedState, base_hash: str) -> float:
    """Return the change of a public image's latents, in standard deviations of the base model's latents.

    The change is infinite if the state draws values that are not finite. Afterwards the pipeline holds the
    state.

    Raises:
        NotFinite: If the base model itself draws such values.
    """
    base = _probe(pipe, None, base_hash)
    try:
        drawn = _probe(pipe, shared, base_hash)
    except NotFinite:
        return math.inf
    change = float(((drawn - base).double() ** 2).mean().sqrt() / base.double().std().clamp(min=1e-6))
    return change if math.isfinite(change) else math.inf


def _probe(pipe: "DiffusionPipeline", shared: SharedState | None, base_hash: str) -> Tensor:
    if shared is None:
        return _base_probe(_Key(pipe, base_hash))
    install(pipe, shared)
    return _draw(pipe, base_hash, shared.boundary_log_snr)


class _Key:
    """A pipeline whose hash is that of its base model's fingerprint."""

    def __init__(self, pipe: "DiffusionPipeline", base_hash: str) -> None:
        self.pipe, self.base_hash = pipe, base_hash

    def __hash__(self) -> int:
        return hash(self.base_hash)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and (other.base_hash, other.pipe) == (self.base_hash, self.pipe)


@lru_cache(maxsize=1)
def _base_probe(key: _Key) -> Tensor:
    remove(key.pipe, Stage.SHARED)
    return _draw(key.pipe, key.base_hash, None)


def _draw(pipe: "DiffusionPipeline", base_hash: str, boundary: float | None) -> Tensor:
    plan = build_plan(
        pipe,
        num_inference_steps=PROBE_STEPS,
        guidance_scale=1.0,
        height=PROBE_PIXELS,
        width=PROBE_PIXELS,
        base_hash=base_hash,
        boundary_log_snr=boundary,
    )
    # personal steps run without the owner's adapter, since the probe concerns only what the server sent
    remove(pipe, Stage.PERSONAL)
    state = initial_state(pipe, plan, PROBE_SEED)
    conditioning: Mapping[str, Any] = {"prompt": PROBE_PROMPT}
    with torch.no_grad():
        state = run_stages(pipe, state, conditioning, plan, plan.num_steps)
    return state.latents.float().cpu()


def _check_factors(layer: str, down: Tensor, up: Tensor, weight: Tensor, *, max_rank: int) -> None:
    rank = down.shape[0] if down.dim() else 0
    fits = down.dim() == weight.dim() == up.dim() and up.shape[1] == rank and 1 <= rank <= max_rank
    # factors are stacked only while they have fewer elements than the weight (`low_rank.added`)
    fits = fits and down.numel() + up.numel() <= max(2 * weight.numel(), MAX_RANK * sum(weight.shape))
    if not fits or (*up.shape[:1], *down.shape[1:]) != tuple(weight.shape):
        _refuse(
            f"{layer}: factors {tuple(down.shape)} and {tuple(up.shape)} on a weight {tuple(weight.shape)}"
        )


def _values_per_rank(layer: Any) -> int:
    """Return the number of values of A and B for each rank."""
    weight = base_weight(layer)
    return len(weight) + weight[0].numel()


def _product_norm(down: Tensor, up: Tensor) -> float:
    """Return |B A|_F without computing the product.

        |B A|_F = sqrt(trace(B^T B A A^T))

    A and B are flattened to matrices.
    """
    a, b = down.double().flatten(1), up.double().flatten(1)
    return math.sqrt(max(float(((b.T @ b) * (a @ a.T)).sum()), 0.0))


def _refuse(why: str) -> None:
    raise DeviceError(Failure.STATE_REFUSED, f"the shared state is refused: {why}")
