"""The steps of one stock pipeline call: which of them are computed, and what the scheduler sees of each.

A pipeline runs its whole loop, with every timestep, index and argument of the undivided call. Only the steps
[start, stop) are computed. The step before `start` returns the latents of the state, and all others return
the latents that they get. The networks are skipped in these steps (`skipped_networks`). Initial noise, packed
shapes, dtypes and whatever a pipeline derives from the number of a step are therefore its own.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import wraps
from inspect import signature
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from fedaigc.errors import UserError

_MAX_DRAWS_PER_STEP = 4
# entries of a scheduler in a loop that are no running values
OWN = frozenset({"set_timesteps", "step", "scale_model_input"})


@dataclass
class Loop:
    """The loop of one pipeline call, and its progress.

    Attributes:
        start: The first computed step.
        stop: The step to stop computing before.
        latents: What step `start` - 1 returns. None: the latents that it gets.
        generator: The noise stream that the scheduler draws from, a CPU generator.
        on_timesteps: Called with the scheduler after each `set_timesteps`, and with its arguments.
        on_start: Called with the latents at `start`, and with the state of the noise stream before step 0.
        on_step: Called with the scheduler after each computed step.
        position: Number of steps that the pipeline has taken in this call.
        total: Number of timesteps, None before `set_timesteps`.
        draws: Number of latents-shaped draws that the computed steps took from `generator`.
        first: The latents at step 0.
        answer: What the pipeline hands to the first computed step, after guidance.
        last: The latents after the last computed step.
        interruption: The exception by which `on_step` ended the call.
    """

    start: int
    stop: int
    latents: Tensor | None = None
    generator: torch.Generator | None = None
    on_timesteps: Callable[[Any, tuple[Any, ...], dict[str, Any]], None] | None = None
    on_start: Callable[[Tensor, Tensor | None], None] | None = None
    on_step: Callable[[Any], None] | None = None
    position: int = 0
    total: int | None = None
    draws: int = 0
    first: Tensor | None = None
    answer: Tensor | None = None
    last: Tensor | None = None
    interruption: Exception | None = None
    _stream: Tensor | None = field(default=None, repr=False)
    _global: Tensor | None = field(default=None, repr=False)
    _set_up: Tensor | None = field(default=None, repr=False)

    @property
    def computes(self) -> bool:
        """Whether the step that comes next is computed."""
        return self.start <= self.position < self.stop

    def skips(self) -> bool:
        """Return whether the pipeline is inside of a step that is not computed."""
        return self.total is not None and self.position < self.total and not self.computes

    def begin_step(self, sample: Tensor, name: str) -> None:
        """Note the latents of the first step, and check that nothing but the scheduler's steps draws noise."""
        if self.position == 0:
            self.first = sample
            self._set_up = None if self.generator is None else self.generator.get_state()
            self._global = torch.default_generator.get_state()
            if self.start == 0:
                self.arrive(sample)
        elif (
            self.generator is not None
            and self._stream is not None
            and not torch.equal(self._stream, self.generator.get_state())
        ):
            raise UserError(
                f"the pipeline draws noise between the steps of its {name}: a run with it cannot be divided"
            )

    def arrive(self, latents: Tensor) -> None:
        """Note that the run is at step `start`, with these latents."""
        if self.on_start is not None:
            self.on_start(latents, self._set_up)

    def end_step(self, name: str) -> None:
        """Note where the noise stream is after a step, and check that torch's global generator was not used."""
        if self._global is not None and not torch.equal(self._global, torch.default_generator.get_state()):
            raise UserError(
                f"{name}, or a network in training mode, draws from torch's global generator in its steps: a run "
                "with it cannot be divided"
            )
        self._stream = None if self.generator is None else self.generator.get_state()
        self.position += 1


class _Passed(tuple[Any, ...]):
    """What a step that is not computed returns, in place of any scheduler's output."""

    @property
    def prev_sample(self) -> Any:
        return self[0]

    pred_original_sample = denoised = prev_sample


