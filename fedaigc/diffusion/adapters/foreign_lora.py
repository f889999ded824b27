"""Read LoRA files of other tools: names, ranks and scales of each layer, and refusal of all that is no LoRA.

Only s B A of linear and convolutional layers of the denoiser can be applied, with a scale s of each layer's own.
Whatever else a file holds is refused by the name of the feature, since leaving it out would draw other pictures.
"""

import inspect
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedaigc.diffusion.adapters.state import Factors
from fedaigc.errors import UserError
from fedaigc.storage.tensor_file import read_tensors

PEFT_CONFIG, PEFT_FILE = "adapter_config.json", "adapter_model.safetensors"
# among the metadata of the weight file: the adapter's configuration, under diffusers' own key, and our base
CONFIG_KEY = "lora_adapter_metadata"
BASE_KEY = "fedaigc_base_model"
_PEFT_PREFIX = "base_model.model."
# parts of the names of tensors that belong to something else than a LoRA of linear and convolutional layers
_FEATURES = {
    r"dora_scale|lora_magnitude": "DoRA",
    r"lokr_": "LoKr",
    r"hada_": "LoHa",
    r"oft_|boft_": "OFT",
    r"vera_": "VeRA",
    r"ia3_|on_input": "IA3",
    r"lora_mid": "a Tucker decomposition (lora_mid)",
    r"lora_embedding": "an embedding",
    r"\.diff(_b)?$": "whole weights (diff)",
    r"(lora_B|lora_up|lora\.up|_lora\.up).*\.bias$": "a bias of its factors (lora_bias)",
    r"\.bias$": "biases of the model",
    r"^(text_encoder|lora_te)": "a text encoder",
}
# of peft's configuration: what acts in training only, or what the tensors and their names say
_HARMLESS = frozenset(
    [
        *("peft_type", "peft_version", "auto_mapping", "base_model_name_or_path", "revision", "task_type"),
        *(
            "inference_mode",
            "r",
            "target_modules",
            "exclude_modules",
            "lora_alpha",
            "lora_dropout",
            "use_rslora",
        ),
        *("rank_pattern", "alpha_pattern", "layers_to_transform", "layers_pattern", "runtime_config"),
        *("eva_config", "megatron_core", "qalora_group_size", "init_lora_weights"),
    ]
)
# these change W0 too when training begins
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


