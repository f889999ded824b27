"""The ways to partition a pool of rows and their labels, in a module that loads fast: the command line lists them."""

from typing import Literal

Kind = Literal["style", "object", "dirichlet", "pathological", "natural", "iid"]
Label = Literal["object", "relation", "place", "style"]
