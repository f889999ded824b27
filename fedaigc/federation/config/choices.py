"""Choices of a configuration, in a module that loads fast: the command line lists them."""

from typing import Literal

Backend = Literal["in-process", "ray"]
Dtype = Literal["float32", "float16", "bfloat16"]