class ForeignLora:
    """What a LoRA file holds for the denoiser.

    Attributes:
        factors: A and B of each layer in float32.
        alphas: The alpha of each layer's scale s = alpha / rank.
        base: Fingerprint of the base model that the file names, if any.

    Args:
        pipe: The pipeline that the LoRA is for.
        file: The safetensors file.
        part: "unet" or "transformer".
        what: The folder or file as the user named it, for messages.

    Raises:
        UserError: If the file is no LoRA of this part alone, or of a kind that cannot be applied exactly.
    """

    def __init__(self, pipe: Any, file: Path, part: str, what: str) -> None:
        self._what = what
        metadata, tensors = read_tensors(file)
        self._check_features(tensors)
        self.base = metadata.get(BASE_KEY)
        try:
            state, alphas, config = _converted(pipe, file, part, metadata, tensors)
        except (OSError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise UserError(f"{what} is not a LoRA folder for {type(pipe).__name__}: {error}") from None
        self._check_features(state)
        foreign = sorted(name for name in state if not name.startswith(f"{part}."))
        if foreign:
            raise UserError(f"{what} moves {foreign[0]}, only {part}.* can be adapted")
        own = {
            name.removeprefix(f"{part}."): value
            for name, value in config.items()
            if name.startswith(f"{part}.")
        }
        self._check_config(own)
        self.factors = self._factors({name.removeprefix(f"{part}."): value for name, value in state.items()})
        given = {_layer(name, part): value for name, value in alphas.items()}
        self.alphas = self._alphas(own, given)

    def _check_features(self, names: Mapping[str, Any]) -> None:
        for pattern, feature in _FEATURES.items():
            found = next((name for name in sorted(names) if re.search(pattern, name)), None)
            if found is not None:
                advice = (
                    "train it without the text encoders"
                    if feature == "a text encoder"
                    else "merge it into the base model, or train an ordinary LoRA"
                )
                raise UserError(
                    f"{self._what} is not an ordinary LoRA of the denoiser: it has {feature} ({found!r:.120}); {advice}"
                )

    def _check_config(self, config: Mapping[str, Any]) -> None:
        # what is off or empty has no effect
        active = {
            name: value for name, value in config.items() if value not in (None, False, "none", [], {}, ())
        }
        kind = active.get("peft_type", "LORA")
        if str(kind).rpartition(".")[2] != "LORA":
            raise UserError(f"{self._what} is of the peft_type {kind!r:.40}: only LORA can be adapted")
        start = active.get("init_lora_weights", True)
        if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
            raise UserError(
                f"{self._what} was trained with init_lora_weights = {start!r:.40}, which changes the base model "
                "too: save it with peft's `path_initial_model_for_weight_conversion`, as an ordinary LoRA"
            )
        unknown = sorted(active.keys() - _HARMLESS)
        if unknown:
            shown = ", ".join(f"{name} = {active[name]!r:.60}" for name in unknown)
            raise UserError(f"{self._what} is not an ordinary LoRA: it was trained with {shown}")

    def _factors(self, state: Mapping[str, Tensor]) -> dict[str, Factors]:
        kinds: dict[str, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            for kind in ("lora_A", "lora_B"):
                layer, marker, rest = name.partition(f".{kind}.weight")
                if marker and not rest:
                    kinds.setdefault(layer, {})[kind] = tensor.to(torch.float32)
                    break
            else:
                raise UserError(
                    f"{self._what} holds {name!r}, expected names that end in .lora_A.weight or .lora_B.weight"
                )
        for layer, parts in kinds.items():
            if len(parts) < 2:
                raise UserError(
                    f"{self._what} has only {next(iter(parts))} of layer {layer!r}, expected lora_A and lora_B"
                )
            if not all(bool(tensor.isfinite().all()) for tensor in parts.values()):
                raise UserError(f"{self._what} has values of layer {layer!r} that are not finite")
        if not kinds:
            raise UserError(f"{self._what} holds no LoRA factors")
        return {layer: (parts["lora_A"], parts["lora_B"]) for layer, parts in kinds.items()}

    def _alphas(self, config: Mapping[str, Any], alphas: Mapping[str, float]) -> dict[str, float]:
        from peft.utils.other import get_pattern_key

        wrong = sorted(alphas.keys() ^ self.factors.keys()) if alphas else []
        if wrong:
            held = (
                "an alpha without factors"
                if wrong[0] in alphas
                else "factors without an alpha, as others have"
            )
            raise UserError(f"{self._what}: layer {wrong[0]!r} has {held}")
        found = {}
        for layer, (down, _) in self.factors.items():
            rank = down.shape[0] if down.dim() else 0
            patterns = config.get("alpha_pattern") or {}
            alpha = alphas.get(
                layer, patterns.get(get_pattern_key(list(patterns), layer), config.get("lora_alpha"))
            )
            if alpha is None:
                alpha = rank
            if not isinstance(alpha, int | float) or not math.isfinite(alpha):
                raise UserError(
                    f"{self._what}: the alpha of layer {layer!r} is {alpha!r:.40}, expected a number"
                )
            # s = alpha / sqrt(rank) under use_rslora
            found[layer] = float(alpha) * (math.sqrt(rank) if config.get("use_rslora") else 1)
        return found


def lora_files(pipe: Any, part: str) -> Any:
    """Return what reads and writes LoRA files of a pipeline: the pipeline, or the form of diffusers' transformers.

    Some pipelines with a transformer have no methods for LoRA files. Theirs then have that form, which peft reads.

    Raises:
        UserError: If there is neither.
    """
    if f"{part}_lora_layers" in inspect.signature(getattr(pipe, "save_lora_weights", id)).parameters:
        return pipe
    if part != "transformer":
        raise UserError(f"{type(pipe).__name__} cannot write LoRA folders")
    from diffusers.loaders.lora_pipeline import SanaLoraLoaderMixin

    return SanaLoraLoaderMixin


def _converted(
    pipe: Any, file: Path, part: str, metadata: Mapping[str, str], tensors: dict[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, float], dict[str, Any]]:
    """Return factors under peft's names and the alphas, both with the part before the layer, and the configuration."""
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    if file.name == PEFT_FILE:
        given = json.loads((file.parent / PEFT_CONFIG).read_text(encoding="utf-8"))
        config = {f"{part}.{name}": value for name, value in dict(given).items()}
        return (
            {f"{part}.{name.removeprefix(_PEFT_PREFIX)}": value for name, value in tensors.items()},
            {},
            config,
        )
    _check_pairs(tensors)
    config = dict(json.loads(metadata.get(CONFIG_KEY, "{}")))
    options = {"unet_config": pipe.unet.config} if part == "unet" else {"return_alphas": True}
    found = lora_files(pipe, part).lora_state_dict(dict(tensors), return_lora_metadata=True, **options)
    alphas = {name: float(value) for name, value in ((found[1] if len(found) == 3 else None) or {}).items()}
    # beside factors under names of diffusers or peft, some tools store an alpha of each layer
    state = dict(found[0])
    alphas |= {name: float(state.pop(name)) for name in sorted(state) if name.endswith(".alpha")}
    if any("lora_A" not in name for name in state):
        state = convert_unet_state_dict_to_peft(state)
    return state, alphas, config


def _check_pairs(tensors: Mapping[str, Tensor]) -> None:
    """Raise ValueError for a factor without its partner, before a converter fails on it."""
    for first, second in (("lora_down", "lora_up"), ("lora_up", "lora_down")):
        for name in tensors:
            if f".{first}." in name and name.replace(f".{first}.", f".{second}.") not in tensors:
                raise ValueError(f"it has {name!r} without its partner {second}")


def _layer(name: str, part: str) -> str:
    """Return the layer that an alpha belongs to."""
    from diffusers.utils.state_dict_utils import convert_unet_state_dict_to_peft

    (converted,) = convert_unet_state_dict_to_peft(
        {name.removesuffix(".alpha").removeprefix(f"{part}."): None}
    )
    return str(converted).partition(".lora_A")[0]


def of_one_rank(
    factors: Mapping[str, Factors], alphas: Mapping[str, float]
) -> tuple[dict[str, Factors], int, float]:
    """Return the same changes s B A with one rank and one alpha, as an `Adapter` has them.

    Where they differ, smaller factors get rows and columns of zeros, and scales go into B.

    Args:
        factors: A and B of each layer.
        alphas: The alpha of each layer.

    Returns:
        The factors, the rank and the alpha.
    """
    ranks = {down.shape[0] for down, _ in factors.values()}
    rank = max(ranks)
    if len(ranks) == 1 and len(set(alphas.values())) == 1:
        return dict(factors), rank, next(iter(alphas.values()))
    found = {}
    for layer, (down, up) in factors.items():
        own = down.shape[0]
        wide_down = torch.cat([down, down.new_zeros(rank - own, *down.shape[1:])])
        none = up.new_zeros(up.shape[0], rank - own, *up.shape[2:])
        found[layer] = (wide_down, torch.cat([up * (alphas[layer] / own), none], dim=1))
    return found, rank, float(rank)
