"""Differential privacy of the clients' mean, by Flower's wrappers around its FedAvg.

The options apply to a Flower strategy that starts from the mean:

- `dp`: "server-fixed", "client-fixed", "server-adaptive" or "client-adaptive", that is who clips, and whether
  the norm adapts.
- `noise_multiplier`: z.
- `clipping_norm`: C, the first one if it adapts.
- `target_clipped_quantile`, `clip_norm_lr`, `clipped_count_stddev`: for adaptive clipping.
- `delta`: Delta at which epsilon is stated.
- `insecure_seed`: see below.

For the updates d_k of K clients

    x = x_global + (1 / K) sum_k d_k min(1, C / |d_k|) + N(0, (z C / K)^2)

(McMahan et al. 2018, arXiv:1710.06963; adaptive: Andrew et al. 2021, arXiv:1905.03871). This differs in six
points from wrapping a strategy directly:

- All clients count alike. The noise is scaled for a weight of 1/K, and with n_k one client would move the
  mean by more.
- A server optimizer works on the private mean. Flower's wrapper would add the noise after its step, which C /
  K does not bound.
- K is the number of updates that arrived.
- The noise comes from the operating system's entropy. Flower draws from numpy's global generator.
- The noise is scaled to the norm C that clipped the updates. Flower's adaptive wrappers scale it to the next
  one.
- The norm grows while more updates are clipped than wanted. Flower's shrinks.

`insecure_seed` makes the noise a function of that number and of the run's seed, for runs that must repeat.
Whoever has both can subtract the noise: every device of a simulation, and anyone who sees the configuration.
No epsilon holds, and the record states so.

This is central privacy: the server is trusted. It does not cover n_k, losses and participation.
`Privacy.released` holds what a round spends, and `accountant` adds it up.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message
from flwr.serverapp import strategy as flower
from torch import Tensor

from fedaigc.flower_private import (
    KEY_CLIPPING_NORM,
    KEY_NORM_BIT,
    compute_adaptive_clip_model_update,
    compute_clip_model_update,
    compute_stdv,
)
from fedaigc.rng import numpy_rng
from fedaigc.strategy.accountant import DELTA, Release
from fedaigc.strategy.flower.no_nodes import NoNodes
from fedaigc.strategy.rule import Received
from fedaigc.strategy.secret_noise import secret_normal
from fedaigc.validation import nearest

NORM_BIT = KEY_NORM_BIT
WEIGHT = "num-examples"
# our loop draws the clients and sends the messages, so Flower's must not wait for nodes
NO_NODES = NoNodes()
OWN_LOOP: Mapping[str, Any] = {"min_train_nodes": 0, "min_evaluate_nodes": 0, "min_available_nodes": 0}

Draw = Callable[[int], Any]  # from a count to that many standard normal values


class _OwnNoise:
    """Mixin for Flower's wrappers: `draw` draws their noise, which is scaled to `clipped_to`.

    Attributes:
        draw: Source of standard normal values.
        clipped_to: Norm that clipped the updates of this round.
        noisy: How often noise was drawn.
    """

    draw: Draw
    clipped_to: float
    noisy = 0

    # attributes of Flower's wrapper
    noise_multiplier: float
    num_sampled_clients: int
    clipping_norm: float
    clipped_count_stddev: float
    target_clipped_quantile: float
    clip_norm_lr: float

    @property
    def noise_std(self) -> float:
        """z C / K of the round."""
        return compute_stdv(self.noise_multiplier, self.clipped_to, self.num_sampled_clients)

    def _add_noise_to_aggregated_arrays(self, aggregated: ArrayRecord) -> ArrayRecord:
        self.noisy += 1
        found = {}
        for name, array in aggregated.items():
            values = array.numpy()
            noise = self.noise_std * self.draw(values.size)
            found[name] = Array((values + noise.reshape(values.shape)).astype(values.dtype))
        return ArrayRecord(found)

    def _noisy_fraction(self, count: int, total: int) -> float:
        self.noisy += 1
        return (count + self.clipped_count_stddev * float(self.draw(1)[0])) / total

    def _geometric_update(self, clipped_fraction: float) -> None:
        """Adapt the norm by the shares b and gamma of updates that are not, and should not be, clipped.

            C <- C exp(-eta (b - gamma))

        Source: Andrew et al. Flower uses the clipped shares instead, with which the norm runs away from its
        quantile.
        """
        unclipped, wanted = 1 - clipped_fraction, 1 - self.target_clipped_quantile
        self.clipping_norm *= np.exp(-self.clip_norm_lr * (unclipped - wanted))


class _ServerFixed(_OwnNoise, flower.DifferentialPrivacyServerSideFixedClipping):
    pass


class _ClientFixed(_OwnNoise, flower.DifferentialPrivacyClientSideFixedClipping):
    pass


class _ServerAdaptive(_OwnNoise, flower.DifferentialPrivacyServerSideAdaptiveClipping):
    pass


class _ClientAdaptive(_OwnNoise, flower.DifferentialPrivacyClientSideAdaptiveClipping):
    pass


_WRAPPERS: dict[str, type[Any]] = {
    "server-fixed": _ServerFixed,
    "client-fixed": _ClientFixed,
    "server-adaptive": _ServerAdaptive,
    "client-adaptive": _ClientAdaptive,
}
_ADAPTIVE = ("target_clipped_quantile", "clip_norm_lr", "clipped_count_stddev")
PRIVACY_OPTIONS = ("dp", "noise_multiplier", "clipping_norm", "delta", "insecure_seed", *_ADAPTIVE)
_FIRST_NORM = 0.1  # Andrew et al.


def privacy_of(options: Mapping[str, Any]) -> "Privacy | None":
    """Return the privacy that these options request; None without options.

    Raises:
        ValueError: If an option is missing or has an invalid value.
    """
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
    delta = float(numbers.pop("delta", DELTA))
    if not 0 < delta < 1:
        raise ValueError(f"delta is a number above 0 and below 1, got {delta!r}")
    insecure_seed = numbers.pop("insecure_seed", None)
    if isinstance(insecure_seed, float):
        raise ValueError(f"insecure_seed is a whole number, got {insecure_seed!r}")
    for name in ("noise_multiplier", *(() if adaptive else ("clipping_norm",))):
        if name not in numbers:
            raise ValueError(f"dp = {dp!r} needs {name}")
    norm = float(numbers.pop("clipping_norm", _FIRST_NORM))
    found = Privacy(dp, norm, {name: float(value) for name, value in numbers.items()}, delta, insecure_seed)
    found.wrapper(10**9)  # Flower checks the numbers; the number of clients follows later
    return found


class Privacy:
    """Both halves of one of Flower's wrappers; it remembers only `clipping_norm`, if that adapts.

    Attributes:
        released: What the last `mean` reveals of one client, for the accountant; None before the first.
    """

    def __init__(
        self,
        dp: str,
        clipping_norm: float,
        numbers: Mapping[str, float],
        delta: float = DELTA,
        insecure_seed: int | None = None,
    ) -> None:
        self._dp, self._numbers = dp, numbers
        self.delta, self._insecure_seed = delta, insecure_seed
        self.released: Release | None = None
        self._set_norm(clipping_norm)
        self.adaptive = dp.endswith("adaptive")
        self._client_side = dp.startswith("client")
        self.server_side = not self._client_side

    # client half

    def clip(self, sent: Mapping[str, Tensor], received: Received) -> dict[str, Tensor]:
        """Return the update, clipped by Flower's function to the received norm if clients clip.

        If that norm adapts, the result also contains the bit `NORM_BIT`.
        """
        if not self._client_side:
            return dict(sent)
        start = received.shared.tensors()
        arrays = [tensor.numpy() for tensor in sent.values()]
        reference = [start[name].numpy() for name in sent]
        # a numpy number: Flower divides by the norm of the update, and Python's float raises if that is zero
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
        """Return the clipping norm for clients that clip; otherwise nothing."""
        return {KEY_CLIPPING_NORM: torch.tensor([self.clipping_norm])} if self._client_side else {}

    def expected(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """Return names and shapes of an update, with the bit of adaptive clipping on clients."""
        return shapes | ({NORM_BIT: (1,)} if self.adaptive and self._client_side else {})

    def wrapper(self, num_clients: int) -> Any:
        """Return Flower's wrapper for that many clients per round.

        Raises:
            ValueError: If the noise is more than so few clients can carry.
        """
        norm = {"initial_clipping_norm" if self.adaptive else "clipping_norm": self.clipping_norm}
        return _WRAPPERS[self._dp](
            flower.FedAvg(**OWN_LOOP), num_sampled_clients=num_clients, **norm, **self._numbers
        )

    def mean(
        self, messages: list[Message], current: ArrayRecord, round: int, seed: int, clients_per_round: int
    ) -> ArrayRecord:
        """Return the mean of the clients' clipped arrays, with noise; the norm adapts.

        Args:
            messages: Updates of the round.
            current: Arrays that the round began from.
            round: Number of the round.
            seed: Seed of the run, which determines the noise together with `insecure_seed`, if that is set.
            clients_per_round: Number of clients for which the noise of the count of clipped updates is set; 0
                for the number of messages.

        Raises:
            RuntimeError: If Flower's wrapper did not add the noise where it is expected to.
        """
        wrapper = self.wrapper(clients_per_round or len(messages))
        wrapper.num_sampled_clients = len(messages)
        wrapper.clipping_norm = np.float64(self.clipping_norm)
        wrapper.clipped_to = self.clipping_norm
        wrapper.draw = self._draw(seed, round)
        with np.errstate(divide="ignore"):
            wrapper.configure_train(round, current, ConfigRecord(), NO_NODES)
            mean, _ = wrapper.aggregate_train(round, messages)
        if wrapper.noisy != (2 if self.adaptive else 1):
            raise RuntimeError(f"Flower's {type(wrapper).__mro__[2].__name__} adds its noise elsewhere now")
        self.released = Release(
            clients=len(messages),
            clipping_norm=self.clipping_norm,
            noise_std=wrapper.noise_std,
            mu=_mu(wrapper, adaptive=self.adaptive),
            delta=self.delta,
            no_epsilon=self._no_epsilon(),
        )
        self._set_norm(float(wrapper.clipping_norm))
        return mean

    def _draw(self, seed: int, round: int) -> Draw:
        if self._insecure_seed is None:
            return secret_normal
        return numpy_rng(self._insecure_seed, "dp", seed, round).standard_normal

    def _no_epsilon(self) -> str:
        """Return why the noise bounds nothing; empty if it does."""
        if self._insecure_seed is not None:
            return f"under insecure_seed = {self._insecure_seed} whoever knows it can subtract the noise"
        if not self._numbers["noise_multiplier"]:
            return "noise_multiplier is 0"
        if self._client_side:
            who = f'under dp = "{self._dp}" the clients clip'
            return f"{who}, and one that does not moves the mean by any amount"
        return ""

    def state(self) -> dict[str, Tensor]:
        """Return the clipping norm, if it adapts."""
        return {KEY_CLIPPING_NORM: torch.tensor([self.clipping_norm])} if self.adaptive else {}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""
        if KEY_CLIPPING_NORM in state:
            self._set_norm(float(state[KEY_CLIPPING_NORM]))

    def _set_norm(self, norm: float) -> None:
        # float32, as clients and checkpoints receive it
        self.clipping_norm = float(np.float32(norm))


def _mu(wrapper: Any, *, adaptive: bool) -> float | None:
    """Return mu of the round as one Gaussian mechanism, for one client's update against none.

    The mean has sensitivity C / K and noise z C / K. With adaptive clipping, Flower raises z to z' for the
    count. The noise of the count has standard deviation s, and a client adds its bit - 1/2 to it (Andrew et
    al., theorem 1):

        mu^2 = 1 / z'^2 + 1 / (2 s)^2 = 1 / z^2

    Returns:
        mu; None without noise.
    """
    if not wrapper.noise_multiplier:
        return None
    squared = wrapper.noise_multiplier**-2
    if adaptive:
        squared += (2 * wrapper.clipped_count_stddev) ** -2
    return float(squared**0.5)
