"""Sums of conditionings of which nobody sees the parts."""
