"""Measure on this machine whether the divided runs of a pipeline equal its stock call, bit for bit."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fedaigc.counting import counted
from fedaigc.diffusion.adapters.bare import check_bare, installed_adapters, make_bare
from fedaigc.diffusion.handoff.packing import pack, unpack
from fedaigc.diffusion.loading import base_fingerprint
from fedaigc.diffusion.sampling.kept_values import kept_between_steps
from fedaigc.diffusion.sampling.observed_call import as_tuple
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, call_arguments, denoiser, dtype_name
from fedaigc.diffusion.sampling.segment import initial_state, outputs_from, run_segment
from fedaigc.diffusion.schedule.plan import DenoisingPlan, build_plan
from fedaigc.diffusion.schedule.stock_schedule import canonical_config
from fedaigc.errors import UserError
from fedaigc.rng import noise_generator
from fedaigc.storage.atomic_file import write_json

PROMPT = "an apple on a table"
# the tests run these divided at every step (docs/models.md)
PROVEN = frozenset(
    {
        "AuraFlowPipeline",
        "BriaPipeline",
        "ChromaPipeline",
        "CogView3PlusPipeline",
        "CogView4ControlPipeline",
        "CogView4Pipeline",
        "Flux2KleinPipeline",
        "Flux2Pipeline",
        "FluxControlNetPipeline",
        "FluxControlPipeline",
        "FluxKontextPipeline",
        "FluxPipeline",
        "GlmImagePipeline",
        "HiDreamImagePipeline",
        "HunyuanDiTPAGPipeline",
        "HunyuanDiTPipeline",
        "HunyuanImagePipeline",
        "IFPipeline",
        "Kandinsky3Pipeline",
        "Kandinsky5T2IPipeline",
        "KandinskyV22CombinedPipeline",
        "KolorsPAGPipeline",
        "KolorsPipeline",
        "Krea2Pipeline",
        "LDMTextToImagePipeline",
        "LTXPipeline",
        "LatentConsistencyModelPipeline",
        "Lumina2Pipeline",
        "LuminaPipeline",
        "NucleusMoEImagePipeline",
        "OvisImagePipeline",
        "PRXPipeline",
        "PixArtAlphaPipeline",
        "PixArtSigmaPAGPipeline",
        "PixArtSigmaPipeline",
        "QwenImage21Pipeline",
        "QwenImageControlNetPipeline",
        "QwenImageEditPipeline",
        "QwenImagePipeline",
        "SanaPAGPipeline",
        "SanaPipeline",
        "SanaSprintPipeline",
        "StableDiffusion3ControlNetPipeline",
        "StableDiffusion3PAGPipeline",
        "StableDiffusion3Pipeline",
        "StableDiffusionControlNetPAGPipeline",
        "StableDiffusionControlNetPipeline",
        "StableDiffusionInpaintPipeline",
        "StableDiffusionPAGPipeline",
        "StableDiffusionPipeline",
        "StableDiffusionXLControlNetPAGPipeline",
        "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetUnionPipeline",
        "StableDiffusionXLInpaintPipeline",
        "StableDiffusionXLPAGPipeline",
        "StableDiffusionXLPipeline",
        "WanPipeline",
        "ZImageControlNetInpaintPipeline",
        "ZImageControlNetPipeline",
        "ZImageOmniPipeline",
        "ZImagePipeline",
    }
)
_SEED = 5
# latents that change by less from step to step could hide a missing step
_LEAST_CHANGE = 1e-4


class _StockCallFails(UserError):
    """The pipeline itself fails, for a reason that may pass (a package, another machine): no result is kept."""


@dataclass(frozen=True)
class Split:
    """A run that was divided at one step.

    Attributes:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        step: The hand-off step K.
        difference: Size of the difference to the stock call, relative to its latents. 0: equal bit for bit.
    """

    height: int
    width: int
    step: int
    difference: float


@dataclass(frozen=True)
class Exactness:
    """What `check` measured.

    Attributes:
        pipeline: The class of the pipeline.
        scheduler: The class of its scheduler.
        dtype: The dtype of the denoiser.
        splits: The divided runs.
        reason: Why a run cannot be divided, None if every one was.
    """

    pipeline: str
    scheduler: str
    dtype: str
    splits: tuple[Split, ...]
    reason: str | None = None

    @property
    def exact(self) -> bool:
        """Whether every divided run equals the stock call bit for bit."""
        return self.reason is None and bool(self.splits) and all(each.difference == 0 for each in self.splits)

    def __str__(self) -> str:
        name = f"{self.pipeline}, {self.scheduler}, {self.dtype}"
        if self.reason is not None:
            return f"{name}: not exact: {self.reason}"
        if self.exact:
            return f"{name}: exact at {counted(len(self.splits), 'split')}"
        wrong = ", ".join(
            f"{each.difference:.1e} at step {each.step} of {each.height} x {each.width}"
            for each in self.splits
            if each.difference
        )
        return f"{name}: not exact: off by {wrong}"


def check(
    pipe: Pipeline,
    *,
    num_inference_steps: int = 4,
    guidance_scale: float = 5.0,
    sizes: Sequence[tuple[int, int]] | None = None,
    arguments: Mapping[str, Any] | None = None,
    conditioning: Mapping[str, Any] | None = None,
    cache: Path | None = None,
) -> Exactness:
    """Run a pipeline divided and undivided, and compare the results bit for bit.

    The undivided run is the stock pipeline's own call. The divided ones are handed over by packets, at three
    steps in each of two sizes. In all, this takes about 7 times as long as one image.

    Example:
        >>> import fedaigc as fa
        >>> fa.check(fa.load_pipeline()).exact
        True

    Args:
        pipe: The pipeline, without adapters.
        num_inference_steps: The argument of the pipeline call.
        guidance_scale: The argument of the pipeline call.
        sizes: Heights and widths in pixels. None: half of the pipeline's own size, square and wide.
        arguments: As in `build_plan`.
        conditioning: Arguments that stand for the prompt, for a pipeline that needs more than a prompt.
        cache: Folder that keeps the result for the same model, libraries and settings. None: none.

    Returns:
        The result. A pipeline that cannot be divided has a `reason`.

    Raises:
        UserError: If adapters are installed in the pipeline.
    """
    check_bare(pipe)
    settings: dict[str, Any] = {
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "arguments": dict(arguments or {}),
    }
    tried = list(sizes) if sizes is not None else _two_sizes(pipe)
    file = None
    if cache is not None and conditioning is None:
        file = cache / f"{_key(pipe, settings, tried)}.json"
        if file.is_file():
            return _read(file)
    splits: list[Split] = []
    reason = None
    try:
        keeps = kept_between_steps(pipe)
        if keeps is not None:
            raise UserError(f"{type(pipe).__name__} cannot be divided: {keeps}")
        for height, width in tried:
            splits += _splits(pipe, settings, height, width, conditioning or {"prompt": PROMPT})
    except UserError as error:
        reason = str(error)
        if isinstance(error, _StockCallFails):
            file = None
    result = Exactness(
        type(pipe).__name__, type(pipe.scheduler).__name__, dtype_name(pipe), tuple(splits), reason
    )
    if file is not None:
        write_json(file, asdict(result))
    return result


# what was measured of a pipeline in this process
_measured: "WeakKeyDictionary[Pipeline, Exactness]" = WeakKeyDictionary()


def prove_divisible(pipe: Pipeline, *, guidance_scale: float, height: int, width: int) -> None:
    """Refuse a pipeline whose divided runs are not equal to its stock call on this machine.

    The pipelines of `PROVEN` are not measured again. Others are measured once, in a size, before adapters are
    installed in them. The result is kept in `default_cache`.

    Args:
        pipe: The pipeline.
        guidance_scale: The argument of the pipeline call.
        height: Height of the image in pixels.
        width: Width of the image in pixels.

    Raises:
        UserError: If a divided run differs from the stock call, or cannot be made.
    """
    if _is_tested(pipe) or (pipe not in _measured and installed_adapters(pipe)):
        return
    if pipe not in _measured:
        _measured[pipe] = check(
            pipe, guidance_scale=guidance_scale, sizes=[(height, width)], cache=default_cache()
        )
    if not _measured[pipe].exact:
        raise UserError(f"{_measured[pipe]}; docs/models.md lists pipelines that can be divided")


def prove_plan(pipe: Pipeline, plan: DenoisingPlan) -> None:
    """Prove a pipeline divisible in the size of a plan, as `prove_divisible` does, and take adapters out before.

    Raises:
        UserError: As `prove_divisible`.
    """
    if _is_tested(pipe) or (pipe in _measured and _measured[pipe].exact):
        return
    make_bare(pipe)
    prove_divisible(pipe, guidance_scale=plan.guidance_scale, height=plan.height, width=plan.width)


def _is_tested(pipe: Pipeline) -> bool:
    return type(pipe).__module__.startswith("diffusers.") and type(pipe).__name__ in PROVEN


def default_cache() -> Path:
    """Return the folder of this user in which results of `check` are kept."""
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "fedaigc" / "exactness"


def _splits(
    pipe: Pipeline, settings: Mapping[str, Any], height: int, width: int, conditioning: Mapping[str, Any]
) -> list[Split]:
    plan = build_plan(pipe, **settings, height=height, width=width, base_hash="", conditioning=conditioning)
    stock, again = (_stock(pipe, plan, conditioning) for _ in range(2))
    if not torch.equal(stock, again):
        raise UserError(
            f"{type(pipe).__name__} gives another result at each call with the same seed: it cannot be divided"
        )
    state = initial_state(pipe, plan, _SEED, conditioning=conditioning)
    shape = tuple(state.latents.shape)
    packets = {}
    for step in sorted({1, plan.num_steps // 2, plan.num_steps - 1} & set(range(1, plan.num_steps))):
        before = state.latents
        state = run_segment(pipe, state, conditioning, plan, step)
        if _difference(state.latents, before) < _LEAST_CHANGE:
            raise UserError(
                f"the latents hardly change until step {step}: this run cannot show whether it is divided rightly"
            )
        packets[step] = pack(state, plan, noise_stream=True)
    found = []
    # after all first parts, so that nothing that the pipeline keeps of one reaches its second part
    for step, packet in packets.items():
        received = unpack(packet, plan, shape=shape)
        end = _as_tensor(outputs_from(pipe, received, conditioning, plan))
        found.append(Split(height, width, step, _difference(end, stock)))
    return found


def _stock(pipe: Pipeline, plan: DenoisingPlan, conditioning: Mapping[str, Any]) -> Tensor:
    call = call_arguments(pipe, conditioning, **plan.call)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(_SEED)
        try:
            output = pipe(**call, generator=noise_generator(_SEED), output_type="latent", return_dict=False)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise _StockCallFails(f"the stock call of {type(pipe).__name__} fails: {reason:.300}") from error
    return _as_tensor(as_tuple(output)[0]).clone()


def _as_tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, list | tuple):
        return torch.stack([_as_tensor(item) for item in value])
    import numpy as np

    return torch.from_numpy(np.array(value))


def _difference(value: Tensor, reference: Tensor) -> float:
    """Return the size of a difference, relative to the reference, and infinity for another shape or NaN."""
    if value.shape != reference.shape:
        return math.inf
    if torch.equal(value, reference):
        return 0.0
    found = float((value.double() - reference.double()).norm() / reference.double().norm())
    return found if math.isfinite(found) else math.inf


def _two_sizes(pipe: Pipeline) -> list[tuple[int, int]]:
    """Return half of the pipeline's own size, in multiples of 32 pixels where it is large: square and wide."""
    network: Any = denoiser(pipe)
    own = getattr(pipe, "default_sample_size", None) or network.config.get("sample_size") or 64
    factor = int(getattr(pipe, "vae_scale_factor", 8))
    side = int(own[0] if isinstance(own, list | tuple) else own) * factor
    # a multiple of 8, which pipelines require even where their autoencoder scales by less
    unit = 32 if side >= 128 else -(-2 * factor // 8) * 8
    half = max(unit, side // 2 // unit * unit)
    return [(half, half), (half, half + unit)]


def _key(pipe: Pipeline, settings: Mapping[str, Any], sizes: Sequence[tuple[int, int]]) -> str:
    import diffusers
    import transformers

    parts = {
        "base": base_fingerprint(pipe),
        "pipeline": f"{type(pipe).__module__}.{type(pipe).__qualname__}",
        "scheduler": f"{type(pipe.scheduler).__module__}.{canonical_config(pipe.scheduler)}",
        "versions": [torch.__version__, diffusers.__version__, transformers.__version__],
        "device": str(pipe._execution_device),
        "threads": torch.get_num_threads(),
        "settings": settings,
        "sizes": sizes,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _read(file: Path) -> Exactness:
    values = json.loads(file.read_text(encoding="utf-8"))
    return Exactness(**{**values, "splits": tuple(Split(**each) for each in values["splits"])})
