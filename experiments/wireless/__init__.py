"""Measurements of the radio link."""
