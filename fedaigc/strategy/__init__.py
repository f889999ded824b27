"""The interface for authors of strategies: the two halves of a strategy, and what they may use.

The built-in strategies are in `strategies/` of the repository, which an installed package has as
`fedaigc.strategy.builtin`. `tests/strategies` tests them, `tests/strategy` this package.
"""
