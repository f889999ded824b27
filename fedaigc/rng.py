"""Seeded, independent random streams: randomness is an argument, never module state."""

import hashlib

import numpy as np
import torch

# torch.Generator.get_state() of a CPU generator: three numbers of 24 bytes, the 624 words of the Mersenne
# twister as 8 bytes each, and what it keeps for normals that come in pairs
_STATE_BYTES = 5056
_WORDS = slice(24, 24 + 624 * 8)


def derived_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed that depends on `seed` and every name, whatever else was drawn before."""
    text = "\x1f".join([str(seed), *(str(name) for name in names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def rng(seed: int, *names: str | int) -> torch.Generator:
    """An independent CPU torch generator for the stream (seed, names...), e.g. rng(0, "noise", task_id)."""
    return torch.Generator().manual_seed(derived_seed(seed, *names))


def numpy_rng(seed: int, *names: str | int) -> np.random.Generator:
    """The numpy counterpart of `rng`."""
    return np.random.default_rng(derived_seed(seed, *names))


def noise_generator(noise_seed: int) -> torch.Generator:
    """The CPU torch generator of a noise seed, from -2^63 to 2^64 - 1.

    noise_seed >= 0: `torch.Generator().manual_seed(noise_seed)`, as the stock pipelines are seeded. PyTorch
    takes the low 32 bits of it alone, so whoever sees latents near the noise can find it among 2^32.
    noise_seed < 0: all of it counts; the whole state of the generator is the SHAKE-256 of the seed.
    """
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
    """The negative noise seed of a `derived_seed`, all 63 bits of which count."""
    return -1 - noise_seed
