"""Experiments on planners."""
