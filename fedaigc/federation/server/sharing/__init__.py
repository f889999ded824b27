"""Which tasks share, on what, and how far."""
