"""What the server of a run leaves in its output folder: record, checkpoints, figures for TensorBoard."""
