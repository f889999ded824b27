"""Weights of the two stages: as values, installed in a pipeline, and in files."""
