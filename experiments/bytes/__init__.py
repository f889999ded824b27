"""The size of an update."""
