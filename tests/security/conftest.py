"""The small model and its homes, as the tests of the federation have them."""

from tests.federation.conftest import make_run, small_model

__all__ = ["make_run", "small_model"]
