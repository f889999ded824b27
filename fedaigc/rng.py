r"""Seeded, independent random streams: randomness is an argument, never module state.

A run draws from two seeds. Those of the server (`FederationConfig.seed`): initial factors, sampled clients,
dropouts, rounding on the wire, noise of groups and of tasks that run alone, the simulated link, and what
strategies draw. Those of each device (`Home.open`): its images' order, timesteps, noise and new factors in
training, and its task ids; in a simulation, a home that was made without a seed trains with one that follows
from the server's. `grep -rn "rng(\|derived_seed("` lists them all.

Not from any seed: the noise of differential privacy (`strategy.secret_noise`), noise seeds of groups on
separate machines (`collaboration.planner`), and the seed of a home that is opened without one.
"""

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# torch.Generator.get_state() of a CPU generator: 24 bytes for three numbers, the 624 words of the Mersenne
# Twister as 8 bytes each, and the cache for normals, which are drawn in pairs
_STATE_BYTES = 5056
_WORDS = slice(24, 24 + 624 * 8)


def derived_seed(seed: int, *names: str | int) -> int:
    """Derive a 63-bit seed from `seed` and every name.

    The result does not depend on what was drawn before.

    Args:
        seed: Base seed.
        *names: Parts of the name of the random stream, in order.

    Returns:
        A non-negative integer below 2^63.
    """
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *names: str | int) -> "torch.Generator":
    """Return an independent CPU torch generator for a stream, e.g. rng(0, "noise", task_id).

    Args:
        seed: Base seed.
        *names: Parts of the name of the random stream, in order.
    """
    import torch

    return torch.Generator().manual_seed(derived_seed(seed, *names))


def numpy_rng(seed: int, *names: str | int) -> np.random.Generator:
    """Return an independent NumPy generator for a stream: the NumPy counterpart of `rng`."""
    return np.random.default_rng(derived_seed(seed, *names))


def noise_generator(noise_seed: int) -> "torch.Generator":
    """Return the CPU torch generator of a noise seed.

    A non-negative seed gives `torch.Generator().manual_seed(noise_seed)`, as the stock pipelines are seeded.
    PyTorch uses only the low 32 bits of it, so anyone who sees latents near the noise can find the seed among
    2^32 candidates. All bits of a negative seed count: the SHAKE-256 digest of the seed sets all words of the
    generator's state.

    Args:
        noise_seed: From -2^63 to 2^64 - 1.

    Raises:
        RuntimeError: If the generator's state does not have the expected size.
    """
    import torch

    generator = torch.Generator()
    if noise_seed >= 0:
        return generator.manual_seed(noise_seed)
    state = generator.manual_seed(0).get_state().numpy()
    if state.size != _STATE_BYTES:
        raise RuntimeError(f"the generator's state has {state.size} bytes, expected {_STATE_BYTES}")
    words = np.frombuffer(hashlib.shake_256(f"noise\x1f{noise_seed}".encode()).digest(624 * 4), "<u4")
    state[_WORDS] = words.astype(np.uint64).view(np.uint8)
    generator.set_state(torch.from_numpy(state))
    return generator


def wide_noise_seed(noise_seed: int) -> int:
    """Return the negative noise seed of a `derived_seed`; all of its 63 bits count."""
    return -1 - noise_seed
