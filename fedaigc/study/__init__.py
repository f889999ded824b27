"""Studies: comparisons of strategies over many runs."""
