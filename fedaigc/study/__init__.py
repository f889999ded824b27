"""Comparisons of strategies: studies of many runs."""
