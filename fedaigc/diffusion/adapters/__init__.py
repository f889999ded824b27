"""The weights of the two stages: their values, in a pipeline, and in folders."""
