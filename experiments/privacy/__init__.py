"""Attacks on the privacy that the README promises, and their remaining success."""
