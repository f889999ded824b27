"""The output folder of a run: record, checkpoints and TensorBoard scalars."""
