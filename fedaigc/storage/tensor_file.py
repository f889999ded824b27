"""Tensors from files and messages, in memory that starts on a cache line.

The matrix kernels of CPU libraries take another path, and round differently in the last bit, where their
operands do not start on a cache line. A file that is mapped into memory, or a message, puts tensors wherever
their bytes happen to lie; torch's own memory is always aligned. So equal values give equal results bit for
bit only when both are.
"""

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fedaigc.errors import DamagedFile, UserError

CACHE_LINE_BYTES = 64


def aligned(tensor: Tensor) -> Tensor:
    """The tensor itself where its memory starts on a cache line; else a copy that does."""
    return tensor if tensor.data_ptr() % CACHE_LINE_BYTES == 0 else tensor.clone()


@torch.no_grad()
def align(module: nn.Module) -> None:
    """Move every parameter and buffer of a module to memory that starts on a cache line."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.data = aligned(tensor.data)


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a safetensors file.

    Raises UserError when it is not there, DamagedFile when it cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            return metadata, {name: aligned(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
    except OSError as error:
        raise UserError(f"no tensor file {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise DamagedFile(f"the tensor file {path} is damaged: {error}") from None
