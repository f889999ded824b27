"""Differential privacy of the clients' mean, by Flower's wrappers around its FedAvg.

Options of a Flower strategy that starts from the mean: `dp` ("server-fixed", "client-fixed",
"server-adaptive" or "client-adaptive": who clips, and whether the norm adapts), `noise_multiplier` z,
`clipping_norm` C (the first one where it adapts), and for adaptive clipping `target_clipped_quantile`,
`clip_norm_lr` and `clipped_count_stddev`. For the updates d_k of K clients

    x = x_global + (1 / K) sum_k d_k min(1, C / |d_k|) + N(0, (z C / K)^2)

(McMahan et al. 2018, arXiv:1710.06963; adaptive: Andrew et al. 2021, arXiv:1905.03871). Three things differ
from wrapping a strategy directly. All clients count alike: the noise is scaled for a weight of 1/K, and with
n_k one client would move the mean by more. A server optimizer works on the private mean: Flower's wrapper
would add the noise after its step, of which C / K bounds nothing. K is the number of updates that came.

This is central privacy: the server is trusted, and so are clients that clip; n_k and losses are outside it.
It does not hold for an update that a lossy number format rounded after it was clipped.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from flwr.app import ArrayRecord, ConfigRecord, Message
from flwr.serverapp import strategy as flower
from flwr.supercore.differential_privacy import (
    KEY_CLIPPING_NORM,
    KEY_NORM_BIT,
    compute_adaptive_clip_model_update,
    compute_clip_model_update,
)
from torch import Tensor

from fedaigc.federation.local_grid import LocalGrid
from fedaigc.federation.rule import Received
from fedaigc.federation.validation import nearest
from fedaigc.rng import numpy_rng

NORM_BIT = KEY_NORM_BIT
WEIGHT = "num-examples"
# our loop draws the clients and sends the messages: Flower's has no node to draw, and waits for none
NO_NODES = LocalGrid(lambda message, context: message, num_clients=0, run_config={}, run_id=0)
OWN_LOOP: Mapping[str, Any] = {"min_train_nodes": 0, "min_evaluate_nodes": 0, "min_available_nodes": 0}

_WRAPPERS: dict[str, type[Any]] = {
    "server-fixed": flower.DifferentialPrivacyServerSideFixedClipping,
    "client-fixed": flower.DifferentialPrivacyClientSideFixedClipping,
    "server-adaptive": flower.DifferentialPrivacyServerSideAdaptiveClipping,
    "client-adaptive": flower.DifferentialPrivacyClientSideAdaptiveClipping,
}
_ADAPTIVE = ("target_clipped_quantile", "clip_norm_lr", "clipped_count_stddev")
PRIVACY_OPTIONS = ("dp", "noise_multiplier", "clipping_norm", *_ADAPTIVE)
_FIRST_NORM = 0.1  # Andrew et al.


def privacy_of(options: Mapping[str, Any]) -> "Privacy | None":
    """The privacy that these options ask for; None without any. ValueError for what cannot be."""
    if not options:
        return None
    dp, numbers = options.get("dp"), {name: value for name, value in options.items() if name != "dp"}
    if dp not in _WRAPPERS:
        text = "missing" if dp is None else f"{dp!r}{nearest(str(dp), list(_WRAPPERS))}"
        raise ValueError(f"dp is one of {', '.join(_WRAPPERS)}; it is {text}")
    adaptive = dp.endswith("adaptive")
    for name, value in numbers.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise ValueError(f"{name} is a number, got {value!r}")
        if name in _ADAPTIVE and not adaptive:
            raise ValueError(f"{name} belongs to adaptive clipping, dp is {dp!r}")
    for name in ("noise_multiplier", *(() if adaptive else ("clipping_norm",))):
        if name not in numbers:
            raise ValueError(f"dp = {dp!r} needs {name}")
    norm = float(numbers.pop("clipping_norm", _FIRST_NORM))
    found = Privacy(dp, norm, {name: float(value) for name, value in numbers.items()})
    found.wrapper(10**9)  # has Flower check the numbers; how many clients there are is told later
    return found


class Privacy:
    """Both halves of one of Flower's wrappers. `clipping_norm` is all that is remembered, if it adapts."""

    def __init__(self, dp: str, clipping_norm: float, numbers: Mapping[str, float]) -> None:
        self._dp, self._numbers = dp, numbers
        self._set_norm(clipping_norm)
        self.adaptive = dp.endswith("adaptive")
        self._client_side = dp.startswith("client")

    # client half

    def clip(self, sent: Mapping[str, Tensor], received: Received) -> dict[str, Tensor]:
        """The update, clipped by Flower's function to the norm that was received, where clients clip."""
        if not self._client_side:
            return dict(sent)
        start = received.shared.tensors()
        arrays = [tensor.numpy() for tensor in sent.values()]
        reference = [start[name].numpy() for name in sent]
        # numpy's number: Flower divides by the norm of the update, and Python's raises when that is zero
        norm = np.float64(float(received.extra[KEY_CLIPPING_NORM]))
        with np.errstate(divide="ignore"):
            if not self.adaptive:
                compute_clip_model_update(arrays, reference, norm)
                bit = {}
            else:
                clipped = compute_adaptive_clip_model_update(arrays, reference, norm)
                bit = {NORM_BIT: torch.tensor([float(clipped)])}
        return {name: torch.from_numpy(array) for name, array in zip(sent, arrays, strict=True)} | bit

    # server half

    def extra(self) -> dict[str, Tensor]:
        """What clients that clip are sent."""
        return {KEY_CLIPPING_NORM: torch.tensor([self.clipping_norm])} if self._client_side else {}

    def expected(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Names and shapes of an update, with the bit of adaptive clipping on clients."""
        return shapes | ({NORM_BIT: (1,)} if self.adaptive and self._client_side else {})

    def wrapper(self, num_clients: int) -> Any:
        """Flower's wrapper for that many clients a round; ValueError for noise that they cannot carry."""
        norm = {"initial_clipping_norm" if self.adaptive else "clipping_norm": self.clipping_norm}
        return _WRAPPERS[self._dp](
            flower.FedAvg(**OWN_LOOP), num_sampled_clients=num_clients, **norm, **self._numbers
        )

    def mean(
        self, messages: list[Message], current: ArrayRecord, round: int, seed: int, clients_per_round: int
    ) -> ArrayRecord:
        """The private mean of the clients' arrays; the norm adapts.

        clients_per_round: what the noise of the count of clipped updates is set for; 0: the number that came.
        """
        wrapper = self.wrapper(clients_per_round or len(messages))
        wrapper.num_sampled_clients = len(messages)
        wrapper.clipping_norm = np.float64(self.clipping_norm)
        with _numpy_noise(seed, round), np.errstate(divide="ignore"):
            wrapper.configure_train(round, current, ConfigRecord(), NO_NODES)
            mean, _ = wrapper.aggregate_train(round, messages)
        self._set_norm(float(wrapper.clipping_norm))
        return mean

    def state(self) -> dict[str, Tensor]:
        """The clipping norm, when it adapts."""
        return {KEY_CLIPPING_NORM: torch.tensor([self.clipping_norm])} if self.adaptive else {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take up what `state` gave."""
        if KEY_CLIPPING_NORM in state:
            self._set_norm(float(state[KEY_CLIPPING_NORM]))

    def _set_norm(self, norm: float) -> None:
        # float32, as clients and checkpoints get it
        self.clipping_norm = float(np.float32(norm))


@contextmanager
def _numpy_noise(seed: int, round: int) -> Iterator[None]:
    """Flower draws its noise from numpy's global generator: seeded for the round, and put back afterwards."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(numpy_rng(seed, "dp", round).integers(2**32, size=8))  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
