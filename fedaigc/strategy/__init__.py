"""The interface for authors of strategies: the two halves of a strategy, and what they may use."""