def in_loop(scheduler: Any, loop: Loop) -> Any:
    """Let a scheduler take the steps of `loop`, and return it.

    Methods of the instance are replaced: its class stays the one that pipelines ask for.
    """
    stock = type(scheduler)
    takes_generator = "generator" in signature(stock.step).parameters
    own = scheduler.__dict__

    @wraps(scheduler.set_timesteps)
    def set_timesteps(*arguments: Any, **options: Any) -> None:
        stock.set_timesteps(scheduler, *arguments, **options)
        if loop.on_timesteps is not None:
            loop.on_timesteps(scheduler, arguments, options)
        loop.position, loop.total = 0, len(scheduler.timesteps)

    @wraps(scheduler.step)
    def step(model_output: Any, timestep: Any, sample: Any, *arguments: Any, **options: Any) -> Any:
        loop.begin_step(sample, stock.__name__)
        if not loop.computes:
            latents = _passed_on(loop, sample)
            if loop.position == loop.start - 1:
                loop.arrive(latents)
            loop.end_step(stock.__name__)
            return _Passed((latents, latents))
        generator = loop.generator
        if takes_generator and not arguments and options.get("generator") is None:
            # SD3 and FLUX pass no generator, so a stochastic scheduler would draw from the global stream
            options["generator"] = generator
        if loop.position == loop.start:
            loop.answer = model_output
        before = generator.get_state() if generator is not None else None
        result = stock.step(scheduler, model_output, timestep, sample, *arguments, **options)
        if generator is not None and before is not None:
            loop.draws += _draws_between(before, generator.get_state(), sample, stock.__name__)
        loop.last = result[0]
        loop.end_step(stock.__name__)
        if loop.on_step is not None:
            try:
                loop.on_step(scheduler)
            except Exception as error:
                loop.interruption = error
                raise
        return result

    own["set_timesteps"], own["step"] = set_timesteps, step
    if hasattr(stock, "scale_model_input"):

        @wraps(scheduler.scale_model_input)
        def scale_model_input(sample: Any, *arguments: Any, **options: Any) -> Any:
            if loop.skips():
                return sample
            return stock.scale_model_input(scheduler, sample, *arguments, **options)

        own["scale_model_input"] = scale_model_input
    return scheduler


def _passed_on(loop: Loop, sample: Tensor) -> Tensor:
    if loop.latents is None or loop.position != loop.start - 1:
        return sample
    if loop.latents.shape != sample.shape:
        raise UserError(
            f"latents of shape {tuple(loop.latents.shape)}, but this call makes {tuple(sample.shape)}: "
            "size, number of images or model differ"
        )
    return laid_out(loop.latents, sample)


def laid_out(latents: Tensor, like: Tensor) -> Tensor:
    """Return latents on the device and in the memory layout of others of their shape.

    LTX's are transposed in memory, which a packet does not carry, and the bits of half precision depend on it.
    """
    return torch.empty_like(like, dtype=latents.dtype).copy_(latents)


def _draws_between(
    before: UInt8[Tensor, " n"], after: UInt8[Tensor, " n"], sample: Float[Tensor, "b *latent"], name: str
) -> int:
    """Return the number of latents-shaped draws between two generator states.

    A state carries only a seed and this count, so a draw of another shape could not be repeated after a
    hand-off.
    """
    if torch.equal(before, after):
        return 0
    probe = torch.Generator()
    probe.set_state(before)
    for count in range(1, _MAX_DRAWS_PER_STEP + 1):
        _draw_like(sample, probe)
        if torch.equal(probe.get_state(), after):
            return count
    raise UserError(f"{name} draws noise of another shape than the latents: a run with it cannot be split")


def seek(
    generator: torch.Generator, begin: UInt8[Tensor, " n"], draws: int, latents: Float[Tensor, "b *latent"]
) -> None:
    """Set a noise stream to where a number of latents-shaped draws leaves it.

    Args:
        generator: The stream.
        begin: Its state before these draws.
        draws: The number of draws.
        latents: The latents whose shape and dtype the draws have.
    """
    generator.set_state(begin)
    for _ in range(draws):
        _draw_like(latents, generator)


def _draw_like(sample: Float[Tensor, "b *latent"], generator: torch.Generator) -> None:
    torch.randn(sample.shape, generator=generator, dtype=sample.dtype)
