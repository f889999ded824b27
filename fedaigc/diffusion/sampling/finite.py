"""Refuse what a pipeline computes with values that are not finite, before it becomes a black picture."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Any

import numpy as np
import torch

from fedaigc.diffusion.sampling.pipeline_call import Pipeline, dtype_name
from fedaigc.errors import NotFinite

# what makes pictures of decoded values, in all pipelines of diffusers
_PROCESSORS = ("image_processor", "video_processor")
_METHODS = ("postprocess", "postprocess_video")


@contextmanager
def finite_pictures(pipe: Pipeline) -> Iterator[None]:
    """Raise NotFinite where the pipeline would make a picture of values that are not finite."""
    with ExitStack() as stack:
        for processor in (getattr(pipe, name, None) for name in _PROCESSORS):
            for method in _METHODS:
                if callable(getattr(processor, method, None)):
                    stack.enter_context(_checked(pipe, processor, method))
        yield


def check_finite(pipe: Pipeline, values: Any, what: str) -> None:
    """Check values that a pipeline computed.

    Args:
        pipe: The pipeline, for the advice in the message.
        values: A tensor or an array; anything else passes.
        what: What the values are, for the message.

    Raises:
        NotFinite: If one is not finite.
    """
    if isinstance(values, np.ndarray):
        values = torch.from_numpy(values)
    if isinstance(values, torch.Tensor) and not bool(values.isfinite().all()):
        raise NotFinite(
            f"{type(pipe).__name__} computed {what} that are not finite, so nothing is kept: {_advice(pipe)}"
        )


@contextmanager
def _checked(pipe: Pipeline, processor: Any, method: str) -> Iterator[None]:
    stock: Callable[..., Any] = getattr(processor, method)

    @wraps(stock)
    def checked(values: Any, *arguments: Any, **options: Any) -> Any:
        check_finite(pipe, values, "pictures")
        return stock(values, *arguments, **options)

    setattr(processor, method, checked)
    try:
        yield
    finally:
        # the method of the class is seen again
        delattr(processor, method)


def _advice(pipe: Pipeline) -> str:
    scheduler = pipe.scheduler
    alphas, config = getattr(scheduler, "alphas_cumprod", None), scheduler.config
    if alphas is not None and float(alphas[-1]) == 0 and config.get("prediction_type") == "epsilon":
        return (
            f"{type(scheduler).__name__} begins at a signal-to-noise ratio of zero (rescale_betas_zero_snr), where a "
            "model that predicts epsilon has no clean picture; set rescale_betas_zero_snr to false"
        )
    if dtype_name(pipe) == "float16":
        return 'numbers beyond 65,504 overflow in float16; use the dtype "float32" or "bfloat16"'
    return (
        "look for weights or adapters that are not finite, or a scheduler that the model was not trained with"
    )
