"""Digests of everything besides weights and plan that decides the picture: configs, tokenizers, switches.

Two machines with the same weights draw other pictures if one has another tokenizer length, activation, scaling
factor of the decoder, FreeU, other attention, or a LoRA of its user. Each part has a digest of its own, so that a
difference is refused by name. What cannot matter is left out: paths, versions, devices, compile wrappers, offloading.
"""

import hashlib
import inspect
import json
import re
from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from torch import nn

from fedaigc.diffusion.sampling.pipeline_call import Pipeline
from fedaigc.diffusion.schedule.attention import attention_settings
from fedaigc.errors import UserError
from fedaigc.storage.bounded_json import read_json

_DIGITS = 16
_MAX_CHARACTERS = 8192
_PART, _DIGEST = re.compile("[a-z0-9_ ]{1,64}"), re.compile("[0-9a-f]{16}")
# how a component was stored or loaded, and settings that concern training or text generation alone
_HARMLESS = frozenset(
    [
        "architectures",
        "decoder_start_token_id",
        "dtype",
        "gradient_checkpointing",
        "initializer_factor",
        "initializer_range",
        "model_type",
        "name_or_path",
        "output_attentions",
        "problem_type",
        "requires_safety_checker",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    ]
)
_FREEU = ("s1", "s2", "b1", "b2")
_vocabularies: "WeakKeyDictionary[Any, tuple[int, str]]" = WeakKeyDictionary()


def model_settings(pipe: Pipeline) -> dict[str, str]:
    """Return a digest for each component of a pipeline but its scheduler's config, and one for its own settings.

    The scheduler's config is part of the plan. Its class is here, by its qualified name.
    """
    found = {"pipeline": _digest([_class_name(pipe), _own_settings(pipe)])}
    for name, component in sorted(pipe.components.items()):
        if component is None or name in ("safety_checker", "feature_extractor"):
            continue
        component = getattr(component, "_orig_mod", component)
        if name == "scheduler":
            found[name] = _digest(_class_name(component))
        elif hasattr(component, "get_vocab"):
            found[name] = _digest(_tokenizer(component))
        elif hasattr(component, "config"):
            found[name] = _digest([_class_name(component), _config(component)])
        if isinstance(component, nn.Module):
            switches = _switches(component)
            if switches:
                found[f"{name} switches"] = _digest(switches)
    return found


def to_text(settings: Mapping[str, str]) -> str:
    """Return settings as canonical JSON."""
    return json.dumps(dict(settings), sort_keys=True, separators=(",", ":"))


def read_settings(text: Any) -> dict[str, str]:
    """Return the settings of `to_text`; none for "".

    Raises:
        UserError: If the text is not a JSON object of digests.
    """
    if text == "":
        return {}
    try:
        values = read_json(text, max_characters=_MAX_CHARACTERS) if type(text) is str else None
    except ValueError:
        values = None
    if not isinstance(values, dict) or not all(
        _PART.fullmatch(name) and type(value) is str and _DIGEST.fullmatch(value)
        for name, value in values.items()
    ):
        raise UserError(f"the settings of the plan are {text!r:.80}: expected digests by name")
    return values


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """Return the names of the parts that differ, sorted. A part that one of them lacks differs."""
    return sorted(name for name in here.keys() | there.keys() if here.get(name) != there.get(name))


def _class_name(value: Any) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _own_settings(pipe: Pipeline) -> dict[str, Any]:
    parts = pipe.components.keys()
    return {
        name: value
        for name, value in pipe.config.items()
        if name not in parts and not name.startswith("_") and name not in _HARMLESS
    }


def _config(component: Any) -> dict[str, Any]:
    """Return a component's config without what equals its default, so that a later default changes nothing."""
    config = component.config
    if hasattr(config, "to_diff_dict"):  # transformers
        values = config.to_diff_dict()
    else:
        defaults = {
            name: each.default for name, each in inspect.signature(type(component)).parameters.items()
        }
        values = {
            name: value
            for name, value in dict(config).items()
            if _plain(value) != _plain(defaults.get(name, inspect.Parameter.empty))
        }
    return _without_harmless(values)


def _without_harmless(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: _without_harmless(value) if isinstance(value, Mapping) else value
        for name, value in values.items()
        if not name.startswith("_") and name not in _HARMLESS
    }


def _tokenizer(tokenizer: Any) -> list[Any]:
    vocabulary = tokenizer.get_vocab()
    kept = _vocabularies.get(tokenizer)
    if kept is None or kept[0] != len(vocabulary):
        kept = (len(vocabulary), _digest(sorted(vocabulary.items())))
        _vocabularies[tokenizer] = kept
    return [
        kept[1],
        tokenizer.model_max_length,
        tokenizer.padding_side,
        tokenizer.truncation_side,
        {name: str(value) for name, value in tokenizer.special_tokens_map.items()},
        str(getattr(tokenizer, "chat_template", None)),
    ]


def _switches(network: nn.Module) -> list[Any]:
    """Return what was switched on in a network since it was loaded: FreeU, caches, attention, and LoRA of its user."""
    found = attention_settings(network)
    for name, part in network.named_modules():
        factors = [getattr(part, each, None) for each in _FREEU]
        if any(isinstance(each, int | float) for each in factors):
            found.append([name, "FreeU", factors])
        for hook in getattr(getattr(part, "_diffusers_hook", None), "hooks", {}):
            if "offload" not in hook and "casting" not in hook:
                found.append([name, hook])
        active = getattr(part, "active_adapters", None)
        if active is not None and hasattr(part, "lora_A") and not getattr(part, "disable_adapters", False):
            own = [each for each in active if each not in ("shared", "personal")]
            found += [[name, each, float(part.scaling[each])] for each in own if each in part.scaling]
    return found


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]
