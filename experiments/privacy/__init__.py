"""Attacks on the promise of the first page, and what is left of them."""
