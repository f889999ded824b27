"""The tests, a package only so that pyproject.toml can name the signature checker."""

from tests import typechecker as typechecker
