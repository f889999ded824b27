"""Observe a stock pipeline call up to its end without computing a step: its schedule and its initial noise."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from fedaigc.diffusion.sampling.loop import Loop, in_loop
from fedaigc.diffusion.sampling.pipeline_call import Pipeline, borrowed, execution_device
from fedaigc.diffusion.sampling.skipped_networks import skipped_networks
from fedaigc.errors import UserError

Request = tuple[tuple[Any, ...], dict[str, Any]]
Prepare = Callable[..., Any]


@dataclass(frozen=True)
class ObservedCall:
    """What a pipeline call does, apart from the computation of its steps.

    Attributes:
        request: The arguments with which the pipeline sets its scheduler's timesteps.
        steps: Number of steps that the pipeline takes.
        latents: The latents at step 0, i.e. the initial noise in the pipeline's own shape, dtype and scale.
        preparation: The arguments of `prepare_latents` if its result is `latents`, else None.
        scheduler: The scheduler, with the timesteps of the call.
    """

    request: Request
    steps: int
    latents: Tensor
    preparation: Request | None
    scheduler: Any


def observe_call(
    pipe: Pipeline,
    call: Mapping[str, Any],
    scheduler: Any,
    on_timesteps: Callable[[Any], None] | None = None,
) -> ObservedCall:
    """Make the call `pipe(**call)` with all of its steps skipped, and return what it does.

    Its cost is that of the text encoder. The pipeline runs its loop to the end, so that it is left as after
    any call.

    Args:
        pipe: The pipeline.
        call: The arguments of the call, with its generator.
        scheduler: An unused scheduler of the class and config to run with.
        on_timesteps: Called with the scheduler after the pipeline has set its timesteps.

    Raises:
        UserError: If the pipeline refuses the call, never sets its timesteps, or takes no step.
    """
    requests: list[Request] = []

    def note(scheduler: Any, *request: Any) -> None:
        requests.append(request)
        if on_timesteps is not None:
            on_timesteps(scheduler)

    loop = Loop(0, 0, generator=call.get("generator"), on_timesteps=note)
    prepared: list[tuple[Request, Any]] = []

    def keep(stock: Prepare, request: Request) -> Any:
        result = stock(*request[0], **request[1])
        prepared.append((request, result))
        return result

    run_call(pipe, call, in_loop(scheduler, loop), loop, keep)
    if not requests:
        raise UserError(
            f"{type(pipe).__name__} never sets its scheduler's timesteps: no plan can be built for it"
        )
    if loop.first is None:
        raise UserError(
            f"{type(pipe).__name__} takes none of its scheduler's steps: no plan can be built for it"
        )
    found = prepared[-1] if prepared else None
    same = found is not None and equal(first_tensor(found[1]), loop.first)
    preparation = found[0] if same and found is not None else None
    return ObservedCall(requests[-1], loop.position, loop.first, preparation, scheduler)


def run_call(
    pipe: Pipeline,
    call: Mapping[str, Any],
    scheduler: Any,
    loop: Loop,
    prepare: Any = None,
    *,
    gradients: bool = False,
) -> tuple[Any, ...]:
    """Call the pipeline with a scheduler that runs `loop`, and return its output.

    Args:
        pipe: The pipeline.
        call: The arguments of the call.
        scheduler: The scheduler (see `in_loop`).
        loop: Its loop.
        prepare: Called in place of the pipeline's `prepare_latents`, with that method and its arguments. None
            leaves it.
        gradients: Whether `loop` may enable gradients, which pipelines disable for the whole call.

    Raises:
        UserError: If the pipeline refuses the call.
    """
    stock: Any = type(pipe).__call__
    if gradients and not hasattr(stock, "__wrapped__"):
        raise UserError(f"{type(pipe).__name__} has a call that does not permit gradients")
    made = stock.__wrapped__ if gradients else stock
    # embeddings and latents from a packet or a file are on the CPU
    device = execution_device(pipe)
    placed = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in call.items()}
    try:
        with (
            torch.no_grad(),
            borrowed(pipe, scheduler),
            skipped_networks(pipe, loop.skips),
            _preparing(pipe, scheduler, prepare),
            _seeded_globally(call.get("generator"), device),
        ):
            return as_tuple(made(pipe, **placed, return_dict=False))
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if error is loop.interruption or (loop.start == 0 < loop.position <= loop.stop):
            raise
        reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        if loop.position == 0:
            raise UserError(f"{type(pipe).__name__} refuses these settings: {reason:.400}") from error
        raise UserError(f"{type(pipe).__name__} cannot be divided: {reason:.400}") from error


def as_tuple(output: Any) -> tuple[Any, ...]:
    """Return what a pipeline call returned as a tuple. Some return an object for latents, whatever they are asked."""
    found: tuple[Any, ...] = output.to_tuple() if hasattr(output, "to_tuple") else output
    return found if isinstance(found, tuple) else (found,)


@contextmanager
def _seeded_globally(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Within the context, torch's global generators start at the seed of the noise stream.

    Some pipelines draw from them before their steps, e.g. to encode a control image.
    """
    seed = 0 if generator is None else generator.initial_seed()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(seed)
        if device.type == "cuda":
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


@contextmanager
def _preparing(pipe: Pipeline, scheduler: Any, prepare: Any) -> Iterator[None]:
    """Within the context, call `prepare` in place of the `prepare_latents` of the pipeline with the scheduler."""
    parts = [part for part in vars(pipe).values() if hasattr(part, "set_progress_bar_config")]
    users = [
        each
        for each in (pipe, *parts)
        if prepare is not None and hasattr(each, "prepare_latents") and each.scheduler is scheduler
    ]
    earlier = [each.__dict__.get("prepare_latents") for each in users]
    for each in users:
        stock = each.prepare_latents

        def wrapped(*arguments: Any, _stock: Prepare = stock, **options: Any) -> Any:
            return prepare(_stock, (arguments, options))

        each.__dict__["prepare_latents"] = wrapped
    try:
        yield
    finally:
        for each, own in zip(users, earlier, strict=True):
            del each.__dict__["prepare_latents"]
            if own is not None:
                each.__dict__["prepare_latents"] = own


def first_tensor(result: Any) -> Any:
    """Return the latents of what `prepare_latents` returns: some pipelines add ids or masks."""
    return result[0] if isinstance(result, tuple | list) else result


def with_first_tensor(result: Any, latents: Tensor) -> Any:
    """Return the result of `prepare_latents` with other latents in it."""
    return type(result)([latents, *result[1:]]) if isinstance(result, tuple | list) else latents


def equal(one: Any, other: Tensor) -> bool:
    """Return whether `one` is a tensor of the same shape, dtype and values."""
    return (
        isinstance(one, Tensor)
        and one.shape == other.shape
        and one.dtype == other.dtype
        and torch.equal(one, other.to(one.device))
    )


# by pipeline: whether its `prepare_latents` returns the latents of step 0
_prepares: "WeakKeyDictionary[Pipeline, bool]" = WeakKeyDictionary()


def note_preparation(pipe: Pipeline, observed: ObservedCall) -> None:
    """Remember for `prepares_start` what was observed of a pipeline."""
    _prepares[pipe] = observed.preparation is not None


def prepares_start(pipe: Pipeline, observe: Callable[[], ObservedCall]) -> bool:
    """Return whether the pipeline's `prepare_latents` returns the latents of step 0.

    Args:
        pipe: The pipeline.
        observe: Observes a call, if none of this pipeline was observed yet.
    """
    if pipe not in _prepares:
        note_preparation(pipe, observe())
    return _prepares[pipe]
