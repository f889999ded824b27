"""What of a network's attention processors decides the picture.

The stock processors of diffusers compute the same attention in other ways (fused, sliced, by another kernel), and their
results differ by rounding only, as those of two processors of machines do. Which of them a layer has is left out.
"""

from typing import Any

from torch import nn

# stock processors that compute something else than their layer does by default
_OTHER_RESULT = ("PAG", "IPAdapter", "CustomDiffusion", "CrossFrame")
# kernels with integers of 8 bits
_COARSE_KERNEL = "sage"
_HARMLESS = frozenset(["attention_op", "slice_size", "training"])


def attention_settings(network: nn.Module) -> list[Any]:
    """Return the layers of a network whose attention is not the stock one: name, processor, its plain values.

    These are processors from outside of diffusers, stock ones with another result (IP-Adapter, perturbed attention),
    and kernels that round coarsely. Weights of processors are part of the base model's fingerprint.
    """
    found: list[Any] = []
    for name, part in network.named_modules():
        processor = getattr(part, "processor", None)
        if processor is None:
            continue
        kind = type(processor)
        kernel = getattr(processor, "_attention_backend", None)
        kernel = str(getattr(kernel, "value", kernel))
        if _COARSE_KERNEL in kernel:
            found.append([name, kernel])
        stock = kind.__module__.partition(".")[0] == "diffusers"
        if not stock or any(each in kind.__qualname__ for each in _OTHER_RESULT):
            found.append([name, f"{kind.__module__}.{kind.__qualname__}", _plain_values(processor)])
    return found


def _plain_values(processor: Any) -> dict[str, Any]:
    """Return the attributes of a processor that are numbers, text, or lists of them, such as the scale of a picture."""
    return {
        name: value
        for name, value in sorted(vars(processor).items())
        if not name.startswith("_") and name not in _HARMLESS and _is_plain(value)
    }


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)
