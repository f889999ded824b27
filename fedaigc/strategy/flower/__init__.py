"""Flower's own strategies and its differential privacy as rules."""
