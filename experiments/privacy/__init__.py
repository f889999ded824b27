"""Attacks on the promise of the first page, and what remains of them."""
