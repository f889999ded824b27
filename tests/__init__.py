"""The tests; imported by name only for the signature checker that pyproject.toml names."""

from tests import typechecker as typechecker
