"""Mutated messages for devices and servers, and what must hold after each."""
